"""Files with the names that publishers give their tensors: which network is taken of each, and how images are prepared.

The names are those that the code of each project writes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from reid.models.backbones import build_backbone
from reid.models.pretrained import build_pretrained
from reid.models.weight_files import read_state

State = dict[str, torch.Tensor]
VIT = {"embed_dim": 96, "depth": 2, "num_heads": 3}
SWIN = {"depths": (1, 1, 1, 1)}
REID = (0.5, 0.5, 0.5)


def named(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def other(state: State) -> State:
    """Another network of the same kind, which is not the one to be taken."""
    return {name: value + 1 for name, value in state.items()}


def optimizer(state: State) -> dict[str, Any]:
    moments = {place: {"exp_avg": value, "step": 3} for place, value in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": list(moments)}]}


def neck(width: int, prefix: str) -> State:
    parts = {"weight": torch.ones(width), "bias": torch.zeros(width), "running_mean": torch.zeros(width)}
    return named(prefix, {**parts, "running_var": torch.ones(width), "num_batches_tracked": torch.tensor(9)})


def dino(state: State) -> Any:
    heads = {"head.mlp.0.weight": torch.ones(8, 96), "head.last_layer.weight_g": torch.ones(8, 1)}
    student = {**named("module.backbone.", other(state)), **named("module.", heads)}
    teacher = {**named("backbone.", state), **heads}
    args = argparse.Namespace(arch="vit_small", lr=0.0005)
    loss = {"center": torch.zeros(1, 8)}
    return {"student": student, "teacher": teacher, "optimizer": optimizer(student), "args": args, "dino_loss": loss}


def dinov2(state: State) -> Any:
    renamed = {name.replace("reg_token", "register_tokens"): value for name, value in state.items()}
    place = renamed["pos_embed"]  # timm's file has none for the class token, whose own takes it in
    renamed["pos_embed"] = torch.cat([torch.zeros(1, 1, place.shape[2]), place], dim=1)
    return {**renamed, "mask_token": torch.zeros(1, place.shape[2])}


def mae(state: State) -> Any:
    decoder = {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 197, 64),
        "decoder_embed.weight": torch.zeros(64, 96),
        "decoder_blocks.0.norm1.weight": torch.ones(64),
        "decoder_blocks.0.attn.qkv.weight": torch.ones(192, 64),
        "decoder_norm.weight": torch.ones(64),
        "decoder_pred.weight": torch.ones(768, 64),
    }
    args = argparse.Namespace(model="mae_vit_base_patch16", output_dir="./out")
    return {"model": {**state, **decoder}, "optimizer": optimizer(state), "epoch": 399, "scaler": {}, "args": args}


def moco_v3(state: State) -> Any:
    head = {"head.0.weight": torch.ones(8, 96), "head.1.running_mean": torch.ones(8)}
    both = {
        **named("module.momentum_encoder.", {**other(state), **head}),
        **named("module.base_encoder.", {**state, **head}),
        "module.predictor.0.weight": torch.ones(8, 8),
    }
    return {"epoch": 300, "arch": "vit_base", "state_dict": both, "optimizer": optimizer(state), "scaler": {}}


def moco_v3_linear(state: State) -> Any:
    head = {"head.weight": torch.ones(1000, 96), "head.bias": torch.ones(1000)}
    return {"epoch": 90, "arch": "vit_base", "state_dict": named("module.", {**state, **head}), "best_acc1": 76.7}


def fast_reid(state: State) -> Any:
    heads = {"heads.weight": torch.ones(751, 96), **neck(96, "heads.bottleneck.0.")}
    return {"model": {**named("backbone.", state), **heads}, "optimizer": optimizer(state), "epoch": 119}


def oml(state: State) -> Any:
    return {"state_dict": {**named("model.model.", state), "criterion.weight": torch.ones(7, 96)}, "epoch": 9}


def oml_extractor(state: State) -> Any:
    return named("extractor.model.", state)


def transreid(state: State) -> Any:
    heads = {"classifier.weight": torch.ones(751, 96), **neck(96, "bottleneck.")}
    return {**named("base.", {**state, "fc.weight": torch.ones(1000, 96)}), **heads}


def clip(state: State) -> State:
    """The image tower as OpenAI names it."""
    renames = {
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        ".norm1": ".ln_1",
        ".norm2": ".ln_2",
        "attn.qkv.": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "blocks.": "transformer.resblocks.",
    }
    renamed = {"class_embedding": state["cls_token"].flatten(), "positional_embedding": state["pos_embed"][0]}
    for name, value in state.items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        name = f"ln_post{name.removeprefix('norm')}" if name.startswith("norm.") else name
        if name not in ("cls_token", "pos_embed"):
            renamed[name] = value
    return {**renamed, "proj": torch.zeros(96, 512)}


def text_tower() -> State:
    block = {"ln_1.weight": torch.ones(64), "attn.in_proj_weight": torch.ones(192, 64)}
    return {**named("transformer.resblocks.0.", block), "positional_embedding": torch.ones(77, 64)}


def openai_clip(state: State) -> Any:
    return {**named("visual.", clip(state)), **text_tower(), "logit_scale": torch.tensor(4.6)}


def clip_reid(state: State) -> Any:
    heads = {
        "classifier.weight": torch.ones(751, 96),
        "classifier_proj.weight": torch.ones(751, 512),
        **neck(96, "bottleneck."),
        **neck(512, "bottleneck_proj."),
        "cv_embed": torch.ones(6, 96),
        "prompt_learner.cls_ctx": torch.ones(751, 4, 512),
    }
    return {**heads, **named("image_encoder.", clip(state)), **named("text_encoder.", text_tower())}


def openmmlab(state: State) -> State:
    renames = {
        "layers.": "stages.",
        ".attn.": ".attn.w_msa.",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
        "patch_embed.proj": "patch_embed.projection",
    }
    renamed = {}
    for name, value in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}", f"layers.{stage - 1}", 1)
            # nn.Unfold has the four neighbours of one channel beside each other, row by row.
            columns = value.reshape(*value.shape[:-1], 2, 2, -1).movedim(-1, -3).transpose(-1, -2)
            value = columns.reshape(value.shape)
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        renamed[f"norm3{name.removeprefix('norm')}" if name.startswith("norm.") else name] = value
    semantic = {"semantic_embed_w.0.weight": torch.zeros(192, 2), "norm0.weight": torch.ones(96)}
    return {**renamed, **semantic}


def solider(state: State) -> Any:
    teacher = {**named("backbone.", openmmlab(state)), "head.mlp.0.weight": torch.ones(8, 768)}
    student = named("module.backbone.", openmmlab(other(state)))
    return {"student": student, "teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="swin_tiny")}


def solider_reid(state: State) -> Any:
    return {**named("base.", openmmlab(state)), "classifier.weight": torch.ones(751, 768), **neck(768, "bottleneck.")}


def megadescriptor(state: State) -> Any:
    """As timm of its time wrote Swin: reductions at the end of a stage, masks and indices among the tensors."""
    renamed = {}
    for name, value in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}", f"layers.{stage - 1}", 1)
        renamed[name] = value
    indices = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    return {**renamed, **indices, "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}


def timm_training(state: State) -> Any:
    head = {"head.weight": torch.ones(10, 96), "head.bias": torch.ones(10)}
    return {
        "epoch": 299,
        "arch": "vit_base_patch16_224",
        "state_dict": {**other(state), **head},
        "state_dict_ema": {**state, **head},
        "optimizer": optimizer(state),
        "args": argparse.Namespace(model="vit_base_patch16_224", opt="adamw"),
        "version": 2,
    }


@dataclass(frozen=True)
class Published:
    """A backbone in small, its image size and stride, who wrote it, what is told of where it was, and its mean."""

    backbone: str
    size: tuple[int, int]
    write: Callable[[State], Any]
    told: str
    mean: tuple[float, float, float] | None = None  # timm's
    stride: int | None = None
    overrides: dict[str, Any] | None = None

    def __str__(self) -> str:
        return self.write.__name__ + (f"_{self.stride}" if self.stride else "")


PUBLISHED = [
    Published(
        "deit_small",
        (224, 224),
        dino,
        "(teacher, without the prefix 'backbone.'; not the one of student, without the prefix 'module.backbone.')",
    ),
    Published("dinov2_small_reg", (518, 518), dinov2, "", overrides={"depth": 1}),
    Published("vit_base", (224, 224), mae, "(model)"),
    Published(
        "vit_base", (224, 224), moco_v3, "; not the one of state_dict, without the prefix 'module.momentum_encoder.')"
    ),
    Published("vit_base", (224, 224), moco_v3_linear, "state_dict, without the prefix 'module.'"),
    Published("vit_base", (256, 128), fast_reid, "model, without the prefix 'backbone.'", REID),
    Published("vit_base", (256, 128), fast_reid, "model, without the prefix 'backbone.'", REID, 12),
    Published("vit_base", (256, 256), fast_reid, "model, without the prefix 'backbone.'", REID, 12),
    Published("deit_small", (224, 224), oml, "state_dict, without the prefix 'model.model.'"),
    Published("deit_small", (224, 224), oml_extractor, "without the prefix 'extractor.model.'"),
    Published("deit_small", (256, 128), transreid, "without the prefix 'base.'", REID),
    Published("deit_small", (384, 128), transreid, "without the prefix 'base.'", REID, 12),
    Published("clip_vit_base", (224, 224), openai_clip, "without the prefix 'visual.'"),
    Published("clip_vit_base", (256, 128), clip_reid, "without the prefix 'image_encoder.'", REID),
    Published("clip_vit_base", (256, 256), clip_reid, "without the prefix 'image_encoder.'", REID, 12),
    Published("swin_tiny", (224, 224), solider, "teacher, without the prefix 'backbone.'", overrides=SWIN),
    Published("swin_tiny", (224, 224), solider_reid, "without the prefix 'base.'", REID, overrides=SWIN),
    Published("swin_tiny", (224, 224), megadescriptor, "", overrides=SWIN),
    Published("vit_base", (224, 224), timm_training, "(state_dict_ema; not the one of state_dict)"),
]


@pytest.mark.parametrize("published", PUBLISHED, ids=str)
def test_the_network_of_a_publishers_file_is_taken(small, tmp_path, published):
    small(published.backbone, **(published.overrides or VIT))
    torch.manual_seed(0)
    donor, _ = build_backbone(published.backbone, published.size, stride=published.stride)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(published.write(donor.state_dict()), tmp_path / "published.bin")
    found = build_pretrained(published.backbone, str(tmp_path / "published.bin"))
    assert published.told in str(found.report) and found.report.interpolated == ()
    assert (found.image_size, found.model.options.stride) == (published.size, published.stride)
    mean = published.mean or tuple(donor.pretrained_cfg["mean"])
    assert found.mean == mean
    images = torch.randn(1, 3, *published.size)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).sa.token, donor.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("published", [row for row in PUBLISHED if row.backbone != "swin_tiny"], ids=str)
def test_its_positions_are_interpolated_to_the_grid_of_another_size(small, tmp_path, published):
    """As an affine function of the place, which stays one between the borders, whatever the grids are."""
    small(published.backbone, **(published.overrides or VIT))
    donor, _ = build_backbone(published.backbone, published.size, stride=published.stride)
    prefix = donor.pos_embed.shape[1] - donor.patch_embed.num_patches
    rows, columns = donor.patch_embed.grid_size
    down, right = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    with torch.no_grad():
        donor.pos_embed[:, prefix:] = (down - 2 * right).flatten()[:, None]
    torch.save(published.write(donor.state_dict()), tmp_path / "published.bin")
    patch = donor.patch_embed.patch_size[0]
    size = (12 * patch, 8 * patch)
    network, report = build_backbone(published.backbone, size, weights=str(tmp_path / "published.bin"))
    assert f"{rows}x{columns} to 12x8" in str(report) or f"{rows * columns} patches to 12x8" in str(report)
    found = network.pos_embed[0, prefix:, 0].unflatten(0, (12, 8))[2:-2, 2:-2]
    torch.testing.assert_close(found.diff(dim=0), torch.full((7, 4), 1 / 12), rtol=0, atol=0.01)
    torch.testing.assert_close(found.diff(dim=1), torch.full((8, 3), -2 / 8), rtol=0, atol=0.02)


def test_a_network_trained_on_the_mean_of_its_patches_is_told(small, tmp_path):
    """As MAE's of its fine-tuning are: the last norm comes after the mean."""
    small("vit_base", **VIT)
    state = build_backbone("vit_base", (224, 224))[0].state_dict()
    tuned = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: state[name] for name in state}
    torch.save({"model": {**tuned, "head.weight": torch.ones(1000, 96)}}, tmp_path / "mae_finetuned.pth")
    report = build_pretrained("vit_base", str(tmp_path / "mae_finetuned.pth")).report
    assert "trained on the mean of its patches, but its class token is taken" in str(report)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_of_torch_is_told_with_how_to_convert_it(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "ViT-B-16.pt")
    with pytest.raises(ValueError, match=r"TorchScript archive.*torch.jit.load\(FILE, map_location='cpu'\)"):
        read_state(tmp_path / "ViT-B-16.pt", ["weight"])
    with pytest.raises(ValueError, match="weights '.*ViT-B-16.pt': .*TorchScript"):
        build_backbone("vit_toy", (16, 16), weights=str(tmp_path / "ViT-B-16.pt"))

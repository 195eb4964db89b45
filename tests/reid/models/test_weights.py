import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from reid.models import backbones
from reid.models.backbones import build_backbone
from reid.models.specs import BACKBONES


def tiny_file(path, **kwargs):
    """A weights file of the vit_toy architecture at 64 x 64 pixels: 64 patches."""
    torch.manual_seed(1)
    options = {"img_size": 64, **BACKBONES["vit_toy"].overrides, **kwargs}
    model = timm.create_model("vit_tiny_patch16_224", **options)
    save_file(model.state_dict(), path)
    return model


def test_pretrained_tensors_are_loaded_unchanged_and_reported(tmp_path):
    donor = tiny_file(tmp_path / "w.safetensors")
    model, report = build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "w.safetensors"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name
    assert set(report.loaded) == set(model.state_dict())
    assert set(report.ignored) == {"head.bias", "head.weight"}
    assert report.interpolated == ()


def test_position_embedding_is_interpolated_to_a_grid_that_is_not_square(tmp_path):
    donor = tiny_file(tmp_path / "w.safetensors")
    model, report = build_backbone("vit_toy", (64, 32), weights=str(tmp_path / "w.safetensors"))
    assert model.pos_embed.shape == (1, 1 + 8 * 4, 96)
    assert torch.equal(model.pos_embed[:, 0], donor.pos_embed[:, 0])
    grid = donor.pos_embed[:, 1:].reshape(1, 8, 8, 96).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (8, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.pos_embed[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 32, 96))
    assert "64 patches to 8x4" in str(report)


def test_a_square_file_is_interpolated_also_to_a_grid_of_as_many_patches(tmp_path):
    """64 x 64 and 128 x 32 pixels are both 64 patches."""
    donor = tiny_file(tmp_path / "w.safetensors")
    model, report = build_backbone("vit_toy", (128, 32), weights=str(tmp_path / "w.safetensors"))
    grid = donor.pos_embed[:, 1:].reshape(1, 8, 8, 96).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (16, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.pos_embed[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 64, 96))
    assert "64 patches to 16x4" in str(report)


def test_a_file_that_cannot_be_square_is_of_the_grid_it_fits(tmp_path):
    donor = tiny_file(tmp_path / "w.safetensors", img_size=(64, 32))
    model, report = build_backbone("vit_toy", (64, 32), weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.pos_embed, donor.pos_embed)
    assert report.interpolated == ()


def test_a_distilled_file_loads_without_its_distillation_token(tmp_path):
    model = tiny_file(tmp_path / "plain.safetensors")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["dist_token"] = torch.full((1, 1, 96), 7.0)
    position = state["pos_embed"]
    state["pos_embed"] = torch.cat([position[:, :1], torch.full((1, 1, 96), 9.0), position[:, 1:]], dim=1)
    save_file(state, tmp_path / "distilled.safetensors")
    loaded, _ = build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "distilled.safetensors"))
    torch.testing.assert_close(loaded.pos_embed, model.pos_embed)


def test_a_run_of_ours_is_a_weights_file_with_its_own_grid(tmp_path):
    donor, _ = build_backbone("vit_toy", (64, 32))
    state = {f"backbone.{name}": value for name, value in donor.state_dict().items()} | {
        "log_variances": torch.zeros(3)
    }
    save_file(state, tmp_path / "m.safetensors", {"preprocessing": json.dumps({"image_size": [64, 32]})})
    same, _ = build_backbone("vit_toy", (64, 32), weights=str(tmp_path / "m.safetensors"))
    assert torch.equal(same.pos_embed, donor.pos_embed)
    turned, report = build_backbone("vit_toy", (32, 64), weights=str(tmp_path / "m.safetensors"))
    assert "8x4 to 4x8" in str(report)
    assert not torch.equal(turned.pos_embed, donor.pos_embed)


def test_pth_and_wrapped_state_dicts_load(tmp_path):
    donor = tiny_file(tmp_path / "w.safetensors")
    torch.save({"model": donor.state_dict()}, tmp_path / "w.pth")
    model, _ = build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "w.pth"))
    assert torch.equal(model.blocks[2].mlp.fc1.weight, donor.blocks[2].mlp.fc1.weight)


def test_weights_that_would_train_from_noise_are_refused(tmp_path):
    tiny_file(tmp_path / "deep.safetensors", depth=3)
    with pytest.raises(
        ValueError, match=r"deep.safetensors' do not fit a ViT of width 96, 4 blocks, 3 heads: 12 tensors missing"
    ):
        build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "deep.safetensors"))
    tiny_file(tmp_path / "wide.safetensors", embed_dim=48)
    with pytest.raises(ValueError, match=r"of another shape, e\.g\. .* expected"):
        build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "wide.safetensors"))
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="tensors missing"):
        build_backbone("vit_toy", (64, 64), weights=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth", "broken.npz"])
def test_damaged_weights_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
        build_backbone("vit_toy", (16, 16), weights=str(tmp_path / name))


def test_missing_weights_and_an_unreachable_hub_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no such file \(expected 'imagenet', 'none' or a file\)"):
        build_backbone("vit_toy", (16, 16), weights=str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match="'vit_toy' has no ImageNet weights"):
        build_backbone("vit_toy", (16, 16), weights="imagenet")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    real = timm.create_model

    def offline(name, pretrained=False, **kwargs):
        if pretrained:
            raise ConnectionError("Network is unreachable")
        return real(name, pretrained=pretrained, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OSError, match=r"'deit_tiny_patch16_224.fb_in1k' could not be downloaded .*weights as a file"):
        build_backbone("deit_tiny", (32, 32), weights="imagenet")


def test_real_weights_give_timms_own_features(vit_tiny_weights):
    model, report = build_backbone("vit_tiny", (224, 224), weights=str(vit_tiny_weights))
    assert len(report.loaded) == 150
    reference = timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(vit_tiny_weights)).eval()
    images = torch.randn(1, 3, 224, 224)
    expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
    torch.testing.assert_close(model.eval()(images), expected)


def test_timms_own_file_of_every_backbone_loads_at_any_size(backbone, tmp_path):
    """As the hub has it: with its classifier, at its own image size and with its own pooling."""
    spec = backbones.BACKBONES[backbone]
    donor = timm.create_model(spec.timm_name, num_classes=7, **spec.overrides)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    native = tuple(donor.patch_embed.img_size)
    same, report = build_backbone(backbone, native, weights=str(tmp_path / "w.safetensors"))
    theirs = donor.state_dict()
    for name, value in same.state_dict().items():
        other = theirs[name] if name in theirs else theirs[f"fc_{name}"]  # trained on the mean token: EVA-02
        assert torch.equal(value, other), name
    assert report.interpolated == ()
    assert all(name.startswith(("head", "attn_pool", "fc_norm")) for name in report.ignored)
    sides = (6 * spec.patch, 4 * spec.patch) if "swin" not in backbone else (256, 128)
    other, report = build_backbone(backbone, sides, weights=str(tmp_path / "w.safetensors"))
    assert torch.isfinite(other.eval()(torch.randn(1, 3, *sides))).all()
    assert any("pos_embed" in name for name in report.interpolated) == (getattr(other, "pos_embed", None) is not None)


def test_positions_of_cait_are_interpolated_without_a_place_for_the_class_token(tmp_path):
    donor = timm.create_model("cait_xxs24_224", img_size=64, depth=1)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    spec = replace(backbones.BACKBONES["cait_xs24"], architecture="cait_xxs24_224", tag=None, overrides={"depth": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "cait_xs24", spec)
        model, _ = build_backbone("cait_xs24", (64, 32), weights=str(tmp_path / "w.safetensors"))
    grid = donor.pos_embed.reshape(1, 4, 4, 192).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (4, 2), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.pos_embed, expected.permute(0, 2, 3, 1).reshape(1, 8, 192))


def test_a_run_with_overlapping_patches_is_a_weights_file_with_its_own_grid(tmp_path):
    donor, _ = build_backbone("vit_toy", (64, 32), stride=6)
    state = {f"backbone.{name}": value for name, value in donor.state_dict().items()}
    metadata = {"preprocessing": json.dumps({"image_size": [64, 32]}), "config": json.dumps({"model": {"stride": 6}})}
    save_file(state, tmp_path / "m.safetensors", metadata)
    same, report = build_backbone("vit_toy", (64, 32), stride=6, weights=str(tmp_path / "m.safetensors"))
    assert torch.equal(same.pos_embed, donor.pos_embed)
    assert report.interpolated == ()
    plain, report = build_backbone("vit_toy", (64, 32), weights=str(tmp_path / "m.safetensors"))
    assert plain.pos_embed.shape == (1, 1 + 8 * 4, 96)
    assert "10x5 to 8x4" in str(report)


def test_weights_of_another_backbone_are_refused(tmp_path):
    donor = timm.create_model("eva02_tiny_patch14_224", depth=1, num_classes=0)
    save_file(donor.state_dict(), tmp_path / "eva.safetensors")
    for name, title in (
        ("deit_tiny", "a ViT of width 192, 12 blocks"),
        ("swin_tiny", "a Swin transformer of width 768"),
    ):
        with pytest.raises(ValueError, match=rf"eva.safetensors' do not fit {title}.*missing"):
            build_backbone(name, (64, 64), weights=str(tmp_path / "eva.safetensors"))


def test_smaller_windows_of_swin_keep_the_bias_of_near_places(tmp_path):
    """At 256 x 128 the last stage has 8 x 4 tokens: windows of 7 x 4, whose table is that of 7 x 7, resized."""
    donor = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1, 1, 1))
    table = donor.layers[3].blocks[0].attn.relative_position_bias_table
    down, right = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-6.0, 7), indexing="ij")
    with torch.no_grad():
        table.copy_((10 * down + right.abs()).reshape(-1, 1).expand(-1, 24))
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    spec = replace(backbones.BACKBONES["swin_tiny"], overrides={"depths": (1, 1, 1, 1)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "swin_tiny", spec)
        model, report = build_backbone("swin_tiny", (256, 128), weights=str(tmp_path / "w.safetensors"))
    assert report.interpolated == ("layers.3.blocks.0.attn.relative_position_bias_table",)
    resized = model.layers[3].blocks[0].attn.relative_position_bias_table[:, 0].view(13, 7)
    torch.testing.assert_close(resized[6, 3], torch.tensor(0.0), atol=1e-3, rtol=0)  # a token to itself
    torch.testing.assert_close(resized[:, 3], 10 * torch.arange(-6.0, 7), atol=1.5, rtol=0)  # timm's spacing is uneven
    assert (resized[:, :3].flip(1).diff(dim=1) > 0).all() and (resized[:, 4:].diff(dim=1) > 0).all()
    torch.testing.assert_close(resized, resized.flip(1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("keys", "prefix", "told"),
    [
        (("state_dict",), "module.", "state_dict, without the prefix 'module.'"),
        (("teacher",), "backbone.", "teacher, without the prefix 'backbone.'"),
        (("model",), "module.base.", "model, without the prefix 'module.base.'"),
        (("state_dict",), "extractor.model.", "without the prefix 'extractor.model.'"),
        (("checkpoint", "ema"), "encoder.", "checkpoint.ema, without the prefix 'encoder.'"),
        (("state_dict",), "module.base_encoder.", "without the prefix 'module.base_encoder.'"),
        ((), "", ""),
    ],
)
def test_a_network_is_found_by_its_tensors_whatever_wraps_it(tmp_path, keys, prefix, told):
    donor = build_backbone("vit_toy", (32, 32))[0]
    stored = {f"{prefix}{name}": value for name, value in donor.state_dict().items()}
    stored |= {"head.classifier.weight": torch.zeros(3, 3)}
    for key in reversed(keys):
        stored = {key: stored, "epoch": 3, "student": {"other.weight": torch.zeros(2)}}
    torch.save(stored, tmp_path / "published")  # no suffix
    model, report = build_backbone("vit_toy", (32, 32), weights=str(tmp_path / "published"))
    assert told in str(report)
    for name, value in donor.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_options_that_a_training_script_kept_beside_the_network_do_no_harm(tmp_path):
    donor = build_backbone("vit_toy", (32, 32))[0]
    args = argparse.Namespace(lr=0.1, model="vit", sizes=[1, 2], resume=None, output=Path("out"))
    scores = {"best": np.float64(76.7), "epoch": np.int64(3), "better": np.bool_(True), "curve": np.arange(3.0)}
    torch.save({"state_dict": donor.state_dict(), "args": args, "scores": scores}, tmp_path / "last.pth.tar")
    model, _ = build_backbone("vit_toy", (32, 32), weights=str(tmp_path / "last.pth.tar"))
    for name, value in donor.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


class Calls:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_what_is_no_weights_file_is_named(tmp_path, capsys):
    state = build_backbone("vit_toy", (32, 32))[0].state_dict()
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Too many requests</html>")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    torch.save({"state_dict": state, "args": Calls()}, tmp_path / "objects.pth")
    torch.save({**state, "norm.bias": state["norm.bias"] * torch.nan}, tmp_path / "nan.pth")
    for name, message in (
        ("page.pth", "a web page in the place of the file"),
        ("pointer.safetensors", "a pointer of Git LFS.*git lfs pull"),
        (
            "objects.pth",
            r"could run any code; where you trust the file, convert it: .*\[KEY\].* 'state_dict', 'model' or 'teacher'",
        ),
        ("nan.pth", "1 tensors hold NaN or infinite values, e.g. norm.bias"),
    ):
        with pytest.raises(ValueError, match=message):
            build_backbone("vit_toy", (32, 32), weights=str(tmp_path / name))
    assert "code of the file ran" not in capsys.readouterr().out

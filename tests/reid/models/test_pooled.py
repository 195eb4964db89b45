"""Networks that are taken whole, in the files that their publishers write, against what plain timm makes of them."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from reid.models.dcal import embedding
from reid.models.pretrained import build_pretrained
from reid.models.weights import read_weights


def shaken(network):
    """A network whose norms tell channels apart, as trained ones do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
    return network.eval()


def as_torch(state, path):
    torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "prefix", "wrapper", "write"),
    [
        ("test_resnet", "", (), as_torch),
        ("test_resnet", "module.backbone.", ("state_dict",), as_torch),
        ("resnet10t", "extractor.model.", ("state_dict",), as_torch),
        ("test_convnext", "", ("model",), as_torch),
        ("test_efficientnet", "model.", (), save_file),
        ("efficientnet_lite0", "", ("state_dict_ema",), as_torch),
        ("regnety_002", "encoder.", (), save_file),
        ("mobilenetv3_small_050", "", (), save_file),
        ("test_nfnet", "", (), save_file),
    ],
)
def test_a_network_of_convolutions_gives_timms_features(tmp_path, name, prefix, wrapper, write):
    network = shaken(timm.create_model(name, num_classes=7))
    state = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    for key in wrapper:
        state = {key: state, "epoch": 3}
    write(state, tmp_path / "w")
    found = build_pretrained(name, str(tmp_path / "w"), (64, 96))
    config = network.pretrained_cfg
    assert (found.image_size, found.mean, found.std) == ((64, 96), tuple(config["mean"]), tuple(config["std"]))
    assert all(key.rpartition(".")[0] in ("fc", "head.fc", "classifier") for key in found.report.ignored)
    network.reset_classifier(0)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = nn.functional.normalize(network(images))
        torch.testing.assert_close(embedding(found.model(images)), expected)
    assert found.model.embedding_size("concat") == expected.shape[1]
    assert build_pretrained(name, str(tmp_path / "w")).image_size == tuple(config["input_size"][1:])


class MiewId(nn.Module):
    """MiewID's network, by its description: timm's last map, its generalised mean, and a batch norm."""

    def __init__(self, name, *, inside):
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=0, global_pool="")
        width = self.backbone.num_features
        pooling = nn.Module()
        pooling.p = nn.Parameter(torch.full((1,), 2.6))
        if inside:
            self.backbone.global_pool = pooling
        else:
            self.pooling = pooling
        self.inside = inside
        self.bn = nn.BatchNorm1d(width)
        self.final = nn.Linear(width, 10)

    def forward(self, images):
        power = (self.backbone.global_pool if self.inside else self.pooling).p
        maps = self.backbone.forward_features(images)
        return self.bn(
            nn.functional.avg_pool2d(maps.clamp(min=1e-6).pow(power), maps.shape[2:]).pow(1 / power)[..., 0, 0]
        )


@pytest.mark.parametrize(("inside", "prefix"), [(True, ""), (False, ""), (True, "model."), (False, "module.")])
def test_miewid_is_read_with_its_pooling_and_neck(tmp_path, inside, prefix):
    theirs = shaken(MiewId("test_efficientnet", inside=inside))
    save_file({f"{prefix}{key}": value for key, value in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    found = build_pretrained("test_efficientnet", str(tmp_path / "model.safetensors"))
    assert found.image_size == (440, 440)  # of its publisher's card
    assert set(found.report.ignored) <= {"final.weight", "final.bias"}
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).sa.token, theirs(images))


@pytest.mark.slow
def test_miewids_own_network_has_the_width_of_its_embeddings(tmp_path):
    theirs = shaken(MiewId("efficientnetv2_rw_m", inside=True))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    found = build_pretrained("efficientnetv2_rw_m", str(tmp_path / "model.safetensors"))
    assert found.model.embedding_size("concat") == 2152
    np.testing.assert_allclose(found.mean, (0.485, 0.456, 0.406))
    images = torch.randn(1, 3, 440, 440)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).sa.token, theirs(images), rtol=1e-4, atol=1e-4)


FACEBOOK = {
    "stem.0": "downsample_layers.0.0",
    "stem.1": "downsample_layers.0.1",
    "conv_dw": "dwconv",
    "mlp.fc1": "pwconv1",
    "mlp.fc2": "pwconv2",
    "head.norm": "norm",
    "head.fc": "head",
}


def test_convnext_is_read_as_its_authors_publish_it(tmp_path):
    network = shaken(timm.create_model("test_convnext", num_classes=5))
    stored = {}
    for key, value in network.state_dict().items():
        for ours, theirs in FACEBOOK.items():
            key = key.replace(ours, theirs)
        if key.startswith("stages.") and ".downsample." in key:
            stage, _, part = key.removeprefix("stages.").partition(".downsample.")
            key = f"downsample_layers.{stage}.{part}"
        if key.startswith("stages."):
            stage, block, rest = key.removeprefix("stages.").replace(".blocks.", ".", 1).split(".", 2)
            key = f"stages.{stage}.{block}.{rest}"
        stored[key] = value
    torch.save({"model": stored}, tmp_path / "convnext.pth")
    found = build_pretrained("test_convnext", str(tmp_path / "convnext.pth"), (64, 64))
    network.reset_classifier(0)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).sa.token, network(images))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 7])
def test_swin_of_the_second_version_is_read_for_another_size(tmp_path, classes):
    name = "swinv2_tiny_window8_256"
    network = shaken(timm.create_model(name, num_classes=classes))
    save_file(network.state_dict(), tmp_path / "w")
    found = build_pretrained(name, str(tmp_path / "w"))
    assert found.image_size == (256, 256)
    network.reset_classifier(0)
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images).sa.token, network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("efficientnetv2_rw_x", None, "unknown backbone 'efficientnetv2_rw_x'; near ones: efficientnetv2_rw_t"),
        ("test_resnet.nobody", None, "Invalid pretrained tag (nobody) for test_resnet. Known tags: r160_in1k"),
        ("levit_128", (100, 60), "backbone 'levit_128', made for 224x224, takes no images of 100x60 pixels"),
        ("test_resnet", (64, 64), "do not fit timm's test_resnet: "),
    ],
)
def test_what_is_not_there_is_told_in_one_line(tmp_path, name, size, message):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError) as error:
        build_pretrained(name, str(tmp_path / "other.safetensors"), size)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_old_times_has_no_count_of_batches(tmp_path):
    network = timm.create_model("test_resnet", num_classes=0)
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "w.pth")
    found = build_pretrained("test_resnet", str(tmp_path / "w.pth"), (64, 64))
    assert found.report.ignored == ()
    assert read_weights(network, str(tmp_path / "w.pth"), "test_resnet").state.keys() == state.keys()

"""A network that no run trained, at every door of the service."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from reid.inference.pretrained import Pretrained
from reid.models.specs import BACKBONES
from service import embed, enrol, manage, serve
from service.gallery.worker import require_attention
from service.opening import open_gallery
from service.records import ModelMismatch, NotServed
from service.settings import Settings


@pytest.fixture
def network(tmp_path):
    """A function that writes a file of vit_toy, another one for each number, and gives the options that name it."""

    def write(number):
        torch.manual_seed(number)
        model = timm.create_model("vit_tiny_patch16_224", img_size=32, **BACKBONES["vit_toy"].overrides)
        file = tmp_path / f"{number}.safetensors"
        save_file(model.state_dict(), file)
        return ["--backbone", "vit_toy", "--weights", str(file), "--device", "cpu"]

    return write


def test_a_gallery_belongs_to_the_network_by_the_content_of_its_weights(network, picture, tmp_path, capsys):
    photos, gallery = tmp_path / "photos", ["--gallery", str(tmp_path / "gallery")]
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.png").write_bytes(picture(number))
    options = network(0)
    assert enrol.main([*options, *gallery, str(photos)]) == 0
    renamed = tmp_path / "renamed.bin"
    renamed.write_bytes((tmp_path / "0.safetensors").read_bytes())
    assert enrol.main(["--backbone", "vit_toy", "--weights", str(renamed), *gallery, str(photos)]) == 0
    assert "0 enrolled, 3 there before" in capsys.readouterr().out
    for other in (network(1), [*options, "--image-size", "64x32"], [*options, "--mean", "0.4"]):
        assert enrol.main([*other, *gallery, str(photos)]) == 1
        assert "the gallery belongs to model" in capsys.readouterr().err
    assert embed.main([*options, "--output", str(tmp_path / "features"), str(photos)]) == 0
    assert enrol.main([*gallery, "--features", str(tmp_path / "features")]) == 0
    assert "0 enrolled, 3 there before" in capsys.readouterr().out
    assert manage.main(["reindex", *gallery, *network(1)]) == 0
    first = Pretrained(backbone="vit_toy", weights=str(tmp_path / "0.safetensors"))
    with open_gallery(tmp_path / "gallery", first, "cpu") as opened, pytest.raises(ModelMismatch):
        opened.worker.require_model()


def test_photos_are_enrolled_and_found_by_a_network_of_convolutions(picture, tmp_path, capsys):
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    options = ["--backbone", "test_efficientnet", "--weights", str(tmp_path / "w.safetensors"), "--image-size", "64x64"]
    (tmp_path / "a.png").write_bytes(picture(1))
    assert (
        enrol.main([*options, "--device", "cpu", "--gallery", str(tmp_path / "gallery"), str(tmp_path / "a.png")]) == 0
    )
    assert "1 enrolled" in capsys.readouterr().out
    source = Pretrained(backbone="test_efficientnet", weights=str(tmp_path / "w.safetensors"), image_size="64x64")
    with open_gallery(tmp_path / "gallery", source, "cpu") as gallery:
        assert next(gallery.store.rows(gallery.model_id)).vector.shape == (256,)
        with pytest.raises(NotServed, match="has no class token, whose attention could be shown"):
            require_attention(gallery.embedder)


def test_a_service_is_told_of_it_by_its_environment(monkeypatch, tmp_path):
    for name, value in {"backbone": "vit_toy", "weights": "w.pth", "image_size": "64x32", "mean": "0.5"}.items():
        monkeypatch.setenv(f"REID_{name.upper()}", value)
    settings = Settings(gallery=tmp_path)
    assert settings.model == Pretrained(backbone="vit_toy", weights="w.pth", image_size=(64, 32), mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "r", "--backbone", "vit_toy"], "--checkpoint with --backbone: a run has a backbone, weights"),
        (["--weights", "w.pth"], "--weights without --backbone NAME, the network that the weights are of"),
        (["--backbone", "vit_toy", "--std", "x"], "--std x: expected one number or three, as 0.485,0.456,0.406"),
    ],
)
def test_options_that_contradict_each_other_are_told(options, message, tmp_path, capsys):
    assert serve.main([*options, "--gallery", str(tmp_path / "gallery")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"reid-serve: error: {message}") and shown.count("\n") == 1


def test_no_gallery_for_a_network_is_told(capsys, monkeypatch):
    monkeypatch.delenv("REID_GALLERY", raising=False)
    assert serve.main(["--backbone", "vit_toy", "--weights", "imagenet"]) == 2
    assert "--backbone without --gallery (or REID_GALLERY)" in capsys.readouterr().err

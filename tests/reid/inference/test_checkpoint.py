import errno
import json
import os
import resource

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reid.config import Config, ReidConfig, load_config
from reid.data.preprocessing import Preprocessing
from reid.files import model_file, write_text, write_whole
from reid.inference.checkpoint import Checkpoint, load_model, read_checkpoint, save_model
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from reid.models.specs import BACKBONES


def checkpoint(method="dcal"):
    config = load_config("toy", None, {"method": method, "image_size": "32x16", "ratio": 0.4})
    preprocessing = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Checkpoint(config, preprocessing, ("ann", "bob", "cy"), {"dataset": "toy", "version": "v1"}, 7)


def model(method="dcal"):
    torch.manual_seed(0)
    return build_dcal("vit_toy", (32, 16), 3, DcalOptions(method=method, ratio=0.4))[0]


@pytest.mark.parametrize("method", ["dcal", "baseline", "glca", "pwca"])
def test_round_trip(tmp_path, method):
    saved, described = model(method), checkpoint(method)
    saved(torch.randn(4, 3, 32, 16), torch.tensor([1, 0, 3, 2]))  # moves the running statistics of the necks
    save_model(tmp_path / "model.safetensors", saved, described)
    loaded, found = load_model(tmp_path, ReidConfig)
    assert found == described
    assert not loaded.training
    assert (loaded.method, loaded.options.ratio) == (method, 0.4)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_timm_loads_the_backbone_back(tmp_path):
    saved = model()
    save_model(tmp_path / "m.safetensors", saved, checkpoint())
    state = {
        k.removeprefix("backbone."): v for k, v in load_file(tmp_path / "m.safetensors").items() if "backbone." in k
    }
    vit = timm.create_model("vit_tiny_patch16_224", img_size=(32, 16), num_classes=0, **BACKBONES["vit_toy"].overrides)
    vit.load_state_dict(state)
    images = torch.randn(2, 3, 32, 16)
    torch.testing.assert_close(vit.eval()(images), saved.eval()(images).sa.token)


def test_metadata_is_readable_without_us(tmp_path):
    save_model(tmp_path / "m.safetensors", model(), checkpoint())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == ["ann", "bob", "cy"]
    assert json.loads(metadata["preprocessing"])["image_size"] == [32, 16]
    assert json.loads(metadata["config"])["model"]["method"] == "dcal"
    assert json.loads(metadata["protocol"])["version"] == "v1"


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors in this folder"):
        model_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent.safetensors: no such file"):
        load_model(tmp_path / "absent.safetensors", ReidConfig)
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match=r"cut.safetensors: cannot be read as safetensors"):
        load_model(tmp_path / "cut.safetensors", ReidConfig)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"no format in its metadata, expected '1': not a file of reid-train"):
        load_model(tmp_path / "foreign.safetensors", ReidConfig)
    save_file({"a": torch.zeros(1)}, tmp_path / "next.safetensors", {"format": "2"})
    with pytest.raises(ValueError, match=r"format '2' in its metadata, expected '1'"):
        load_model(tmp_path / "next.safetensors", ReidConfig)


def test_files_without_task_and_sides_still_load(tmp_path):
    metadata = described(tmp_path)
    del metadata["task"]
    assert load_model(saved_with(tmp_path, metadata), ReidConfig)[1] == checkpoint()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("config", None, "damaged metadata (config is missing)"),
        ("config", "{", "damaged metadata (config='{': Invalid JSON"),
        ("config", "[]", "damaged metadata (config=[]: Input should be a valid dictionary)"),
        ("config", "null", "damaged metadata (config=None: Input should be a valid dictionary)"),
        ("config", '{"data": null}', "damaged metadata (config.data=None: Input should be a valid dictionary)"),
        ("config", "{}", "data.dataset is missing (in its config)"),
        ("config", '{"data": {"dataset": "toy", "flip": 2}}', "data.flip=2: Input should be less than or equal to 1"),
        ("config", '{"data": {"dataset": "toy", "flop": 2}}', "unknown option 'data.flop'; near ones: data.flip"),
        (
            "config",
            '{"data": {"dataset": "toy"}, "model": {"backbone": "vit_smal"}}',
            "its model cannot be built (unknown backbone 'vit_smal'; near ones: vit_small",
        ),
        ("preprocessing", None, "damaged metadata (preprocessing is missing)"),
        ("preprocessing", "null", "damaged metadata (preprocessing=None: "),
        ("preprocessing", "{}", "preprocessing.image_size is missing; preprocessing.mean is missing; "),
        ("preprocessing", '{"mean": ["x", 0, 0]}', "preprocessing.mean.0='x': Input should be a valid number"),
        ("preprocessing", '{"mean": [0, 0]}', "preprocessing.mean.2 is missing"),
        ("preprocessing", '{"std": [NaN, 1, 1]}', "preprocessing.std.0=nan: Input should be a finite number"),
        (
            "preprocessing",
            '{"image_size": [-32, 16], "mean": [0, 0, 0], "std": [1, 1, 1]}',
            "its model cannot be built (",
        ),
        ("classes", "3", "damaged metadata (classes=3: Input should be a valid tuple)"),
        ("classes", "[1, 2, 3]", "classes.0=1: Input should be a valid string"),
        ("protocol", "[]", "damaged metadata (protocol=[]: Input should be a valid dictionary)"),
        ("epoch", "x", "damaged metadata (epoch='x': Input should be a valid integer"),
        ("sides", '{"cameras": 3}', "damaged metadata (sides.cameras=3: Input should be a valid tuple)"),
    ],
)
def test_damaged_metadata_is_one_line_that_names_the_file(tmp_path, name, value, message):
    metadata = described(tmp_path)
    metadata.pop(name, None)
    file = saved_with(tmp_path, metadata if value is None else {**metadata, name: value})
    with pytest.raises(ValueError, match=r"^checkpoint .*m.safetensors: ") as error:
        load_model(file, ReidConfig)
    assert type(error.value) is ValueError  # no arguments were wrong
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def described(tmp_path):
    """The metadata of a good file."""
    save_model(tmp_path / "m.safetensors", model(), checkpoint())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        return file.metadata()


def saved_with(tmp_path, metadata):
    """The good file with other metadata."""
    save_file(load_file(tmp_path / "m.safetensors"), tmp_path / "m.safetensors", metadata)
    return tmp_path / "m.safetensors"


def test_a_checkpoint_of_another_method_does_not_fit_its_config(tmp_path):
    save_model(tmp_path / "m.safetensors", model("baseline"), checkpoint("dcal"))
    with pytest.raises(ValueError, match=r"tensors do not fit its own config .*glca.block"):
        load_model(tmp_path / "m.safetensors", ReidConfig)


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first")

    def full_disk(temporary):
        temporary.write_text("half of the sec")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        OSError, match=r"a.txt: could not be written \(No space left on device\); what was saved before is kept"
    ):
        write_whole(path, full_disk)
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "metrics")
    assert os.read(reader, 100) == b"metrics"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk_while_saving_a_model_is_one_clear_error(tmp_path):
    """The kernel refuses files above 64 KiB: safetensors' own error becomes ours, and nothing is left behind."""
    save_model(tmp_path / "model.safetensors", model(), checkpoint())
    before = (tmp_path / "model.safetensors").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OSError, match=r"model.safetensors: could not be written \(.*what was saved before is kept"):
            save_model(tmp_path / "model.safetensors", model(), checkpoint())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_came_in_the_place_of_a_model_is_named(save_run, tmp_path):
    file = tmp_path / "model.safetensors"
    for content, message in (
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS in the place of the file",
        ),
        (b"\n<!DOCTYPE html><html>404", "a web page in the place of the file; the download went wrong"),
        (b"", "the file is empty"),
    ):
        file.write_bytes(content)
        for given in (file, tmp_path):
            for read in (load_model, read_checkpoint):
                with pytest.raises(ValueError, match=f"^checkpoint .*model.safetensors: {message}"):
                    read(given, Config)


def test_weights_that_are_no_numbers_are_refused(save_run, tmp_path):
    run = save_run(tmp_path / "run", "reid")
    model, checkpoint = load_model(run, ReidConfig)
    with torch.no_grad():
        model.backbone.norm.bias[3] = torch.inf
    save_model(run / "model.safetensors", model, checkpoint)
    with pytest.raises(ValueError, match="1 tensors hold NaN or infinite values, e.g. backbone.norm.bias: "):
        load_model(run, ReidConfig)

"""reid-embed: features by one process or several, killed and started again, and always the same."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from reid.inference.embedder import Embedder
from service.bulk import embedding
from service.bulk.embedding import Share, embed
from service.bulk.shards import FeatureFolder
from service.embed import main
from tests.service.starting import Command
from tests.waiting import DEADLINE, wait_until

PHOTOS = 23
SHARD = 4


@pytest.fixture
def folder(tmp_path, picture):
    """A folder of 23 images, one of which is cut short, one no image and one a copy, with names to stumble over."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(PHOTOS - 3):
        (folder / f"{number:02}.png").write_bytes(picture(number))
    (folder / 'a "quoted"\nname.png').write_bytes(picture(0))
    (folder / "below" / "cut.png").write_bytes(picture(7)[:-300])
    (folder / "below" / "none.png").write_bytes(b"none")
    return folder


@pytest.fixture
def run(checkpoint, tmp_path):
    """A function that runs the command, with the features in a folder of a name."""

    def start(*arguments, output="features"):
        options = ["--checkpoint", checkpoint, "--output", tmp_path / output, "--device", "cpu", "--shard-size", SHARD]
        return main([*map(str, options), *map(str, arguments)])

    return start


@pytest.fixture
def process(checkpoint, tmp_path):
    """A function that starts the command as one of several processes; what it started ends with the test."""
    started = []

    def start(*arguments, rank=0, world=1, output="features", prefix=(sys.executable, "-m")):
        options = ["--checkpoint", checkpoint, "--output", tmp_path / output, "--device", "cpu", "--shard-size", SHARD]
        places = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        environment = {**os.environ, **{name: str(value) for name, value in places.items()}, "OMP_NUM_THREADS": "1"}
        command = [*prefix, "service.embed", *map(str, options), *map(str, arguments)]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def content(folder):
    """Names and bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_features_are_those_of_the_embedder(folder, run, checkpoint, tmp_path, capsys):
    assert run(folder) == 0
    shown = capsys.readouterr()
    assert f"{PHOTOS - 2} photos have features in {tmp_path}/features, 2 cannot be used" in shown.out
    assert "below/cut.png: the image is damaged or cut short" in shown.err
    assert "below/none.png: the file is no JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC, AVIF or PPM image" in shown.err
    features = FeatureFolder.open(tmp_path / "features")
    embedder, _ = Embedder.from_checkpoint(checkpoint)
    failed = []
    for number in range(len(features)):
        shard, photos = features.read(number), features.photos(number)
        expected = embedder.embed([photos[line].path for line in shard.lines])
        np.testing.assert_allclose(shard.features, expected, atol=1e-6)
        failed += [photos[line].name for line in shard.failures]
        assert sorted([*shard.lines, *shard.failures]) == list(range(len(photos)))
    assert failed == ["below/cut.png", "below/none.png"]
    manifest = json.loads((tmp_path / "features" / "manifest.json").read_text())
    assert (manifest["photos"], manifest["sources"]) == (PHOTOS, [f"folder {folder}"])
    assert manifest["embedding"]["preprocessing"]["image_size"] == [32, 16]


def test_what_is_there_is_not_made_again(folder, run, tmp_path, monkeypatch, capsys):
    assert run(folder) == 0
    before = content(tmp_path / "features")
    (folder / "00.png").unlink()
    (folder / "more.png").write_bytes(b"")  # the list stays as it was made
    capsys.readouterr()

    def fail(*_):
        raise AssertionError("the model ran")

    with monkeypatch.context() as patched:
        patched.setattr(embedding, "_embed_shard", fail)
        assert run(folder) == 0
    shown = capsys.readouterr()
    assert f"{PHOTOS - 2} photos have features" in shown.out
    assert "below/cut.png: the image is damaged" in shown.err  # reported again
    assert content(tmp_path / "features") == before


def test_a_damaged_shard_is_made_anew(folder, run, tmp_path, capsys):
    assert run(folder) == 0
    before = content(tmp_path / "features")
    path = tmp_path / "features" / "00000002.safetensors"
    path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    (tmp_path / "features" / "00000003.safetensors").unlink()
    assert run(folder) == 0
    assert "00000002.safetensors: damaged" in capsys.readouterr().err
    assert content(tmp_path / "features") == before


def test_retry_embeds_what_can_be_used_by_now(folder, run, picture, tmp_path, capsys):
    assert run(folder) == 0
    (folder / "below" / "cut.png").write_bytes(picture(7))
    assert run(folder) == 0
    assert f"{PHOTOS - 2} photos have features" in capsys.readouterr().out
    assert run(folder, "--retry") == 0
    shown = capsys.readouterr()
    assert f"{PHOTOS - 1} photos have features" in shown.out
    assert "cut.png" not in shown.err


def test_another_model_or_source_is_refused_in_one_line(folder, run, checkpoint, tmp_path, capsys):
    assert run(folder) == 0
    capsys.readouterr()
    assert run(folder / "below") == 1
    told = f"reid-embed: error: {tmp_path}/features: holds features of folder {folder}, not of folder {folder}/below; "
    assert capsys.readouterr().err == told + "give another --output\n"
    other = tmp_path / "other"
    other.mkdir()
    data = (checkpoint / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    options = ["--output", tmp_path / "features", "--device", "cpu", folder]
    assert main(["--checkpoint", str(other), *map(str, options)]) == 1
    assert "features: holds features of model " in capsys.readouterr().err


def test_cameras_by_device_are_for_the_enrolment(folder, run, capsys):
    assert run(folder, "--camera-from", "device") == 2
    assert "--camera-from device is for reid-enrol" in capsys.readouterr().err


def test_cameras_by_folder_are_not_those_of_a_dataset(folder, run, capsys):
    assert run("--dataset", "folder", "--data-root", folder, "--camera-from", "folder") == 2
    assert "--camera-from folder is for folders given as SOURCE" in capsys.readouterr().err


def test_a_table_that_changed_is_another_source(folder, run, capsys):
    table = folder / "images.csv"
    table.write_text("path,label\n00.png,ada\n")
    assert run(table) == 0
    table.write_text("path,label\n00.png,bob\n")
    assert run(table) == 1
    assert "holds features of table " in capsys.readouterr().err


def test_an_empty_folder(tmp_path, run, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 1
    assert capsys.readouterr().err.endswith(f"reid-embed: error: {tmp_path}/empty: no image in it\n")
    assert not (tmp_path / "features" / "manifest.json").exists()


def test_a_disk_that_is_gone_stops_the_run_and_makes_no_shard(folder, run, tmp_path, capsys):
    table = folder / "images.csv"
    table.write_text("path\n" + "".join(f"{number:02}.png\n" for number in range(8)))
    for number in range(4, 8):
        (folder / f"{number:02}.png").unlink()
    assert run(table) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    first = f"{folder}/04.png: No such file or directory"
    assert error == f"reid-embed: error: none of the 4 photos of shard 1 can be read; the first is {first}"
    made = [name for name in content(tmp_path / "features") if name.endswith(".safetensors")]
    assert made == ["00000000.safetensors"]


def test_an_embedding_that_is_not_finite_is_a_failure(folder, run, tmp_path, monkeypatch, capsys):
    embed_prepared = Embedder.embed_prepared

    def broken(self, images):
        rows = embed_prepared(self, images)
        rows[1:2] = np.nan
        return rows

    monkeypatch.setattr(Embedder, "embed_prepared", broken)
    assert run(folder) == 0
    assert "01.png: the model's embedding of this image is not finite" in capsys.readouterr().err
    shard = FeatureFolder.open(tmp_path / "features").read(0)
    assert list(shard.lines) == [0, 2, 3]
    assert list(shard.failures) == [1]
    assert len(shard.features) == len(shard.sha256) == 3


def test_shares_are_disjoint_and_whole_for_any_number_of_processes(folder, run, checkpoint, tmp_path):
    assert run(folder, output="one") == 0
    embedder, _ = Embedder.from_checkpoint(checkpoint)
    made = FeatureFolder.open(tmp_path / "one")
    (tmp_path / "three").mkdir()
    for name, data in content(tmp_path / "one").items():
        if not name.endswith(".safetensors"):
            (tmp_path / "three" / name).write_bytes(data)
    features = FeatureFolder.open(tmp_path / "three")
    counts = [embed(embedder, features, Share(rank, 3))[0] for rank in (2, 0, 1)]
    assert sum(counts) == PHOTOS - 2
    assert content(tmp_path / "three") == content(tmp_path / "one")
    assert len(made) == 6


@pytest.mark.slow
def test_two_processes_make_what_one_makes(folder, run, checkpoint, tmp_path):
    """The second process is there first, and waits for the list of the first."""
    options = ["--checkpoint", checkpoint, "--output", tmp_path / "features", "--device", "cpu", "--shard-size", SHARD]
    started = []
    try:
        for rank in (1, 0):
            places = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
            environment = {**os.environ, **{name: str(value) for name, value in places.items()}}
            started.append(Command("service.embed", [str(word) for word in (*options, folder)], environment))
        told = [one.communicate(DEADLINE)[1] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0, 0], told
    assert "rank 1 of 2: " in told[0] and "rank 0 of 2: " in told[1]
    assert run(folder, output="alone") == 0
    assert content(tmp_path / "features") == content(tmp_path / "alone")


@pytest.mark.slow
def test_torchrun(folder, run, process, tmp_path):
    prefix = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m")
    started = process(folder, prefix=prefix)
    out, err = started.communicate(timeout=300)
    assert started.returncode == 0, err
    assert sorted(line[:11] for line in out.splitlines()) == [f"rank {rank} of 3" for rank in range(3)]
    assert run(folder, output="alone") == 0
    assert content(tmp_path / "features") == content(tmp_path / "alone")


@pytest.mark.slow
def test_killed_at_any_moment_and_finished_by_another_number(folder, run, process, tmp_path):
    randomly = random.Random(0)
    for round_, world in enumerate((1, 3, 2)):
        started = [process(folder, rank=rank, world=world) for rank in range(world)]
        wait_until(lambda least=round_ + 1: len(list((tmp_path / "features").glob("*.safetensors"))) >= least)
        time.sleep(0.01 * randomly.random())  # only chooses the moment
        for one in started:
            one.kill()
            one.wait()
    assert run(folder) == 0
    assert run(folder, output="alone") == 0
    there, expected = content(tmp_path / "features"), content(tmp_path / "alone")
    assert {name: data for name, data in there.items() if not name.startswith(".")} == expected


@pytest.mark.parametrize(
    "given", [{"RANK": "x"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "0"}]
)
def test_a_rank_that_is_none(monkeypatch, given, folder, run, capsys):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run(folder) == 1
    assert "in the environment: expected a rank from 0 to below WORLD_SIZE" in capsys.readouterr().err


def test_more_processes_than_cards_share_them(monkeypatch, folder, run):
    """No card is here, so that it ends where the model would be loaded, which is told the card."""
    asked = []
    monkeypatch.setattr(embedding, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)

    def load(checkpoint, device, runtime):
        asked.append(device)
        raise ValueError("enough")

    monkeypatch.setattr(embedding, "load_embedder", load)
    for name, value in {"RANK": 7, "WORLD_SIZE": 8, "LOCAL_RANK": 3, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert run(folder) == 1
    assert asked == ["cuda:1", "cuda:1"]

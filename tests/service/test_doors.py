"""Every format at every door: whoever takes pictures takes the same ones, and calls the others by the same names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from fgvc import datasets as fgvc_datasets
from fgvc import predict as fgvc_predict
from reid.data import folders
from reid.data.check import check
from reid.data.datasets import load_dataset
from reid.data.images import read_image
from reid.data.opening import drop_unreadable
from reid.inference.embedder import Embedder
from service import embed, enrol
from service.api.app import create_app
from service.bulk.shards import FeatureFolder
from service.classification import Classification
from service.fields import Filter
from service.opening import load_classifier, open_gallery
from service.settings import Settings
from tests import formats

Taken = tuple[set[str], str]  # the names of the files that were taken, and what was said of the others
Door = Callable[[Path], Taken]


@pytest.fixture
def files(tmp_path):
    return formats.write_all(tmp_path / "files")


@pytest.fixture
def doors(checkpoint, classifier, tmp_path, caplog, capsys, monkeypatch) -> dict[str, Door]:
    """By name, what takes the files of a folder."""
    caplog.set_level("INFO", "reid")
    monkeypatch.setattr(folders, "KINDS_TOLD", len(formats.REFUSED))  # of more, the rarest are only counted

    def said() -> str:
        return caplog.text + "".join(capsys.readouterr())

    def one_by_one(take: Callable[[Path], object]) -> Door:
        def door(folder: Path) -> Taken:
            taken, refusals = set(), []
            for path in sorted(folder.iterdir()):
                try:
                    take(path)
                    taken.add(path.name)
                except ValueError as error:
                    assert str(path) in str(error)
                    refusals.append(str(error))
            return taken, "\n".join(refusals)

        return door

    embedder = Embedder.from_checkpoint(checkpoint)[0]

    def read_dataset(samples, *told: str) -> Taken:
        kept, problems = drop_unreadable(samples)
        if kept:
            assert embedder.embed_samples(kept, workers=0).shape == (len(kept), embedder.size)
        return {sample.path.name for sample in kept}, "\n".join([*problems, *told])

    def reid_folder(folder: Path) -> Taken:
        root = folder.rename(tmp_path / "animal").parent / "root"
        root.mkdir()
        (tmp_path / "animal").rename(root / "animal")
        dataset = load_dataset("folder", root)
        return read_dataset([*dataset.train, *dataset.gallery], *dataset.warnings)

    def table(folder: Path) -> Path:
        names = sorted(path.name for path in folder.iterdir())
        rows = [f"{name},{('train', 'query', 'gallery')[place % 3]},ada" for place, name in enumerate(names)]
        (folder / "images.csv").write_text("\n".join(["path,split,identity", *rows]))
        return folder / "images.csv"

    def reid_csv(folder: Path) -> Taken:
        dataset = load_dataset("csv", table(folder))
        return read_dataset([sample for split in dataset.splits.values() for sample in split])

    def reid_data_check(folder: Path) -> Taken:
        report = check("csv", table(folder), hash_contents=True)
        names = {path.name for path in folder.iterdir()} - {"images.csv"}
        refused = {Path(problem.partition(": ")[0]).name for problem in report.unreadable}
        assert not report.usable
        return names - refused, "\n".join(report.unreadable)

    def fgvc_folder(folder: Path) -> Taken:
        (tmp_path / "birds" / "train").mkdir(parents=True)
        folder.rename(tmp_path / "birds" / "train" / "auk")
        dataset = fgvc_datasets.load_dataset("folder", tmp_path / "birds")
        return read_dataset(dataset.train, *dataset.warnings)

    def reid_enrol(folder: Path) -> Taken:
        place = tmp_path / "gallery"
        assert enrol.main(["--checkpoint", str(checkpoint), "--gallery", str(place), str(folder)]) == 1
        with open_gallery(place, checkpoint, "cpu") as gallery:
            found = gallery.store.page(Filter(), 0, 1000)
        return {item.medium.source for item in found}, said()

    def reid_embed(folder: Path) -> Taken:
        place = tmp_path / "features"
        assert embed.main(["--checkpoint", str(checkpoint), "--output", str(place), str(folder)]) == 0
        features = FeatureFolder.open(place)
        taken = set()
        for number in range(len(features)):
            photos, shard = features.photos(number), features.read(number)
            assert shard is not None
            taken |= {photos[line].name for line in shard.lines}
        return taken, said()

    def predict(folder: Path) -> Taken:
        answers = tmp_path / "answers.json"
        assert fgvc_predict.main(["--checkpoint", str(classifier), "--json", str(answers), str(folder)]) == 1
        found = json.loads(answers.read_text())
        return {Path(one["image"]).name for one in found if "classes" in one}, said()

    def over_http(address: str, field: str, **fields: str) -> Door:
        def door(folder: Path) -> Taken:
            settings = Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", allowed_hosts=["testserver"])
            taken, refusals = set(), []
            with (
                open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery,
                Classification(*load_classifier(classifier, "cpu"), gallery) as classification,
            ):
                client = TestClient(create_app(gallery, None, settings, classification=classification))
                for path in sorted(folder.iterdir()):
                    answer = client.post(address, files=[(field, (path.name, path.read_bytes()))], data=fields)
                    assert answer.status_code < 500
                    results = answer.json().get("results", [{}])
                    if answer.status_code < 300 and answer.status_code != 207 and not results[0].get("error"):
                        taken.add(path.name)
                    else:
                        refusals.append(answer.text)
            return taken, "\n".join(refusals)

        return door

    return {
        "read_image": one_by_one(read_image),
        "Embedder.embed": one_by_one(lambda path: embedder.embed([path])),
        "dataset folder": reid_folder,
        "dataset csv": reid_csv,
        "reid-data check": reid_data_check,
        "fgvc dataset folder": fgvc_folder,
        "reid-enrol": reid_enrol,
        "reid-embed": reid_embed,
        "fgvc-predict": predict,
        "POST /query": over_http("/query", "image"),
        "POST /v1/items": over_http("/v1/items", "images"),
        "POST /v1/classify": over_http("/v1/classify", "image"),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("read_image", "Embedder.embed", "dataset folder", "dataset csv", "reid-data check", "fgvc dataset folder"),
        *("reid-enrol", "reid-embed", "fgvc-predict", "POST /query", "POST /v1/items", "POST /v1/classify"),
    ],
)
def test_every_format_at_every_door(name, doors, files):
    taken, said = doors[name](files)
    assert taken == formats.READ.keys()
    assert [words for _, words in formats.REFUSED.values() if words not in said] == []

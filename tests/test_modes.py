"""Who else on the machine may read what commands write: whoever the umask lets, whichever library wrote the file."""

import os
import stat
from importlib import import_module

import pytest

from service.opening import open_gallery
from service.records import Details, Upload
from tests.conftest import TINY, write_photos
from tests.fgvc.conftest import TINY as TINY_CLASSIFIER
from tests.fgvc.conftest import write_classes
from tests.reid.conftest import save_run

CHANGED = [f"{name}={value}" for name, value in TINY.items()]
CHANGED_CLASSIFIER = [f"{name}={value}" for name, value in TINY_CLASSIFIER.items()]
REID = "--dataset csv --data-root photos"
FGVC = "--dataset folder --data-root kinds"
COMMANDS = {
    "train": ("reid.train", f"{REID} --output out/run --device cpu", CHANGED),
    "evaluate": (
        "reid.evaluate",
        f"--checkpoint reid {REID} --json out/metrics.json --report out/report --save-features out/f.npz --device cpu",
        [],
    ),
    "calibrate": ("reid.evaluate", f"--checkpoint out/reid {REID} --calibrate --device cpu", []),
    "export": ("reid.export", "--checkpoint reid --output out/model.onnx --json out/checked.json", []),
    "split": ("reid.datacheck", "split unsplit.csv --output out/split.csv", []),
    "embed": ("service.embed", "--checkpoint reid --output out/features --device cpu photos", []),
    "gallery-export": ("service.manage", "export --gallery gallery --pictures out/exported", []),
    "classify-train": ("fgvc.train", f"{FGVC} --output out/run --device cpu", CHANGED_CLASSIFIER),
    "classify-evaluate": (
        "fgvc.evaluate",
        f"--checkpoint fgvc {FGVC} --json out/figures.json --report out/report --device cpu",
        [],
    ),
    "classify": ("fgvc.predict", "--checkpoint fgvc kinds/test --json out/answers.json --device cpu", []),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder of photos, models that nobody trained, and a gallery."""
    root = tmp_path_factory.mktemp("given")
    table = write_photos(root / "photos", identities=15, tested=11, photos=3)
    write_classes(root / "kinds")
    for folder in (root / "kinds").glob("*/kind-?"):
        folder.rename(folder.with_name("abc"[int(folder.name[-1])]))
    for task in ("reid", "fgvc"):
        save_run(root / task, task)
    (root / "unsplit.csv").write_text(
        "path,identity\n" + "".join(f"photos/{one.name},{one.name[:2]}\n" for one in table.parent.glob("*.png"))
    )
    with open_gallery(root / "gallery", root / "reid", "cpu") as gallery:
        (photo, *_) = table.parent.glob("*.png")
        gallery.enrol([Upload(photo.name, photo.read_bytes(), Details())])
    return root


def permissions(folder):
    """Those of folders, and of files, below one."""
    found = [*folder.rglob("*")]
    kinds = ([path for path in found if path.is_dir()], [path for path in found if path.is_file()])
    return [{oct(stat.S_IMODE(path.stat().st_mode)) for path in kind} for kind in kinds]


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ("export", "evaluate") else []) for name in COMMANDS],
)
def test_what_a_command_writes_has_the_modes_of_the_umask(given, tmp_path, monkeypatch, command):
    module, line, more = COMMANDS[command]
    if command == "export":
        pytest.importorskip("onnxscript")
    for one in given.iterdir():
        (tmp_path / one.name).symlink_to(one)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        (tmp_path / "out").mkdir()
        if command == "calibrate":  # which writes beside the model
            save_run(tmp_path / "out" / "reid", "reid")
        assert import_module(module).main([*line.split(), *more]) == 0
    finally:
        os.umask(before)
    folders, files = permissions(tmp_path / "out")
    assert folders <= {"0o750"}
    assert files == {"0o640"}

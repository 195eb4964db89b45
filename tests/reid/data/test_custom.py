import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

from reid.data.custom import number_names
from reid.data.datasets import load_dataset
from reid.data.folders import Patterns
from reid.data.samples import ReidDataset, SplitCounts


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / file, "JPEG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    touch(tmp_path, "a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg")
    return tmp_path


def read(root: Path, text: str | bytes) -> ReidDataset:
    (root / "table.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_dataset("csv", root / "table.csv")


def test_csv_rows_become_samples(photos: Path) -> None:
    dataset = read(
        photos,
        "path,split,identity,camera,x,y,w,h,view\n"
        "sub/c.jpg,train,zebra,north,,,,,left\n"
        "a.jpg,query,ant,,1,0,2,3.0,right\n"
        "\n"
        "b.jpg,gallery,ant,east,,,,,\n",
    )
    (train,), (query,), (gallery,) = dataset.train, dataset.query, dataset.gallery
    assert (train.path, train.identity, train.camera, train.box) == (photos / "sub" / "c.jpg", 1, 1, None)
    assert (query.path, query.identity, query.camera, query.box) == (photos / "a.jpg", 0, -1, (1, 0, 2, 3))
    assert (gallery.path, gallery.identity, gallery.camera, gallery.box) == (photos / "b.jpg", 0, 0, None)
    assert [dict(sample.extra) for sample in (train, query, gallery)] == [{"view": v} for v in ("left", "right", "")]
    assert dataset.identity_names == {0: "ant", 1: "zebra"}
    assert dataset.camera_names == {0: "east", 1: "north"}
    assert dataset.root == photos
    assert dataset.protocol == {"table": "table.csv"}


def test_csv_keeps_whole_numbers_and_the_order_of_rows(photos: Path) -> None:
    dataset = read(photos, "path,split,identity,camera\nb.jpg,train,12,7\na.jpg,train,5,-1\n")
    assert [(s.path.name, s.identity, s.camera) for s in dataset.train] == [("b.jpg", 12, 7), ("a.jpg", 5, -1)]
    assert dataset.identity_names == {5: "5", 12: "12"}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["3", "0", "10"], {"0": 0, "3": 3, "10": 10}),
        (["007", "8"], {"007": 7, "8": 8}),
        (["7", "007"], {"007": 0, "7": 1}),
        (["-1", "4"], {"-1": 0, "4": 1}),
        (["b", "a", "10", "b"], {"10": 0, "a": 1, "b": 2}),
        (["1" * 30, "2"], {"1" * 30: 0, "2": 1}),
        (["٣", "4"], {"4": 0, "٣": 1}),
        ([], {}),
    ],
)
def test_number_names(names: list[str], numbers: dict[str, int]) -> None:
    assert number_names(names) == numbers


def test_csv_of_a_folder(photos: Path) -> None:
    read(photos, "path,split,identity\na.jpg,train,1\n")
    assert len(load_dataset("csv", photos).train) == 1
    (photos / "other.csv").write_text("path,split,identity\n")
    with pytest.raises(ValueError, match=r"2 CSV files \(other\.csv, table\.csv\); give the path of one"):
        load_dataset("csv", photos)
    (photos / "images.csv").write_text("path,split,identity\na.jpg,query,1\n")
    assert len(load_dataset("csv", photos).query) == 1


def test_csv_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"csv: no CSV file in {tmp_path}$"):
        load_dataset("csv", tmp_path)
    for folder in ("image_train", "image_query", "image_test"):
        touch(tmp_path, f"{folder}/0002_c002_00030600_0.jpg")
    with pytest.raises(FileNotFoundError, match=r"no CSV file in .*, but what looks like dataset veri776"):
        load_dataset("csv", tmp_path)


def test_csv_may_start_with_a_byte_order_mark(photos: Path) -> None:
    assert len(read(photos, b"\xef\xbb\xbfpath,split,identity\na.jpg,train,1\n").train) == 1


def test_csv_with_quotes_spaces_and_windows_line_ends(photos: Path) -> None:
    touch(photos, "a, b.jpg")
    dataset = read(photos, 'path, split, identity\r\n"a, b.jpg", train , "Old ""Tom"""\r\n')
    assert dataset.train[0].path == photos / "a, b.jpg"
    assert dataset.identity_names == {0: 'Old "Tom"'}


def test_csv_may_cut_several_boxes_from_one_image(photos: Path) -> None:
    dataset = read(photos, "path,split,identity,x,y,w,h\na.jpg,train,1,0,0,2,2\na.jpg,train,2,2,2,2,2\n")
    assert [sample.box for sample in dataset.train] == [(0, 0, 2, 2), (2, 2, 2, 2)]


BOX_HEADER = "path,split,identity,x,y,w,h\na.jpg,train,1,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv row 1: no column 'path' .*; found nothing; --columns path=HEADING names it"),
        ("split,identity\ntrain,1\n", r"row 1: no column 'path' \(nor image_path, .*; found split,identity"),
        ("path,identity\na.jpg,1\n", r"missing column 'split'; found path,identity.*reid-data split table\.csv"),
        ("path,split\na.jpg,train\n", r"missing column 'identity'; found path,split, expected path,split,identity"),
        ("File Name,Who,Set\na.jpg,1,train\n", r"missing column .*; found File Name,Who,Set, expected path"),
        ("path,split,identity,path\n", r"row 1: column 'path' appears twice"),
        ("path,split,identity,x,w\n", r"row 1: found x,w of the box columns, expected x,y,w,h or none"),
        ("path,split,identity\n", r"table\.csv: no rows"),
        (
            "path,split,identity\na.jpg,train,1\nb.jpg,spare,1\n",
            r"row 3, column 'split': found 'spare', expected train,",
        ),
        ("path,Set,identity\na.jpg,spare,1\n", r"row 2, column 'Set': found 'spare'"),
        ("path,split,identity\n,train,1\n", r"row 2, column 'path': empty"),
        ("path,split,identity\na.jpg,train\n", r"row 2: 2 cells, expected 3"),
        ("path,split,identity\na,b.jpg,train,1\n", r"row 2: 4 cells, expected 3"),
        (
            "path,split,identity\na.jpg,train,1\nb.jpg,train,1\na.jpg,train,2\n",
            r"row 4: the same image and split as row 2",
        ),
        ('path,split,identity\n"a.jpg,train,1\n', r"row 2: not readable as CSV"),
        (
            b"path,split,identity\na.jpg,train,J\x81rgen\n",
            r"table\.csv: not text in UTF-8, UTF-16 or cp1252, expected a table; save it",
        ),
        (b"PK\x03\x04[Content_Types].xml", r"table\.csv: an office document, .* of Excel .*: save its table as CSV"),
        (b"path,split\0,identity\n", r"table\.csv: not text in"),
        (f"{BOX_HEADER}0,0,2,\n", r"row 2, column 'h': found '', expected pixels, more than 0"),
        (f"{BOX_HEADER}0,0,0,2\n", r"row 2, column 'w': found '0', expected pixels, more than 0"),
        (f"{BOX_HEADER}-1,0,2,2\n", r"row 2, column 'x': found '-1', expected pixels, 0 or more"),
        (f"{BOX_HEADER}0,top,2,2\n", r"row 2, column 'y': found 'top'"),
        (f"{BOX_HEADER}0,nan,2,2\n", r"row 2, column 'y': found 'nan'"),
        (f"{BOX_HEADER}0,inf,2,2\n", r"row 2, column 'y': found 'inf'"),
    ],
)
def test_csv_faults_are_named(photos: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(photos, text)


TABLES = Path(__file__).parent / "tables"


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A folder of 24 photos and of tables of them as people have them."""
    touch(tmp_path, *(f"p{number:02}.jpg" for number in range(24)))
    for table in TABLES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    return tmp_path


USUAL = {"train": (12, 4, 2), "query": (4, 4, 2), "gallery": (8, 4, 2)}


@pytest.mark.parametrize(
    ("table", "counts", "understood"),
    [
        ("boxes_float", USUAL, "UTF-8 text with commas between cells; width as w, height as h; 12 train, 4 query, 8 g"),
        ("camera_as_float", USUAL, "12 train, 4 query, 8 gallery"),
        ("one_camera", {"train": (12, 4, 1), "query": (4, 4, 1), "gallery": (8, 4, 1)}, "UTF-8 text"),
        ("other_headings", USUAL, "image_path as path, label as identity, cam_id as camera; 12 train"),
        ("queries_without_gallery", USUAL, "12 train"),
        ("query_is_in_gallery", {"train": (12, 4, 0), "query": (4, 4, 0), "gallery": (12, 4, 0)}, "12 gallery"),
        ("semicolons_excel", USUAL, "UTF-8 text with semicolons between cells"),
        (
            "train_val_test",
            {"train": (12, 4, 2), "query": (12, 4, 2), "gallery": (12, 4, 2)},
            "12 train, 6 val, 6 test; each image of val and test is a query among the others",
        ),
        ("unknown_animals", {**USUAL, "gallery": (8, 6, 2)}, "12 train"),
        ("utf16_excel", USUAL, "UTF-16 text with tabs between cells"),
    ],
)
def test_tables_as_people_have_them(
    cases: Path, table: str, counts: dict[str, tuple[int, int, int]], understood: str
) -> None:
    dataset = load_dataset("csv", cases / f"{table}.csv")
    assert dataset.counts == {split: SplitCounts(*numbers) for split, numbers in counts.items()}
    assert understood in dataset.understood
    assert "\n" not in dataset.understood
    assert [sample.path.name for sample in dataset.train] == [f"p{number:02}.jpg" for number in range(12)]
    named = set(dataset.identity_names.values())
    assert (
        {f"tom{number}" for number in range(4)}
        <= named
        <= {f"{word}{n}" for word in ("tom", "else") for n in range(24)}
    )


def test_boxes_of_a_detector_keep_every_pixel_they_touch(cases: Path) -> None:
    assert {sample.box for sample in load_dataset("csv", cases / "boxes_float.csv").train} == {(10, 8, 61, 51)}


def test_cameras_written_as_whole_and_as_decimal_numbers_are_one(cases: Path) -> None:
    assert load_dataset("csv", cases / "camera_as_float.csv").camera_names == {1: "1", 2: "2"}


def test_images_of_nobody_known(photos: Path) -> None:
    dataset = read(
        photos,
        "path,split,identity\na.jpg,train,7\nb.jpg,train,unknown\nsub/c.jpg,gallery,nan\nsub/d.jpg,gallery,\n"
        "a.jpg,query,Unknown\nb.jpg,gallery,7.0\n",
    )
    assert [(s.path.name, s.identity) for s in dataset.train] == [("a.jpg", 7)]
    assert [(s.path.name, s.identity) for s in dataset.gallery] == [("c.jpg", 9), ("d.jpg", 10), ("b.jpg", 7)]
    assert dataset.query[0].identity == 11
    assert dataset.identity_names == {7: "7"}
    assert (
        "table.csv, column 'identity': images of nobody known (empty, unknown, nan): 1 left out of training, "
        "2 in the gallery as distractors, 1 among the queries, without a match"
    ) in dataset.warnings


@pytest.mark.parametrize(
    ("splits", "counts", "told"),
    [
        (("Training", "VAL", "val", "TRAIN"), (2, 2, 2), "each image of val is a query among the others"),
        (("train", "test", "gallery", "train"), (2, 1, 1), "test is the query"),
        (("train", "Query", "test", "train"), (2, 1, 1), "test is the gallery"),
        (("train", "query", "gallery", "val"), (1, 1, 1), "val are not used beside query and gallery"),
    ],
)
def test_other_words_for_splits(photos: Path, splits: tuple[str, ...], counts: tuple[int, ...], told: str) -> None:
    rows = zip(("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg"), splits, strict=True)
    dataset = read(photos, "path,split,identity\n" + "".join(f"{path},{split},1\n" for path, split in rows))
    assert tuple(map(len, dataset.splits.values())) == counts
    assert told in dataset.understood


def test_csv_names_images_that_do_not_exist(photos: Path) -> None:
    rows = "".join(f"gone{i}.jpg,train,1\n" for i in range(4))
    with pytest.raises(FileNotFoundError) as caught:
        read(photos, f"path,split,identity\na.jpg,train,1\n{rows}sub,train,1\n")
    assert str(caught.value) == (
        f"{photos / 'table.csv'}, column 'path': 5 of 6 images do not exist below {photos}, "
        "e.g. gone0.jpg (row 3), gone1.jpg (row 4), gone2.jpg (row 5)"
    )


def test_samples_can_be_sent_to_worker_processes(photos: Path) -> None:
    samples = read(photos, "path,split,identity,view\na.jpg,train,1,left\n").train
    assert pickle.loads(pickle.dumps(samples)) == samples
    assert len({*samples, *samples}) == 1


def test_folder_with_its_own_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/rex/1.jpg", "train/rex/deep/er/2.PNG", "train/tom/3.webp", "query/ida/4.jpeg")
    touch(tmp_path, "gallery/ida/5.bmp", "gallery/ida/.cache/6.jpg", "gallery/.hidden/7.jpg", "gallery/stray.jpg")
    (tmp_path / "train" / "rex" / "notes.txt").touch()
    (tmp_path / "gallery" / "empty").mkdir()
    dataset = load_dataset("folder", tmp_path)
    assert dataset.identity_names == {0: "ida", 1: "rex", 2: "tom"}
    found = {
        split: [(str(s.path.relative_to(tmp_path / split)), s.identity, s.camera) for s in samples]
        for split, samples in dataset.splits.items()
    }
    assert found == {
        "train": [("rex/1.jpg", 1, -1), ("rex/deep/er/2.PNG", 1, -1), ("tom/3.webp", 2, -1)],
        "query": [("ida/4.jpeg", 0, -1)],
        "gallery": [("ida/5.bmp", 0, -1)],
    }
    assert dataset.counts["train"] == SplitCounts(images=3, identities=2, cameras=0)
    assert dataset.warnings == (
        "folder: 4 files left out: 2 in hidden folders, 1 .txt, 1 beside the folders that name what they show",
    )


def test_folder_whose_splits_are_links(tmp_path: Path) -> None:
    touch(tmp_path, "split1/train/rex/1.jpg", "gallery/ida/2.jpg", "gallery/ida/3.jpg", "more/tom/4.jpg", "read.me")
    (tmp_path / "train").symlink_to("split1/train")
    (tmp_path / "query").symlink_to("gallery")
    dataset = load_dataset("folder", tmp_path)
    assert [sample.path for sample in dataset.train] == [tmp_path / "train/rex/1.jpg"]
    for split in ("query", "gallery"):
        inside = [str(sample.path.relative_to(tmp_path / split)) for sample in dataset.splits[split]]
        assert inside == ["ida/2.jpg", "ida/3.jpg"]
    assert "folder: 2 files left out: 2 outside the folders train, query, gallery" in dataset.warnings


@pytest.mark.parametrize(
    ("folders", "lacking"),
    [(["train"], "no query and no gallery"), (["query", "gallery"], "no train"), (["train", "query"], "no gallery")],
)
def test_folder_with_part_of_a_split_is_refused(tmp_path: Path, folders: list[str], lacking: str) -> None:
    touch(tmp_path, *(f"{folder}/rex/1.jpg" for folder in folders))
    with pytest.raises(
        FileNotFoundError, match=f"{tmp_path} has {lacking}; expected the folders train, query, gallery"
    ):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("folders", "told", "counts"),
    [
        (("train", "test"), "each image of test is a query among the others", (1, 1, 1)),
        (("Train", "valid", "validation"), "each image of val is a query among the others", (1, 2, 2)),
        (("train", "query", "test"), "test is the gallery", (1, 1, 1)),
        (("train", "query", "gallery", "val"), "val are not used beside query and gallery", (1, 1, 1)),
    ],
)
def test_folders_have_the_words_of_tables_for_splits(
    tmp_path: Path, folders: tuple[str, ...], told: str, counts: tuple[int, ...]
) -> None:
    touch(tmp_path, *(f"{folder}/rex/{number}.jpg" for number, folder in enumerate(folders)))
    dataset = load_dataset("folder", tmp_path)
    assert told in dataset.understood
    assert tuple(map(len, dataset.splits.values())) == counts


def test_an_animal_may_be_called_test(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.jpg" for name in ("test", "rex", "ida") for number in range(3)))
    assert set(load_dataset("folder", tmp_path).identity_names.values()) == {"test", "rex", "ida"}


def test_cameras_in_the_names_of_files(tmp_path: Path) -> None:
    """As Market-1501 in one folder an identity: without its cameras, queries find the next frame of their own."""
    touch(tmp_path, "train/0002/0002_c1s1_000451_03.jpg", "query/0007/0007_c12_000003_00.jpg")
    touch(tmp_path, "gallery/0007/0007_c12s4_000004_00.jpg", "gallery/0007/0007_c2_000005_00.jpg")
    dataset = load_dataset("folder", tmp_path)
    cameras = {s.path.name[:9]: dataset.camera_name(s.camera) for samples in dataset.splits.values() for s in samples}
    assert cameras == {"0002_c1s1": "1", "0007_c12_": "12", "0007_c12s": "12", "0007_c2_0": "2"}
    assert "3 cameras, from the names of files: 0002_c1s1_000451_03.jpg is of camera 1" in dataset.understood
    touch(tmp_path, "gallery/0008/other.jpg")
    dataset = load_dataset("folder", tmp_path)
    assert {s.camera for samples in dataset.splits.values() for s in samples} == {-1}


def test_folder_with_an_automatic_split(tmp_path: Path) -> None:
    for identity in range(20):
        touch(tmp_path, *(f"animal{identity}/{image}.jpg" for image in range(1 if identity % 5 == 0 else 4)))
    dataset = load_dataset("folder", tmp_path)
    train, query, gallery = ({s.identity for s in samples} for samples in dataset.splits.values())
    assert (len(train), len(gallery)) == (14, 6)
    assert not train & gallery
    held_out = {i for i, name in dataset.identity_names.items() if len(list((tmp_path / name).iterdir())) > 1} - train
    assert held_out  # else the next line says nothing
    assert query == held_out
    assert len(dataset.query) == len(held_out)
    everything = dataset.train + dataset.query + dataset.gallery
    assert len({sample.path for sample in everything}) == len(everything) == 16 * 4 + 4
    assert "automatic" in dataset.protocol["split"]
    assert any("14 identities for training, 6 held out" in warning for warning in dataset.warnings)


def test_automatic_split_depends_on_names_alone(tmp_path: Path) -> None:
    names = [f"animal{identity}/{image}.jpg" for identity in range(10) for image in range(5)]
    touch(tmp_path / "here", *names)
    touch(tmp_path / "there", *reversed(names))
    here, there = (
        [[s.path.relative_to(dataset.root) for s in samples] for samples in dataset.splits.values()]
        for dataset in (load_dataset("folder", tmp_path / place) for place in ("here", "there"))
    )
    assert here == there
    # Computed apart from the code: were the split to change, models trained before would have seen test images.
    assert [str(path) for path in here[1]] == ["animal1/3.jpg", "animal2/0.jpg", "animal6/3.jpg"]


@pytest.mark.parametrize(("identities", "train"), [(1, 1), (2, 1), (3, 2), (10, 7)])
def test_automatic_split_of_few_identities(tmp_path: Path, identities: int, train: int) -> None:
    touch(tmp_path, *(f"{identity}/1.jpg" for identity in range(identities)))
    dataset = load_dataset("folder", tmp_path)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (train, 0, identities - train)


def test_folder_of_a_published_dataset_is_refused(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        touch(tmp_path, f"{folder}/0002_c1s1_000451_03.jpg")
    with pytest.raises(ValueError, match=f"folder: {tmp_path} holds what looks like dataset market1501"):
        load_dataset("folder", tmp_path)


def test_folder_whose_identities_lie_one_deeper_is_refused(tmp_path: Path) -> None:
    for name in ("photos/rex/a.jpg", "photos/tom/b.jpg", "photos/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told = (
        f"one folder with images, photos, and 2 folders in it, such as rex; .* give {tmp_path / 'photos'} as data root"
    )
    with pytest.raises(ValueError, match=told):
        load_dataset("folder", tmp_path)


def test_folder_without_images_in_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(ValueError, match=rf"folder: no image \(\.jpg, .*\) with a label in {tmp_path}"):
        load_dataset("folder", tmp_path)


def test_files_of_a_folder_are_chosen_by_patterns(tmp_path: Path) -> None:
    """Names, those of folders, and paths below the root; each that is left out is counted, by option."""
    names = [f"{split}/{who}/{name}" for split in ("train", "query", "gallery") for who in "ab" for name in ("1", "2")]
    touch(tmp_path, *(f"{name}.jpg" for name in names), "train/a/1_small.jpg", "train/a/1.PNG", "gallery/b/named.txt")
    wanted = Patterns(include=("*.jpg",), exclude=("*_small*", "gallery/b/2*"))
    dataset = load_dataset("folder", tmp_path, wanted=wanted)
    assert [len(samples) for samples in dataset.splits.values()] == [4, 4, 3]
    assert dataset.warnings == ("folder: 4 files left out: 2 by --exclude, 2 by --include",)
    only = load_dataset("folder", tmp_path, wanted=Patterns(exclude=("b",)))
    assert set(only.identity_names.values()) == {"a"}
    with pytest.raises(
        ValueError, match="csv: given patterns, only \\*.jpg, which choose among the files of dataset f"
    ):
        load_dataset("csv", tmp_path, wanted=Patterns(include=("*.jpg",)))

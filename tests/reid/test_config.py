import re
from pathlib import Path

import pytest
import yaml

from reid.config import (
    RECIPES,
    ConfigError,
    FgvcConfig,
    ReidConfig,
    ReidDataOptions,
    differences,
    full_name,
    load_config,
    option_names,
    override,
    parse_override,
    read_config,
)
from reid.data.datasets import CHOICES
from reid.inference.checkpoint import KINDS


@pytest.mark.parametrize("dataset", ["market1501", "dukemtmc", "occludedduke", "cuhk03", "msmt17"])
def test_the_person_recipe_is_the_papers(dataset):
    config = load_config(dataset)
    data, model, train = config.data, config.model, config.train
    assert (data.image_size, data.flip, data.pad, data.erasing) == ((256, 128), 0.5, 10, 0.5)
    assert (model.backbone, model.method, model.weights, model.ratio) == ("vit_base", "dcal", "imagenet", 0.3)
    assert model.drop_path == 0.1
    assert (train.epochs, train.batch_size, train.images_per_identity) == (120, 64, 4)
    assert (train.optimizer, train.lr, train.momentum, train.weight_decay) == ("sgd", 0.008, 0.9, 1e-4)
    assert (train.bias_lr_factor, train.warmup_epochs, train.warmup_start, train.lr_floor) == (2, 5, 0.01, 0.002)
    assert (train.label_smoothing, train.margin, train.loss_weights) == (0, None, "learned")
    assert config.eval.features == "concat"


@pytest.mark.parametrize("dataset", ["veri776", "vehicleid", "veriwild"])
def test_the_vehicle_recipe(dataset):
    config = load_config(dataset)
    assert config.data.image_size == (256, 256)
    assert config.train.lr == (0.008 if dataset == "veri776" else 0.01)
    assert config.eval.gallery == ("redrawn" if dataset == "vehicleid" else "all")


@pytest.mark.parametrize("dataset", ["csv", "folder"])
def test_the_recipe_of_ones_own_photos_is_for_hundreds(dataset):
    config = load_config(dataset)
    train = config.train
    assert (train.optimizer, train.lr, train.warmup_steps, train.clip_norm) == ("adamw", 3e-4, 30, 5)
    assert train.epochs == train.images_per_identity == 0, "by what is there"
    assert (train.validation, train.patience, train.eval_every) == (0.1, 5, -1)
    assert config.model.method == "baseline"


def test_patience_without_anybody_held_out_is_refused():
    with pytest.raises(ConfigError, match="train.patience=5 needs train.validation"):
        load_config("csv", overrides={"validation": 0})


def test_recipes_name_the_version_that_is_the_default():
    for name, choices in CHOICES.items():
        for option, values in choices.items():
            assert getattr(load_config(name).data, option) == values[0]


def test_runs_saved_when_only_msmt17_had_versions_still_load(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {dataset: market1501, version: v1, train_split: train+val}")
    data = read_config(tmp_path / "config.yaml").data
    assert (data.version, data.train_split) == (None, None)
    (tmp_path / "config.yaml").write_text("data: {dataset: msmt17, version: v1, train_split: train+val}")
    data = read_config(tmp_path / "config.yaml").data
    assert (data.version, data.train_split) == ("v1", "train+val")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_names_its_dataset(path: Path):
    assert load_config(path.stem, path, kind=KINDS[path.parent.name]).data.dataset == path.stem


@pytest.mark.parametrize("dataset", ["cub", "cars", "aircraft", "folder"])
def test_the_recipe_of_categories_is_the_papers(dataset):
    config = load_config(dataset, kind=FgvcConfig)
    data, model, train = config.data, config.model, config.train
    assert (data.resize, data.image_size, data.flip) == ((550, 550), (448, 448), 0.5)
    assert (model.backbone, model.method, model.weights, model.ratio) == ("vit_base", "dcal", "imagenet", 0.1)
    assert model.drop_path == 0.1
    assert (train.epochs, train.batch_size, train.optimizer) == (100, 16, "adamw")
    assert train.lr == pytest.approx(5e-4 / 512 * 16)
    assert (train.weight_decay, train.bias_lr_factor, train.label_smoothing) == (0.05, 1, 0)
    assert config.eval.prediction == "sum"


def test_what_follows_from_another_option_of_categories():
    config = load_config("cub", None, {"train.batch_size": 64, "image_size": "224x112"}, FgvcConfig)
    assert config.train.lr == pytest.approx(5e-4 / 512 * 64)
    assert config.data.resize == (275, 138)
    config = load_config("cub", None, {"train.batch_size": 64, "lr": 0.1, "resize": "600x600"}, FgvcConfig)
    assert (config.train.lr, config.data.resize, config.data.image_size) == (0.1, (600, 600), (448, 448))


@pytest.mark.parametrize("size", [32, "32"])  # a flag's value arrives as text
def test_what_follows_from_another_option_follows_anew_until_it_is_saved(tmp_path, size):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {dataset: cub, image_size: 224x224}\ntrain: {batch_size: 64}")
    changes = {"train.batch_size": size, "image_size": "112x112"}
    config = override(read_config(path, FgvcConfig), changes)
    assert config.train.lr == pytest.approx(5e-4 / 512 * 32)
    assert config.data.resize == (138, 138)
    assert load_config("cub", path, changes, FgvcConfig) == config
    path.write_text(config.as_yaml())
    assert read_config(path, FgvcConfig) == config
    saved = yaml.safe_load(config.as_yaml())
    assert saved.pop("task") == "fgvc"
    assert [f"{group}.{name}" for group in saved for name in saved[group]] == option_names(FgvcConfig)
    assert override(read_config(path, FgvcConfig), {"train.batch_size": 16}).train.lr == config.train.lr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"resize": "400x600"}, "data.image_size=448x448 is larger than data.resize=400x600, which it is cropped from"),
        ({"image_size": "big"}, "data.image_size='big': expected HEIGHTxWIDTH"),
        ({"train.batch_size": 1}, "train.batch_size=1: Input should be greater than or equal to 2"),
        ({"train.batch_size": 0}, "train.batch_size=0: Input should be greater than or equal to 2"),
        ({"level": "kind"}, "data.level='kind': Input should be 'variant', 'family' or 'manufacturer'"),
        ({"margin": 0.3}, "unknown option 'margin'"),
    ],
)
def test_bad_options_of_categories_are_named(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_config("folder", None, overrides, FgvcConfig)
    assert "train.lr=" not in str(error.value)  # which merely follows from the batch size


def test_overrides_by_dotted_and_by_last_name():
    config = load_config(
        "msmt17", None, {"version": "v2", "train.epochs": "3", "strict_counts": True, "image_size": "64x32"}
    )
    assert (config.data.version, config.train.epochs, config.data.strict_counts) == ("v2", 3, True)
    assert config.data.image_size == (64, 32)


def test_yaml_round_trip(tmp_path):
    config = load_config("veri776", None, {"seed": 4})
    (tmp_path / "config.yaml").write_text(config.as_yaml())
    assert read_config(tmp_path / "config.yaml") == config
    assert yaml.safe_load(config.as_yaml())["data"]["image_size"] == "256x256"


def test_all_problems_are_told_at_once_with_near_names():
    with pytest.raises(ConfigError) as error:
        load_config("msmt17", None, {"train.epoch": 3, "lr": "fast", "model.method": "dcall", "nonsense": 1})
    message = str(error.value)
    assert "unknown option 'train.epoch'; near ones: train.epochs" in message
    assert "train.lr='fast'" in message
    assert "model.method='dcall': Input should be 'dcal'" in message
    assert "unknown option 'nonsense'; known: data.dataset" in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": "256"}, "data.image_size='256': expected HEIGHTxWIDTH, e.g. 256x128"),
        ({"image_size": "0x10"}, "data.image_size=0"),
        ({"batch_size": 10}, "train.batch_size=10: expected P x K with P >= 2 identities of K"),
        ({"batch_size": 4}, "train.batch_size=4"),
        ({"erasing": 1.5}, "data.erasing=1.5"),
        ({"epochs": 0}, "train.epochs=0: expected a whole number above 0, or auto"),
        ({"epochs": "0"}, "train.epochs='0': expected a whole number above 0, or auto"),
        ({"epochs": "x"}, "train.epochs='x': expected a whole number above 0, or auto"),
        ({"images_per_identity": -2}, "train.images_per_identity=-2: expected a whole number above 0, or auto"),
        ({"warmup_steps": 30, "warmup_epochs": 3}, "train.warmup_epochs=3 has no effect beside train.warmup_steps=30"),
        ({"whole": True}, "data.whole chooses among the boxes of data.detections, which is not given"),
        ({"min_confidence": 0.0}, "data.min_confidence chooses among the boxes"),
        ({"lr": "inf"}, "train.lr='inf': Input should be a finite number"),
        ({"weight_decay": float("nan")}, "train.weight_decay=nan: Input should be a finite number"),
        ({"batch_siz": 8}, "near ones: eval.batch_size, train.batch_size"),
        ({"train.batch_size": 8, "eval.batch_size": 0}, "eval.batch_size=0"),
        ({"id_loss": "cosface"}, "train.id_loss='cosface': Input should be 'ce' or 'arcface'"),
        ({"metric_loss": "circel"}, "train.metric_loss='circel': Input should be 'triplet', 'circle' or 'none'"),
        ({"center_loss": -1}, "train.center_loss=-1"),
        ({"id_loss": "arcface", "arcface_margin": 28.6}, "train.arcface_margin=28.6"),
        ({"metric_loss": "circle", "circle_scale": 0}, "train.circle_scale=0"),
        ({"arcface_margin": 0.3}, "train.arcface_margin=0.3 needs train.id_loss=arcface, not ce"),
        (
            {"id_loss": "arcface", "label_smoothing": 0.1, "metric_loss": "none", "margin": 0.3},
            "train.label_smoothing=0.1 needs train.id_loss=ce, not arcface; "
            "train.margin=0.3 needs train.metric_loss=triplet, not none",
        ),
        (
            {"metric_loss": "circle", "images_per_identity": 1},
            "train.metric_loss=circle with train.images_per_identity=1: it needs two of each identity",
        ),
    ],
)
def test_unusable_values_are_named(overrides, message):
    if "batch_size" in overrides:
        overrides = {f"train.{name}": value for name, value in overrides.items()}
    with pytest.raises(ConfigError) as error:
        load_config("msmt17", None, overrides)
    assert message in str(error.value)


def test_an_ambiguous_last_name_says_so():
    with pytest.raises(ConfigError, match=r"'batch_size' could be train.batch_size or eval.batch_size"):
        load_config("msmt17", None, {"batch_size": 8})


def test_an_ambiguous_last_name_is_that_of_the_group_that_is_meant():
    assert full_name("batch_size", group="eval") == "eval.batch_size"
    assert full_name("lr", group="eval") == "train.lr"


def test_bad_yaml_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, message in [
        ("data: [", "not readable as YAML"),
        ("- 1", "expected the groups data, model, train, eval"),
        ("train: {epcohs: 3}", r"unknown option 'train.epcohs'; near ones: train.epochs.*mine.yaml"),
        ("training: {epochs: 3}", r"unknown option 'training'.*\(in .*mine.yaml\)$"),
        ("train: {epochs: some}", r"^train.epochs='some': .*\(in .*mine.yaml\)$"),
        ("train: {batch_size: 10}", r"^train.batch_size=10: expected P x K .*\(in .*mine.yaml\)$"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config("market1501", path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_config("market1501", tmp_path / "absent.yaml")


def test_a_file_is_blamed_for_its_own_values_only(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: some, lr: fast, batch_size: 10}")
    with pytest.raises(ConfigError) as error:
        load_config("market1501", path, {"epochs": 0, "momentum": 2})
    for problem in str(error.value).split("; "):
        assert problem.endswith("mine.yaml)") == problem.startswith("train.lr='fast'")
    path.write_text("train: {batch_size: 10}")
    assert load_config("market1501", path, {"images_per_identity": 5}).train.batch_size == 10
    with pytest.raises(ConfigError, match=r"K = train.images_per_identity = 3 images$"):
        load_config("market1501", path, {"images_per_identity": 3})


@pytest.mark.parametrize("text", ["", "data:", "train: {epochs: 3}"])
def test_a_config_without_dataset_says_so(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^data.dataset is missing \(in .*mine.yaml\)$"):
        read_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize(("written", "asked"), [(FgvcConfig, ReidConfig), (ReidConfig, FgvcConfig)])
def test_a_config_of_another_task_is_refused_as_such(tmp_path, written, asked):
    path = tmp_path / "config.yaml"
    path.write_text(load_config("mine", None, {}, written).as_yaml())
    message = rf"^config .*config.yaml is for {written.task}-train, expected one for {asked.task}-train$"
    with pytest.raises(ConfigError, match=message):
        read_config(path, asked)
    with pytest.raises(ConfigError, match=message):
        load_config("mine", path, {}, asked)
    path.write_text("task: segmentation")
    with pytest.raises(ConfigError, match=rf"is of unknown task 'segmentation', expected one for {asked.task}-train$"):
        read_config(path, asked)


def test_key_value_parsing():
    assert parse_override("train.lr=1e-3") == (
        "train.lr",
        "1e-3",
    )  # YAML 1.1 reads this as text; pydantic makes a number
    assert parse_override("ema=0.9") == ("ema", 0.9)
    assert parse_override("margin=null") == ("margin", None)
    for text in ("train.lr", "=3"):
        with pytest.raises(ConfigError, match="expected KEY=VALUE"):
            parse_override(text)
    assert override(ReidConfig(data=ReidDataOptions(dataset="csv")), {"lr": "1e-3"}).train.lr == 1e-3


def test_differences_and_names():
    one = load_config("market1501")
    assert list(differences(one, override(one, {"lr": 0.1, "seed": 2}))) == ["train.lr", "train.seed"]
    assert {"data.dataset", "model.ratio", "train.lr", "eval.junk"} <= set(option_names())

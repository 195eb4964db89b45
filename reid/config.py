"""Every option of a run: typed, with the paper's recipes as defaults, from YAML and dotted overrides.

There are two kinds of runs: re-identification (`ReidConfig`) and fine-grained categories (`FgvcConfig`).
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WrapValidator,
    model_validator,
)
from typing_extensions import TypeVar

from reid.names import BRANCHES, Features, Method, PartnerStream, Prediction, SideKind, Task

# An installed package carries the recipes inside; a source checkout has them beside the packages.
RECIPES = next(
    (path for path in (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs") if path.is_dir()),
    Path("configs"),
)


class ConfigError(ValueError):
    """Options that cannot be used; the message names every one of them."""


def _parse_size(value: Any) -> Any:
    if isinstance(value, str):
        parts = value.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            raise ValueError("expected HEIGHTxWIDTH, e.g. 256x128")
        return tuple(int(part) for part in parts)
    return value


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ImageSize = Annotated[
    tuple[Positive, Positive],
    BeforeValidator(_parse_size),
    PlainSerializer(lambda size: f"{size[0]}x{size[1]}", return_type=str),
]


def _parse_auto(value: Any, parse: Callable[[Any], int]) -> int:
    if value == "auto":
        return 0
    try:
        number = parse(value)
    except ValidationError:
        number = 0
    if number < 1:
        raise ValueError("expected a whole number above 0, or auto")
    return number


# A number, or 0 where it follows from the training images.
OrAuto = Annotated[
    int, WrapValidator(_parse_auto), PlainSerializer(lambda number: number or "auto", return_type=int | str)
]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataOptions(_Options):
    """Which images, and what is done to them: what both kinds of runs have."""

    dataset: str
    root: str | None = None
    strict_counts: bool = Field(False, description="refuse a dataset whose counts differ from the official ones")
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="an image that cannot be read: stop, or leave it out"
    )
    include: tuple[str, ...] = Field((), description="of folder: take only files whose name is such: ['*.jpg', ...]")
    exclude: tuple[str, ...] = Field((), description="of folder: leave out files whose name is such")
    detections: str | None = Field(
        None, description="boxes to crop images to: MegaDetector's JSON, COCO's, or a folder of YOLO's text files"
    )
    min_confidence: Fraction | None = Field(None, description="of these boxes; null is 0.2 of MegaDetector's, else 0")
    category: str | None = Field(None, description="of these boxes, as animal; null is any")
    whole: bool = Field(False, description="take images without such a box whole, which are left out else")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    workers: int = Field(-1, ge=-1, description="reading processes; -1 decides by device")
    image_size: ImageSize = Field((256, 128), description="height x width in pixels")

    @model_validator(mode="after")
    def _boxes_to_choose_among(self) -> Self:
        chosen = ("min_confidence", "category", "whole")
        idle = [name for name in chosen if getattr(self, name) != type(self).model_fields[name].default]
        if idle and self.detections is None:
            raise ValueError(f"data.{idle[0]} chooses among the boxes of data.detections, which is not given")
        return self


class ReidDataOptions(DataOptions):
    """The data of re-identification."""

    version: str | None = Field(None, description="of cuhk03, msmt17, vehicleid or veriwild; null is its default")
    train_split: Literal["train", "train+val"] | None = Field(None, description="of msmt17; null is train+val")
    also: tuple[str, ...] = Field((), description="further sets whose training images are added: NAME=ROOT, ...")
    columns: str = Field("", description="of csv: headings of the table by our names, as path=image_path,identity=name")
    pad: int = Field(10, ge=0, description="pixels of padding before the random crop")
    erasing: Fraction = Field(0.5, description="probability of random erasing")

    @model_validator(mode="before")
    @classmethod
    def _read_earlier(cls, values: Any) -> Any:
        # Runs saved when only MSMT17 had a choice name its defaults, whatever their dataset is.
        if not isinstance(values, dict) or values.get("dataset") == "msmt17":
            return values
        earlier = {"version": "v1", "train_split": "train+val"}
        return {name: value for name, value in values.items() if (name, value) not in earlier.items()}


class FgvcDataOptions(DataOptions):
    """The data of fine-grained categories."""

    level: Literal["variant", "family", "manufacturer"] | None = Field(
        None, description="of aircraft: what a class is; null is variant"
    )
    image_size: ImageSize = Field((448, 448), description="height x width of the crop, in pixels")
    resize: ImageSize = Field(
        default_factory=lambda data: tuple(round(side * 550 / 448) for side in data["image_size"]),
        description="height x width that is cropped from; by default 550 / 448 of image_size",
    )

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if any(crop > whole for crop, whole in zip(self.image_size, self.resize, strict=True)):
            crop, whole = ("x".join(map(str, size)) for size in (self.image_size, self.resize))
            raise ValueError(f"data.image_size={crop} is larger than data.resize={whole}, which it is cropped from")
        return self


class ModelOptions(_Options):
    """The network."""

    backbone: str = "vit_base"
    method: Method = "dcal"
    weights: str = Field("imagenet", description="imagenet, none, or a file")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block")
    ratio: float = Field(
        0.3, gt=0, le=1, description="share of patches that GLCA chooses (R); only pictures of attention show it"
    )
    partner_stream: PartnerStream = Field("sa", description="which of the partner's streams PWCA reads")
    stride: Positive | None = Field(
        None, description="pixels between patches; smaller than the patch makes them overlap, as TransReID's do"
    )


class ReidModelOptions(ModelOptions):
    """The network for re-identification."""

    jigsaw: int = Field(0, ge=0, description="shift of TransReID's jigsaw module, 5 or 8 (vehicles); 0 is none")
    side_information: Literal["none"] | SideKind = Field(
        "none", description="TransReID's embeddings of camera and view, known from the training images"
    )


class FgvcModelOptions(ModelOptions):
    """The network for fine-grained categories."""

    ratio: float = Field(
        0.1, gt=0, le=1, description="share of patches that GLCA chooses (R); only pictures of attention show it"
    )


class TrainOptions(_Options):
    """The recipe: what both kinds of runs have, with the values of re-identification."""

    epochs: OrAuto = Field(120, ge=0, description="auto takes as many as make 400 steps, and 10 at least")
    batch_size: Positive = Field(64, description="images")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.008, gt=0)
    momentum: Fraction = 0.9
    weight_decay: float = Field(1e-4, ge=0)
    bias_lr_factor: float = Field(2.0, gt=0)
    warmup_epochs: float = Field(5, ge=0, description="at most a quarter of the epochs is used")
    warmup_steps: int | None = Field(None, ge=0, description="in place of warmup_epochs, where epochs are short")
    warmup_start: Fraction = 0.01
    lr_floor: Fraction = Field(0.002, description="the last rate, as a share of lr")
    label_smoothing: Fraction = 0.0
    loss_weights: Literal["learned", "equal"] = Field("learned", description="equal keeps every w at 0")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    clip_norm: float = Field(0.0, ge=0, description="largest gradient norm; 0 is no clipping")
    accumulate: Positive = Field(1, description="batches per optimiser step")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights that are evaluated and saved; 0 is off"
    )
    compile: bool = False
    checkpointing: bool = Field(False, description="compute blocks again in the backward pass: less memory, more time")
    eval_every: int = Field(20, ge=-1, description="epochs between evaluations; 0 only at the end, -1 ten times")
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_epochs != type(self).model_fields["warmup_epochs"].default:
            raise ValueError(
                f"train.warmup_epochs={self.warmup_epochs:g} has no effect beside train.warmup_steps="
                f"{self.warmup_steps}; expected warmup_steps=null with it"
            )
        return self


class ReidTrainOptions(TrainOptions):
    """The recipe of re-identification."""

    batch_size: int = Field(64, ge=4, description="P identities x K images")
    images_per_identity: OrAuto = Field(
        4, ge=0, description="K; auto takes 2 to 4, and fills the batch with more where identities are few"
    )
    validation: float = Field(
        0.0, ge=0, lt=1, description="share of the training identities held out to choose the epoch that is kept by"
    )
    patience: int = Field(0, ge=0, description="evaluations on these without a better one before it stops; 0 is never")
    margin: Annotated[float | None, BeforeValidator(lambda value: None if value == "none" else value)] = Field(
        None, ge=0, description="triplet margin; none is the soft margin"
    )
    id_loss: Literal["ce", "arcface"] = Field("ce", description="cross-entropy of the logits, or ArcFace")
    arcface_scale: float = Field(64.0, gt=0)
    arcface_margin: float = Field(0.5, ge=0, lt=math.pi, description="radians")
    metric_loss: Literal["triplet", "circle", "none"] = "triplet"
    circle_scale: float = Field(128.0, gt=0, description="gamma")
    circle_margin: float = Field(0.25, ge=0, lt=1, description="m")
    center_loss: float = Field(0.0, ge=0, description="weight of the center loss, e.g. 5e-4; 0 is off")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        images, size = self.images_per_identity, self.batch_size
        if images and (size % images or size < 2 * images):
            raise ValueError(
                f"train.batch_size={size}: expected P x K with P >= 2 identities of "
                f"K = train.images_per_identity = {images} images"
            )
        if self.metric_loss == "circle" and images == 1:
            raise ValueError("train.metric_loss=circle with train.images_per_identity=1: it needs two of each identity")
        return self

    @model_validator(mode="after")
    def _no_idle_options(self) -> Self:
        owners = {
            ("id_loss", "ce"): ("label_smoothing",),
            ("id_loss", "arcface"): ("arcface_scale", "arcface_margin"),
            ("metric_loss", "triplet"): ("margin",),
            ("metric_loss", "circle"): ("circle_scale", "circle_margin"),
        }
        if self.patience and not self.validation:
            raise ValueError(f"train.patience={self.patience} needs train.validation, whose evaluations it counts")
        idle = [
            f"train.{name}={getattr(self, name)} needs train.{option}={value}, not {getattr(self, option)}"
            for (option, value), names in owners.items()
            if getattr(self, option) != value
            for name in names
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if idle:
            raise ValueError("; ".join(idle))
        return self


FGVC_RATE = 5e-4 / 512  # an image of the batch (the paper's section 4.1)


class FgvcTrainOptions(TrainOptions):
    """The recipe of fine-grained categories."""

    epochs: OrAuto = Field(100, ge=0)
    batch_size: int = Field(16, ge=2, description="images")
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(
        default_factory=lambda train: FGVC_RATE * train["batch_size"],
        gt=0,
        description="by default 5e-4 / 512 x batch_size",
    )
    weight_decay: float = Field(0.05, ge=0)
    bias_lr_factor: float = Field(1.0, gt=0)


class EvalOptions(_Options):
    """The protocol of re-identification."""

    features: Features = "concat"
    flip_test: bool = Field(False, description="add the embedding of the mirrored image to that of the image")
    distance: Literal["cosine", "euclidean"] = "cosine"
    junk: Literal["camera", "sequence", "none"] = Field(
        "camera", description="what else a gallery image must share with the query, besides identity, not to count"
    )
    ap: Literal["hits", "trapezoid"] = "hits"
    gallery: Literal["all", "single", "redrawn"] = Field(
        "all", description="all images; one an identity; or one an identity with all others as queries (VehicleID)"
    )
    draws: Positive = Field(10, description="random galleries to average over, unless all images are used")
    draw_seed: int = Field(0, ge=0)
    rerank: Literal["none", "zhong", "transreid"] = Field("none", description="k-reciprocal re-ranking")
    rerank_k1: Positive | None = Field(None, description="neighbours; by default the preset's")
    rerank_k2: Positive | None = Field(None, description="neighbours averaged over; by default the preset's")
    rerank_lambda: Fraction | None = Field(None, description="weight of the original distance; default the preset's")
    query_expansion: int = Field(0, ge=0, description="gallery images added to each query (alpha-QE); 0 is off")
    database_augmentation: int = Field(0, ge=0, description="neighbours added to each gallery image; 0 is off")
    alpha: float = Field(3.0, ge=0, description="exponent of the similarity that weighs what is added")
    false_alarm: float = Field(
        0.01, gt=0, lt=1, description="share of unknown queries that may be taken for known, for the threshold"
    )
    batch_size: Positive = 128

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rerank == "none":
            idle = [name for name in ("rerank_k1", "rerank_k2", "rerank_lambda") if getattr(self, name) is not None]
            if idle:
                raise ValueError(f"{', '.join(idle)} given, but rerank is none; choose rerank=zhong or transreid")
        if self.gallery != "all" and self.rerank != "none":
            raise ValueError(f"rerank={self.rerank} with gallery={self.gallery}: re-ranking needs the whole gallery")
        if self.gallery == "redrawn" and (self.query_expansion or self.database_augmentation):
            raise ValueError("query_expansion and database_augmentation do not work with gallery=redrawn")
        if self.distance != "cosine" and (self.query_expansion or self.database_augmentation):
            raise ValueError("query_expansion and database_augmentation work on unit vectors: use distance=cosine")
        if self.gallery != "all" and self.ap != "hits":
            raise ValueError(f"ap={self.ap} with gallery={self.gallery}: only hits is defined for one match a query")
        return self


class FgvcEvalOptions(_Options):
    """The protocol of fine-grained categories."""

    prediction: Prediction = Field("sum", description="SA's and GLCA's class probabilities summed, or those of one")
    batch_size: Positive = 32


def _require_branch(option: str, chosen: str, method: Method) -> None:
    if chosen == "glca" and "glca" not in BRANCHES[method]:
        raise ValueError(f"eval.{option}=glca asked of method {method!r}, which has no GLCA")


class Config(_Options):
    """A whole run of either kind; `config.yaml` in its folder is this, complete."""

    task: ClassVar[Task]

    data: DataOptions
    model: ModelOptions
    train: TrainOptions
    eval: EvalOptions | FgvcEvalOptions

    def as_yaml(self) -> str:
        """The task and every option, in an order that reads well."""
        return yaml.safe_dump({"task": self.task, **self.model_dump(mode="json")}, sort_keys=False)


class ReidConfig(Config):
    """A run of `reid-train`."""

    task = "reid"

    data: ReidDataOptions
    model: ReidModelOptions = ReidModelOptions()
    train: ReidTrainOptions = ReidTrainOptions()
    eval: EvalOptions = EvalOptions()

    @model_validator(mode="after")
    def _branches(self) -> Self:
        _require_branch("features", self.eval.features, self.model.method)
        return self


class FgvcConfig(Config):
    """A run of `fgvc-train`."""

    task = "fgvc"

    data: FgvcDataOptions
    model: FgvcModelOptions = FgvcModelOptions()
    train: FgvcTrainOptions = FgvcTrainOptions()
    eval: FgvcEvalOptions = FgvcEvalOptions()

    @model_validator(mode="after")
    def _branches(self) -> Self:
        _require_branch("prediction", self.eval.prediction, self.model.method)
        return self


Kind = TypeVar("Kind", bound=Config, default=ReidConfig)


def option_names(kind: type[Config] = ReidConfig) -> list[str]:
    """The dotted name of every option of a kind of run."""
    return [
        f"{group}.{name}"
        for group, field in kind.model_fields.items()
        for name in field.annotation.model_fields  # type: ignore[union-attr]
    ]


def load_config(
    dataset: str,
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    kind: type[Kind] = ReidConfig,  # type: ignore[assignment]
) -> Kind:
    """The options of a run: defaults, under the dataset's recipe (or the YAML at `path`), under the overrides.

    `overrides` maps option names, dotted or their last part alone, to values. Raises ConfigError naming every option
    that is unknown, with near ones, or has an unusable value, and for a YAML of another task; FileNotFoundError for a
    missing YAML.
    """
    source = path or _recipe(dataset, kind.task)
    values = _read_yaml(source, kind) if source else {}
    values["data"] = {**values.get("data", {}), "dataset": dataset}
    return _validate(kind, values, overrides or {}, source)


def override(config: Kind, overrides: Mapping[str, Any]) -> Kind:
    """The config with some options changed; raises ConfigError as `load_config` does."""
    # What was not chosen follows anew from what is.
    return _validate(type(config), config.model_dump(mode="json", exclude_unset=True), overrides, None)


def config_from(values: Mapping[str, Any], source: Path | str, kind: type[Kind] = ReidConfig) -> Kind:  # type: ignore[assignment]
    """A config from its own dump; raises ConfigError as `load_config` does."""
    return _validate(kind, values, {}, source)


def read_config(path: Path, kind: type[Kind] = ReidConfig) -> Kind:  # type: ignore[assignment]
    """The config of a run from its `config.yaml`."""
    return config_from(_read_yaml(path, kind), path, kind)


def read_any_config(path: Path) -> Config:
    """The same of a run of any task."""
    values = _load_yaml(path)
    kinds: tuple[type[Config], ...] = (ReidConfig, FgvcConfig)
    task = values.get("task") if isinstance(values, dict) else None
    return read_config(path, next((kind for kind in kinds if kind.task == task), ReidConfig))


def parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` to its name and its value, read as YAML. Raises ConfigError for text of another form."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is no option; expected KEY=VALUE, e.g. train.epochs=60")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value


def full_name(key: str, kind: type[Config] = ReidConfig, group: str | None = None) -> str:
    """The dotted name of an option given by it or by its last part; raises ConfigError for another key.

    Of several options with the same last part, it is that of `group`.
    """
    if group and (own := f"{group}.{key}") in option_names(kind):
        return own
    name, problem = _full_name(key, kind)
    if problem:
        raise ConfigError(problem)
    return name


# What prepares the images belongs to the model; an evaluation may change all other options of the data.
OF_THE_TRAINING = ("flip", "image_size", "pad", "erasing", "resize")
# What another dataset than the one trained on brings of its own recipe's protocol.
OF_THE_DATASET = ("gallery", "draws")


def evaluation_config(trained: Kind, overrides: Mapping[str, Any]) -> Kind:
    """The options of an evaluation; raises ConfigError for one that only a training may change.

    Another dataset than the one trained on brings its own recipe's data and protocol options.
    """
    kind = type(trained)
    changeable = [name for name in option_names(kind) if name.startswith("data.")]
    changeable = [name for name in changeable if name.removeprefix("data.") not in OF_THE_TRAINING]
    named = {full_name(key, kind, "eval"): value for key, value in overrides.items()}
    foreign = [name for name in named if name not in changeable and not name.startswith("eval.")]
    if foreign:
        names = ",".join(name.removeprefix("data.") for name in changeable)
        raise ConfigError(
            f"{', '.join(foreign)}: fixed by the training; an evaluation can change eval.* and data.{{{names}}}"
        )
    other = named.get("data.dataset", trained.data.dataset)
    if other != trained.data.dataset:
        recipe = load_config(other, kind=kind)
        brought = {name: value for name, value in recipe.eval.model_dump().items() if name in OF_THE_DATASET}
        trained = trained.model_copy(update={"data": recipe.data, "eval": trained.eval.model_copy(update=brought)})
    return override(trained, named)


def differences(a: Config, b: Config) -> Iterator[str]:
    """The dotted names of the options in which two configs of one kind differ."""
    one, other = a.model_dump(), b.model_dump()
    for name in option_names(type(a)):
        group, _, leaf = name.partition(".")
        if one[group][leaf] != other[group][leaf]:
            yield name


def _recipe(dataset: str, task: Task) -> Path | None:
    path = RECIPES / task / f"{dataset}.yaml"
    return path if path.is_file() else None


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"config {path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path}: not readable as YAML ({' '.join(str(error).split())})") from error


def _read_yaml(path: Path, kind: type[Config]) -> dict[str, Any]:
    values = _load_yaml(path)
    task = values.pop("task", kind.task) if isinstance(values, dict) else kind.task  # earlier files have none
    if task != kind.task:
        whose = f"for {task}-train" if task in get_args(Task) else f"of unknown task {task!r}"
        raise ConfigError(f"config {path} is {whose}, expected one for {kind.task}-train")
    if not isinstance(values, dict) or not all(isinstance(part, dict | None) for part in values.values()):
        raise ConfigError(f"config {path}: expected the groups {', '.join(kind.model_fields)}, each with its options")
    return {group: part or {} for group, part in values.items()}


def _full_name(key: str, kind: type[Config]) -> tuple[str, str]:
    """The dotted name that `key` stands for, and what is wrong with it, one of them empty."""
    names = option_names(kind)
    if key in names:
        return key, ""
    same_leaf = [name for name in names if name.split(".")[1] == key]
    if len(same_leaf) == 1:
        return same_leaf[0], ""
    if same_leaf:
        return "", f"option {key!r} could be {' or '.join(same_leaf)}"
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    leaves = difflib.get_close_matches(key.split(".")[-1], [name.split(".")[1] for name in names], n=3, cutoff=0.6)
    near += [name for name in names if name.split(".")[1] in leaves and name not in near]
    return "", f"unknown option {key!r}; " + (f"near ones: {', '.join(near)}" if near else f"known: {', '.join(names)}")


def _validate(
    kind: type[Kind], values: Mapping[str, Any], overrides: Mapping[str, Any], source: Path | str | None
) -> Kind:
    merged = {group: dict(part) for group, part in values.items()}
    problems: list[str] = []
    for key, value in overrides.items():
        name, problem = _full_name(key, kind)
        if problem:
            problems.append(problem)
        else:
            group, _, leaf = name.partition(".")
            merged.setdefault(group, {})[leaf] = value
    config, found = _check(kind, merged)
    own = _check(kind, values)[1] if source and found else []
    problems += [f"{problem} (in {source})" if problem in own else problem for problem in found]
    if config is None or problems:
        raise ConfigError("; ".join(problems))
    return config


def _check(kind: type[Kind], values: Mapping[str, Any]) -> tuple[Kind | None, list[str]]:
    """The config that the values make, or None and what is wrong with them."""
    try:
        return kind.model_validate({**{group: {} for group in kind.model_fields}, **values}), []
    except ValidationError as error:
        problems: list[str] = []
        for detail in error.errors():
            name = ".".join(str(part) for part in detail["loc"][:2])
            if detail["type"] == "default_factory_not_called":
                continue  # it would follow from an option that is told already
            if detail["type"] == "extra_forbidden":
                problems.append(_full_name(name, kind)[1])
            elif detail["type"] == "missing":
                problems.append(f"{name} is missing")
            else:
                message = detail["msg"].removeprefix("Value error, ")
                # An error of a whole group names its options itself.
                problems.append(f"{name}={detail['input']!r}: {message}" if "." in name else message)
        return None, list(dict.fromkeys(problems))

"""What every training command shares, whatever it trains: its flags and its run folder. No torch: it refuses first."""

import argparse
import ctypes
import json
import logging
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from reid import cli
from reid.config import Config, ConfigError, differences, load_config, override, parse_override, read_config
from reid.distributed.world import World, joined
from reid.models.specs import BACKBONES
from reid.names import BRANCHES, CONFIG_FILE, MODEL_FILE, STATE_FILE

log = logging.getLogger("reid")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

Kind = TypeVar("Kind", bound=Config)
KindIn = TypeVar("KindIn", bound=Config, contravariant=True)


class Interrupted(KeyboardInterrupt):
    """Training was told to stop and has saved its state."""


class Train(Protocol[KindIn]):
    """Trains into a run folder and returns the record of every epoch."""

    def __call__(
        self, config: KindIn, output: Path, *, device: str, resume: bool, world: World
    ) -> list[dict[str, Any]]: ...


def add_training_flags(parser: argparse.ArgumentParser, kind: type[Config], datasets: Collection[str]) -> None:
    """Declare the flags of a training command of one kind, with its own defaults in their help."""
    train, size = _group(kind, "train"), _group(kind, "data")["image_size"].get_default()
    default = {name: train[name].get_default() for name in ("epochs", "batch_size", "seed")}
    table = ", or its CSV file" if "csv" in datasets else ""
    several = "; given several times, with a --data-root each, all are trained on and the first is evaluated on"
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        action="append",
        default=[],
        help=f"one of {', '.join(datasets)}{several if table else ''}",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        action="append",
        default=[],
        help=f"the folder that holds the dataset, or one above it{table}",
    )
    if table:
        parser.add_argument(
            "--columns", metavar="NAME=HEADING,...", help="headings of the CSV file, as path=image_path"
        )
    cli.add_patterns(parser)
    parser.add_argument("--config", metavar="YAML", type=Path, help="options file, instead of the dataset's own recipe")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help=f"one of {', '.join(BACKBONES)}, or timm's own name of a ViT, DeiT, EVA, CaiT or Swin",
    )
    parser.add_argument("--method", choices=list(BRANCHES), help="default: dcal, or the recipe's")
    parser.add_argument("--weights", metavar="imagenet|none|PATH", help="pretrained weights (default: imagenet)")
    parser.add_argument(
        "--image-size", metavar="HxW", help=f"height x width in pixels (default: {size[0]}x{size[1]}, or the recipe's)"
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        help=f"passes over the training images, or auto (default: {default['epochs']}, or the recipe's)",
    )
    parser.add_argument(
        "--batch-size",
        metavar="B",
        help=f"{train['batch_size'].description} (default: {default['batch_size']}, or the recipe's)",
    )
    parser.add_argument("--seed", metavar="S", help=f"of every random choice (default: {default['seed']})")
    parser.add_argument("--output", metavar="RUN", type=Path, help="run folder (default: runs/DATASET-BACKBONE-METHOD)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output where it stopped")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="any option")


def _group(kind: type[Config], name: str) -> Mapping[str, Any]:
    options: Mapping[str, Any] = kind.model_fields[name].annotation.model_fields  # type: ignore[union-attr]
    return options


def run_training(
    arguments: argparse.Namespace, kind: type[Kind], datasets: Collection[str], train: Train[Kind]
) -> None:
    """Train as the flags say, with the other processes of torchrun, and print the last epoch's record as JSON.

    Raises UsageError for a dataset that is missing or unknown, and what choosing options and training raise.
    """
    keep_freed_memory()
    with joined(arguments.device, "start again with --resume") as world:
        config, output = world.on_main(lambda: _choose(arguments, kind, datasets))
        try:
            records = train(config, output, device=arguments.device, resume=arguments.resume, world=world)
        except Interrupted as interrupt:
            command = f"{kind.task}-train --output {output} --resume"
            how = command if world.size == 1 else "the same command and --resume"
            raise KeyboardInterrupt(f"{interrupt}; continue with {how}") from None
        if world.main:
            print(json.dumps({"run": str(output), **records[-1]}))


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for what is allocated next; of glibc, elsewhere nothing.

    A step of training frees what the next one takes again. Tensors above 32 MiB are otherwise given back to the system
    each time, and cleared page by page when they return.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # none


def _choose(arguments: argparse.Namespace, kind: type[Kind], datasets: Collection[str]) -> tuple[Kind, Path]:
    """The options of the run that the flags mean, and its folder."""
    overrides = _overrides(arguments)
    saved = arguments.output / CONFIG_FILE if arguments.output and arguments.resume else None
    if saved and saved.exists() and arguments.config is None:
        config = override(read_config(saved, kind), overrides)
    elif arguments.dataset:
        config = load_config(arguments.dataset[0], arguments.config, overrides, kind)
    elif arguments.config:
        config = override(read_config(arguments.config, kind), overrides)
    elif saved:
        raise FileNotFoundError(f"{arguments.output} holds no run to resume; give --dataset to begin one")
    else:
        raise cli.UsageError(f"--dataset is missing; one of {', '.join(datasets)}")
    if config.data.dataset not in datasets:
        raise cli.UsageError(f"unknown dataset {config.data.dataset!r}; one of {', '.join(datasets)}")
    names = (config.data.dataset, config.model.backbone, config.model.method)
    output = arguments.output or Path("runs") / "-".join(names)
    begun = output / CONFIG_FILE
    if arguments.resume and arguments.output is None and arguments.config is None and begun.exists():
        config = override(read_config(begun, kind), overrides)  # recipes may have changed since
    return config, output


def _overrides(arguments: argparse.Namespace) -> Mapping[str, Any]:
    names, roots = arguments.dataset, arguments.data_root
    if len(names) > 1 and (len(roots) != len(names) or not hasattr(arguments, "columns")):
        wanted = "one --data-root for each" if hasattr(arguments, "columns") else "one"
        raise cli.UsageError(
            f"--dataset is given {len(names)} times, --data-root {len(roots)} times; expected {wanted}"
        )
    if len(roots) > max(1, len(names)):
        raise cli.UsageError(
            f"--data-root is given {len(roots)} times, --dataset {len(names)} times; expected one each"
        )
    also = [f"{name}={root}" for name, root in zip(names[1:], roots[1:], strict=False)]
    flags = {
        "data.root": roots[0] if roots else None,
        "data.also": also or None,
        "data.columns": getattr(arguments, "columns", None),
        "data.include": arguments.include or None,
        "data.exclude": arguments.exclude or None,
        "model.backbone": arguments.backbone,
        "model.method": arguments.method,
        "model.weights": arguments.weights,
        "data.image_size": arguments.image_size,
        "train.epochs": arguments.epochs,
        "train.batch_size": arguments.batch_size,
        "train.seed": arguments.seed,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    return given | dict(parse_override(text) for text in arguments.options)


def require_own_folder(config: Config, output: Path, resume: bool) -> bool:
    """Whether `output` holds this very run's state, to go on from.

    Raises FileExistsError for a folder with a run when `resume` is not asked for, FileNotFoundError for a resume
    without a state, ConfigError for one with changed options. A run that ended before it saved anything leaves nothing
    to lose.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"output {output} is a file, expected a folder or a new name")
    if not any((output / name).exists() for name in (STATE_FILE, MODEL_FILE)):
        return False
    if not resume:
        raise FileExistsError(f"{output} already holds a run; continue it with --resume, or choose another --output")
    if not (output / STATE_FILE).exists():
        raise FileNotFoundError(f"{output} holds a model but no {STATE_FILE} to resume from; choose another --output")
    changed = changed_options(output, config)
    fixed = [name for name in changed if name != "train.epochs"]
    if fixed:
        raise ConfigError(f"--resume cannot change {', '.join(fixed)}; the run's options are in {output / CONFIG_FILE}")
    if changed:
        before, epochs = read_config(output / CONFIG_FILE, type(config)).train.epochs, config.train.epochs
        log.info(
            "%s trains on to %s epochs, it was begun for %s: from here the learning rate is that of %s epochs, and the "
            "result not quite that of %s from the beginning",
            *(output, *(number or "auto" for number in (epochs, before, epochs, epochs))),
        )
    return True


# What may differ: where things are, how they are looked at, and how the result is scored.
BESIDE_THE_TRAINING = (
    "data.root",
    "data.also",
    "data.workers",
    "data.strict_counts",
    "data.on_error",
    "train.eval_every",
    "train.patience",
)


def changed_options(folder: Path, config: Config) -> list[str]:
    """In which options that what is trained depends on a config differs from that of the run in a folder."""
    names = differences(read_config(folder / CONFIG_FILE, type(config)), config)
    return [name for name in names if name not in BESIDE_THE_TRAINING and not name.startswith("eval.")]

"""Command `reid-train`: a dataset and a recipe to a trained model.

reid-train --dataset msmt17 --data-root DIR
reid-train --dataset toy --epochs 2
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from reid import cli
from reid.config import ReidConfig
from reid.data.datasets import DATASETS, open_dataset
from reid.distributed.world import ALONE, World
from reid.training.runs import add_training_flags, require_own_folder, run_training


def train(
    config: ReidConfig, output: Path, *, device: str = "auto", resume: bool = False, world: World = ALONE
) -> list[dict[str, Any]]:
    """Train a Re-ID model into the run folder `output`; return the record of every epoch.

    Raises FileExistsError when `output` already holds a run and `resume` is not asked for; what reading the dataset,
    the weights or the images raises; `reid.training.runs.Interrupted` when stopped by a signal, with the state saved.
    Every process of `world` (`reid.distributed.world.joined`) calls this alike.
    """
    goes_on = world.on_main(lambda: require_own_folder(config, output, resume))
    dataset = world.on_main(lambda: open_dataset(config.data))
    # Only now, because torch and timm take seconds to import.
    from reid.device import choose_device
    from reid.training.reidentification import plan_training
    from reid.training.run import run

    chosen = choose_device(device, world.local_rank)
    return run(plan_training(config, dataset, chosen, world), output, device=chosen, resume=goes_on, world=world)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-train",
        description="Train a re-identification model with Dual Cross-Attention Learning (DCAL). With --dataset and "
        "--data-root alone it runs the recipe of that dataset: the paper's, or for csv and folder one for hundreds of "
        "photos.",
        epilog="KEY=VALUE sets any option by its dotted name, or by its last part where that is unique, for example "
        "train.lr=0.01, erasing=0, version=v2, strict_counts=true. A run folder's config.yaml lists all of them.",
    )
    add_training_flags(parser, ReidConfig, DATASETS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `reid-train`; returns its exit code."""
    return cli.run(lambda arguments: run_training(arguments, ReidConfig, DATASETS, train), _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())

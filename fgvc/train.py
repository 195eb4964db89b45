"""Command `fgvc-train`: fine-grained categories and a recipe to a trained classifier.

fgvc-train --dataset cub --data-root DIR
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from fgvc.datasets import DATASETS, open_dataset
from reid import cli
from reid.config import FgvcConfig
from reid.distributed.world import ALONE, World
from reid.training.runs import add_training_flags, require_own_folder, run_training


def train(
    config: FgvcConfig, output: Path, *, device: str = "auto", resume: bool = False, world: World = ALONE
) -> list[dict[str, Any]]:
    """Train a classifier into the run folder `output`; return the record of every epoch.

    Raises FileExistsError when `output` already holds a run and `resume` is not asked for; what reading the dataset,
    the weights or the images raises; `reid.training.runs.Interrupted` when stopped by a signal, with the state saved.
    Every process of `world` (`reid.distributed.world.joined`) calls this alike.
    """
    goes_on = world.on_main(lambda: require_own_folder(config, output, resume))
    dataset = world.on_main(lambda: open_dataset(config.data))
    # Only now, because torch and timm take seconds to import.
    from fgvc.training import plan_training
    from reid.device import choose_device
    from reid.training.run import run

    chosen = choose_device(device, world.local_rank)
    return run(plan_training(config, dataset, chosen, world), output, device=chosen, resume=goes_on, world=world)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fgvc-train",
        description="Train a classifier of fine-grained categories with Dual Cross-Attention Learning (DCAL). With "
        "--dataset and --data-root alone it runs the paper's recipe. The images of a batch are each other's partners "
        "(PWCA), so those that do not fill an epoch's last batch are left out, others in every epoch.",
        epilog="KEY=VALUE sets any option by its dotted name, or by its last part where that is unique, for example "
        "train.lr=0.0001, label_smoothing=0.1, level=family, strict_counts=true. A run folder's config.yaml lists all "
        "of them. folder is a set of your own: train/CLASS/*.jpg and test/CLASS/*.jpg.",
    )
    add_training_flags(parser, FgvcConfig, DATASETS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `fgvc-train`; returns its exit code."""
    return cli.run(lambda arguments: run_training(arguments, FgvcConfig, DATASETS, train), _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())

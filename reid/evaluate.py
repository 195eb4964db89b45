"""Command `reid-eval`: a checkpoint, or stored features, to mAP, Rank-k and mINP with the protocol beside them."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from reid import cli, compare
from reid.config import parse_override
from reid.data.datasets import choose_protocol
from reid.distributed.world import World, joined
from reid.evaluation.protocol import model_name
from reid.evaluation.run import Evaluated, embed, evaluate_stored, judge
from reid.evaluation.run import evaluate as evaluate
from reid.inference.pretrained import ModelSource, Pretrained, add_arguments, chosen_model
from reid.names import Features

if TYPE_CHECKING:
    from reid.retrieval.calibration import Calibration

log = logging.getLogger("reid")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-eval",
        description="Evaluate a trained model, a network as others trained it, or stored features, by the field's "
        "protocol: mAP, Rank-k and mINP. "
        "Gallery images with the query's identity and camera are not counted (junk=camera), nor those of its sequence "
        "(junk=sequence), unless junk=none. `reid-eval compare A.json B.json` tells a difference from noise.",
        epilog="KEY=VALUE sets any option of the groups data and eval, for example junk=none, ap=trapezoid, "
        "gallery=single, flip_test=true, query_expansion=5, rerank_k1=30, version=v2 or on_error=skip.",
    )
    add_arguments(parser)
    parser.add_argument(
        "--from-features",
        metavar="FILE.npz",
        type=Path,
        help="score stored features instead, a file or a folder of .npy; needs no model",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME[:VERSION]",
        action="append",
        default=[],
        help="evaluate on this set (default: the one it was trained on); given several times, on each",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        action="append",
        default=[],
        help="the folder, or CSV file, that holds the dataset; once for each --dataset, in their order",
    )
    parser.add_argument("--columns", metavar="NAME=HEADING,...", help="headings of the CSV file, as path=image_path")
    cli.add_patterns(parser)
    parser.add_argument("--features", choices=get_args(Features), help="tokens of the embedding (default: concat)")
    parser.add_argument(
        "--rerank",
        nargs="?",
        const="zhong",
        type=_preset,
        metavar="PRESET",
        help="k-reciprocal re-ranking: zhong (k1=20 k2=6 lambda=0.3, the default) or transreid (50, 15, 0.3)",
    )
    parser.add_argument(
        "--verification",
        action="store_true",
        help="also tell how well scores separate: TPR at FPR, equal error rate, unknown queries rejected",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit scores to probabilities on these identities, and write calibration.json beside the checkpoint",
    )
    parser.add_argument("--json", metavar="FILE", help="write the metrics as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html, a report that opens from disk, and its figures"
    )
    parser.add_argument(
        "--save-features", metavar="FILE.npz", type=Path, help="write the embeddings with identities and cameras"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of data and eval")
    return parser


def _preset(text: str) -> str:
    if text not in ("zhong", "transreid"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no preset; expected zhong or transreid (before KEY=VALUE, write --rerank zhong)"
        )
    return text


def _command(arguments: argparse.Namespace) -> None:
    evaluations: list[Evaluated] = []
    model = chosen_model(arguments)
    with joined(arguments.device) as world:
        sets = world.on_main(lambda: _asked(arguments, model))
        try:
            for overrides in sets:
                evaluations += _evaluate_one(arguments, model, overrides, world)
        finally:  # what is evaluated is not lost to what fails after it
            if evaluations and arguments.json:
                values = [
                    {"model": _model_name(model, evaluated), **evaluated.result.as_full_json()}
                    for evaluated in evaluations
                ]
                cli.write_json(arguments.json, values[0] if len(values) == 1 else values)
        world.on_main(lambda: _keep(arguments, model, evaluations))


def _asked(arguments: argparse.Namespace, model: ModelSource | None) -> list[dict[str, Any]]:
    """The options of each evaluation; raises before the work what would make it worthless."""
    if (model is None) == (arguments.from_features is None):
        raise cli.UsageError("give either --checkpoint RUN, or --backbone NAME, or --from-features FILE.npz")
    if arguments.calibrate and not arguments.checkpoint:
        raise cli.UsageError("--calibrate writes beside a checkpoint; give --checkpoint RUN")
    flags = {
        "eval.features": arguments.features,
        "eval.rerank": arguments.rerank,
        "data.columns": arguments.columns,
        "data.include": arguments.include or None,
        "data.exclude": arguments.exclude or None,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    overrides |= dict(parse_override(text) for text in arguments.options)
    sets = _datasets(arguments.dataset, arguments.data_root)
    if len(sets) > 1 and (arguments.save_features or arguments.calibrate):
        raise cli.UsageError(f"--save-features and --calibrate take one dataset, given {len(sets)}")
    cli.require_places(arguments.report, json=arguments.json, save_features=arguments.save_features)
    return [{**overrides, **chosen} for chosen in sets]


def _keep(arguments: argparse.Namespace, model: ModelSource | None, evaluations: Sequence[Evaluated]) -> None:
    """Write what else was asked for."""
    calibration: Calibration | None = None
    for index, evaluated in enumerate(evaluations, start=1):
        if arguments.save_features:
            evaluated.features.save(arguments.save_features)
        if arguments.calibrate:
            from reid.evaluation.calibrate import calibrate

            assert evaluated.dataset is not None and evaluated.checkpoint is not None
            calibration = calibrate(
                arguments.checkpoint,
                evaluated.checkpoint,
                evaluated.result,
                evaluated.features,
                evaluated.dataset,
                evaluated.options.false_alarm,
            )
        if arguments.report:
            name = f"{index}-{evaluated.result.protocol['dataset']}" if len(evaluations) > 1 else ""
            _report(arguments.report / name, model, evaluated, calibration)


def _evaluate_one(
    arguments: argparse.Namespace, model: ModelSource | None, overrides: Mapping[str, Any], world: World
) -> list[Evaluated]:
    """Evaluate, and print the result unless the JSON is what is printed; only the main process has one."""
    verification = arguments.verification or arguments.calibrate or arguments.report is not None
    if model is not None:
        embedded = embed(model, overrides, device=arguments.device, world=world)
        finish = partial(judge, embedded, verification=verification)
    else:
        stored = arguments.from_features
        finish = partial(evaluate_stored, stored, overrides, device=arguments.device, verification=verification)
    done: list[Evaluated] = []

    def show() -> None:
        done.append(finish())
        if arguments.json != "-":
            print(done[0].result)

    world.on_main(show)
    return done


def _report(folder: Path, model: ModelSource | None, evaluated: Evaluated, calibration: "Calibration | None") -> None:
    from reid.report.page import write_report  # matplotlib takes a second to import

    if model is not None and not isinstance(model, Pretrained) and calibration is None:
        calibration = _kept_calibration(model, evaluated.result.protocol)
    page = write_report(
        folder,
        evaluated.result,
        evaluated.features,
        evaluated.distances,
        model=_model_name(model, evaluated),
        embedder=evaluated.embedder,
        calibration=calibration,
    )
    log.info("report: %s", page)


def _model_name(model: ModelSource | None, evaluated: Evaluated) -> str:
    """What the title of a report says of the method and the network."""
    if evaluated.checkpoint is None:
        return "Stored features"
    return str(model) if isinstance(model, Pretrained) else model_name(evaluated.checkpoint.config)


def _kept_calibration(checkpoint: Path | str, protocol: Mapping[str, Any]) -> "Calibration | None":
    """The calibration beside the checkpoint, if it was made for the embeddings that `protocol` describes."""
    from reid.evaluation.calibrate import load_calibration

    try:
        kept = load_calibration(checkpoint)
    except ValueError as error:
        log.warning("warning: the report leaves the calibration out: %s", error)
        return None
    if kept is None:
        return None
    others = [name for name in ("features", "flip_test") if kept.protocol.get(name) != protocol[name]]
    if others:
        log.warning("warning: the report leaves the calibration out: it was made with another %s", " and ".join(others))
        return None
    return kept.calibration


def _datasets(names: Sequence[str], roots: Sequence[str]) -> list[dict[str, Any]]:
    """The data options of each evaluation: NAME or NAME:VERSION with the root given in the same place."""
    if not names:
        if len(roots) > 1:
            raise cli.UsageError(f"--data-root is given {len(roots)} times and --dataset never; expected one of each")
        return [{"data.root": root} for root in roots] or [{}]
    if len(roots) not in (0, len(names)):
        raise cli.UsageError(f"--dataset is given {len(names)} times, --data-root {len(roots)} times; expected as many")
    sets: list[dict[str, Any]] = []
    for name, root in zip_longest(names, roots):
        dataset, _, version = name.partition(":")
        try:
            choose_protocol(dataset, version=version or None)
        except ValueError as error:
            raise cli.UsageError(str(error)) from error
        options = {"data.dataset": dataset, "data.version": version or None, "data.root": root}
        sets.append({key: value for key, value in options.items() if value is not None})
    return sets


def main(argv: list[str] | None = None) -> int:
    """Run `reid-eval`; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())

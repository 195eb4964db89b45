"""A model's calibration: fitted to an evaluation, kept beside the model, and good for that model alone."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reid.config import ReidConfig
from reid.data.samples import ReidDataset
from reid.evaluation.features import Features
from reid.evaluation.scoring import Result
from reid.files import model_file, write_text, write_whole
from reid.inference.checkpoint import Checkpoint
from reid.inference.exported import model_fingerprint
from reid.names import MODEL_FILE
from reid.retrieval.calibration import Calibration, fit_calibration

log = logging.getLogger("reid")

FEW_IDENTITIES = 100


@dataclass(frozen=True, eq=False)
class ModelCalibration:
    """A calibration with the embeddings it holds for: the model's fingerprint and the protocol of the evaluation."""

    calibration: Calibration
    model: str
    protocol: dict[str, Any]


def calibrate(
    path: Path | str,
    checkpoint: Checkpoint[ReidConfig],
    result: Result,
    features: Features,
    dataset: ReidDataset,
    false_alarm: float,
) -> Calibration:
    """Fit a calibration to a verified result and write `calibration.json`, and its plot, beside the model at `path`.

    `checkpoint` is what that model says of itself. Raises ValueError where queries show individuals that the dataset's
    training images show too, for fewer than 10 individuals, and for a result without verification.
    """
    from reid.report.figures import draw_reliability, png  # matplotlib takes a second to import

    if result.verification is None:
        raise ValueError("calibration needs the verification figures, which these queries and gallery do not give")
    queried = set(features.query_ids.tolist())
    names = {identity: dataset.identity_name(identity) for identity in queried}
    seen = sorted(queried & {sample.identity for sample in dataset.train})
    if seen:
        raise ValueError(
            f"{dataset.name}: {len(seen)} of the query identities are training identities too, such as "
            f"{names[seen[0]]}; a calibration needs others, because the scores of those are too good"
        )
    namesakes = sorted(set(names.values()) & set(checkpoint.classes))
    if namesakes and checkpoint.protocol.get("dataset") == dataset.name:
        log.warning(
            "warning: %d query identities are called like training identities of the model, such as %s; if they are "
            "the same individuals, the calibration is too good to be true",
            len(namesakes),
            namesakes[0],
        )
    best = result.verification
    calibration = fit_calibration(
        best.best_positive,
        best.best_negative,
        features.query_ids,
        features.gallery_ids,
        false_alarm_rate=false_alarm,
    )
    if not best.open_set.measurable:
        log.warning(
            "warning: %d queries cannot measure a false-alarm rate of %g: above the score of `known` there was none, "
            "which is all that can be said",
            best.open_set.impostor_trials,
            false_alarm,
        )
    if calibration.identities < FEW_IDENTITIES:
        log.warning(
            "warning: the calibration rests on %d identities only; with fewer than %d, read its probabilities as rough",
            calibration.identities,
            FEW_IDENTITIES,
        )
    file = model_file(path)
    values = {"model": model_fingerprint(file), "protocol": dict(result.protocol), "calibration": calibration.as_json()}
    target = _calibration_file(file)
    write_text(target, json.dumps(values, indent=2) + "\n")
    picture = png(partial(draw_reliability, bins=calibration.reliability))

    def write(temporary: Path) -> None:
        temporary.write_bytes(picture)

    write_whole(target.with_suffix(".png"), write)
    log.info(
        "calibration of %d queries of %d identities in %s: known from score %.6f, unknown below %.6f",
        calibration.queries,
        calibration.identities,
        target,
        calibration.known_from,
        calibration.unknown_below,
    )
    return calibration


def _calibration_file(model: Path) -> Path:
    """`calibration.json` beside a run's model, and `NAME.calibration.json` beside a model file of another name.

    An export beside its model finds the same, and whatever it finds must be of that model.
    """
    usual = model.stem == Path(MODEL_FILE).stem
    return model.with_name("calibration.json" if usual else f"{model.stem}.calibration.json")


def load_calibration(checkpoint: Path | str) -> ModelCalibration | None:
    """Read the calibration beside a model; None where there is none.

    Raises ValueError for a damaged file, and for one that was made with other weights.
    """
    file = model_file(checkpoint)
    path = _calibration_file(file)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = ModelCalibration(Calibration.from_json(values["calibration"]), values["model"], values["protocol"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as a calibration ({' '.join(str(error).split())})") from error
    if found.model != model_fingerprint(file):
        raise ValueError(f"{path}: made with other weights than {file.name} now holds; run reid-eval --calibrate again")
    return found

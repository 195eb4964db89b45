"""What scores a model while it trains, which of its epochs is kept, and when it has trained enough."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from reid.distributed.world import ALONE, World
from reid.models.dcal import DCAL
from reid.names import BEST_FILE, MODEL_FILE
from reid.training.state import Position

log = logging.getLogger("reid")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation during training gives: figures for the log, and the score that makes a checkpoint the best."""

    figures: dict[str, Any]
    score: float
    summary: str


Score = Callable[[DCAL], Evaluation]


@dataclass(frozen=True)
class Judge:
    """What scores the models of a training into `folder`, and keeps the best.

    `save(model, epoch, file name)` writes one. `test` scores one for the record and `frozen` the weights that a
    training starts from, for whoever reads the scores after it. Where `validation` scores one on identities held out of
    training, it alone says which is best, the training stops after `patience` of its scores that are no better (0:
    never), and the test waits for the model that is kept.
    """

    folder: Path
    save: Callable[[DCAL, int, str], None]
    test: Score | None = None
    frozen: Score | None = None
    validation: Score | None = None
    patience: int = 0
    world: World = ALONE

    def begin(self, model: DCAL, position: Position) -> None:
        """Score a model that has not been trained."""
        if self.frozen is not None:
            found = self.frozen(model)
            position.frozen = found.score
            log.info("before training: %s", found.summary.strip())
        if self.validation is not None:
            found = self.validation(model)
            position.frozen_held_out = found.score
            log.info("before training, held out: %s", found.summary.strip())
            self._keep(model, 0, found.score, position)

    def ended(self, position: Position) -> bool:
        """Whether the training has gone on for long enough without a better score."""
        return 0 < self.patience <= position.waited

    def judge(self, model: DCAL, epoch: int, position: Position, *, last: bool) -> dict[str, Any]:
        """What the record says of the model after so many epochs; `last` if no more come in any case."""
        self.world.on_main(partial(self.save, model, epoch, MODEL_FILE))
        if self.validation is None:
            return {} if self.test is None else self._test(model, epoch, position, self.test)
        found = self.validation(model)
        before = 0.0 if position.frozen_held_out is None else position.frozen_held_out
        log.info("  held out: %s  (before training %.1f)", found.summary.strip(), 100 * before)
        record: dict[str, Any] = {"held_out": {"score": found.score, "frozen": before}}
        if found.score > position.best:
            self._keep(model, epoch, found.score, position)
        else:
            position.waited += 1
        if self.ended(position) and not last:
            log.info("stopping: %d evaluations on the identities held out were no better", position.waited)
        if last or self.ended(position):
            model = self._best(model, epoch, position)
            record["kept"] = position.best_epoch
            if self.test is not None:
                record |= self._test(model, position.best_epoch, position, self.test)
        return record

    def _keep(self, model: DCAL, epoch: int, score: float, position: Position) -> None:
        position.best, position.best_epoch, position.waited = score, epoch, 0
        self.world.on_main(partial(self.save, model, epoch, BEST_FILE))

    def _test(self, model: DCAL, epoch: int, position: Position, test: Score) -> dict[str, Any]:
        found = test(model)
        before = "" if position.frozen is None else f"  (before training {100 * position.frozen:.1f})"
        log.info("  %s%s", found.summary, before)
        if self.validation is None and found.score > position.best:
            self._keep(model, epoch, found.score, position)
        compared = {} if position.frozen is None else {"frozen": position.frozen, "score": found.score}
        return {"evaluation": found.figures, **compared}

    def _best(self, model: DCAL, epoch: int, position: Position) -> DCAL:
        """The best model, now the run's, where `model` is that of an epoch."""
        best = position.best_epoch
        if best == epoch:
            return model
        if best == 0:
            log.warning(
                "warning: training made nothing better: no epoch beats the weights it started from on the identities "
                "held out, %.1f; they are kept; try a lower train.lr, or more images",
                100 * position.best,
            )
        else:
            log.info("epoch %d is kept, the best on the identities held out: %.1f", best, 100 * position.best)
        tensors = self.world.on_main(lambda: load_file(self.folder / BEST_FILE))
        model = copy.deepcopy(model)
        model.load_state_dict(tensors)
        self.world.on_main(partial(self.save, model, best, MODEL_FILE))
        return model


def tell_if_worse(position: Position) -> None:
    """Warn where the weights that a training started from score better than what came of it."""
    last = position.records[-1] if position.records else {}
    if position.frozen is None or "score" not in last or last["score"] >= position.frozen:
        return
    on_test = position.frozen_held_out is None  # which says what the best is, else
    best = (
        f"; the best evaluation, {100 * position.best:.1f}, is kept as {BEST_FILE}"
        if on_test and position.best > position.frozen
        else ""
    )
    log.warning(
        "warning: training made it worse: %.1f after it, %.1f before%s; try a lower train.lr, or more images",
        100 * last["score"],
        100 * position.frozen,
        best,
    )

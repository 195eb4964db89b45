"""The training loop, used by every task: batches in, losses down, state saved, metrics written."""

import json
import logging
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from reid.config import TrainOptions
from reid.data.loaders import Batch, TrainingLoader
from reid.data.preprocessing import AS_SHOWN, Decoding
from reid.device import choose_precision, peak_memory_mib
from reid.distributed.world import ALONE, World
from reid.files import write_text
from reid.models.cross_attention import derangement
from reid.models.dcal import DCAL
from reid.names import BRANCHES, METRICS_FILE, STATE_FILE, counted
from reid.progress import duration, track
from reid.training.judging import Judge, tell_if_worse
from reid.training.losses import BranchLoss, branch_losses, total_loss
from reid.training.optim import build_optimizer, learning_rate_factor, set_learning_rate
from reid.training.runs import Interrupted
from reid.training.state import TrainingState

log = logging.getLogger("reid")

SECONDS_BETWEEN_STATES = 5.0


class Step(nn.Module):
    """Images to losses: all that is differentiated, and what several processes do together."""

    def __init__(self, model: DCAL, loss: BranchLoss, precision: torch.dtype, world: World, *, compiled: bool) -> None:
        super().__init__()
        self.model = cast(nn.Module, torch.compile(model)) if compiled else model
        self.loss = loss
        self.precision = precision
        self.gather = world.gather_batch if world.size > 1 else None

    def forward(
        self, images: Tensor, labels: Tensor, partner: Tensor | None, sides: Tensor | None
    ) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """The parts of every branch's loss and their total, of the whole batch.

        `labels` (B,) are the whole batch's; the others, as for `DCAL`, are of this process's share.
        """
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, partner, sides, gather=self.gather)
        parts = branch_losses(output, labels, self.loss)
        return parts, total_loss(parts, getattr(self.model, "log_variances", None))


def fit(
    model: DCAL,
    loader: TrainingLoader,
    branch_loss: BranchLoss,
    options: TrainOptions,
    folder: Path,
    *,
    device: torch.device,
    judge: Judge,
    resume: bool = False,
    world: World = ALONE,
) -> list[dict[str, Any]]:
    """Train `model` as `options` say; return a record for each epoch, as in metrics.jsonl.

    `model` and `branch_loss` are on `device`. Every `eval_every` epochs and after the last, `judge` scores and writes
    the model. With `resume` the run goes on where the state in `folder` ends. SIGINT and SIGTERM stop after the step
    under way, with the state saved.

    Raises FloatingPointError for a loss that is not finite, naming the batch's images; Interrupted when stopped.
    """
    state = start(model, branch_loss, options, device, loader.fingerprint, world, loader.how)
    if resume:
        state.restore(folder / STATE_FILE)
        done = counted(state.position.epoch, "epoch"), counted(state.position.step, "step")
        log.info("resuming after %s and %s", *done)
    position, steps = state.position, len(loader)
    precision = choose_precision(options.precision, device)
    step = world.distribute(Step(model, branch_loss, precision, world, compiled=options.compile), device)
    final = cast(DCAL, state.averaged.module) if state.averaged else model
    if not resume:
        judge.begin(final, position)
    elif judge.ended(position) and position.epoch < options.epochs:
        log.info("the training had stopped after %d epochs; train.patience=0 goes on", position.epoch)
    epochs = position.epoch if judge.ended(position) else options.epochs
    saved = -math.inf
    begun, steps_before = time.monotonic(), position.epoch * steps + position.step

    with stop_requested(world) as stop, event_writer(folder, position.epoch + 1, world) as board:
        for epoch in range(position.epoch, epochs):
            first, epoch_begun = position.step, time.monotonic()
            train_epoch(step, state, loader, options, stop)
            if position.step < steps:
                state.save(folder / STATE_FILE)
                raise Interrupted(
                    f"saved after {counted(epoch, 'epoch')} and {position.step} of {counted(steps, 'step')}"
                )

            record = {
                "epoch": epoch + 1,
                "epochs": options.epochs,
                **epoch_losses(position.sums, steps),
                "log_variances": log_variances(model),
                "lr": options.lr * rate_factor(epoch + (steps - 1) / steps, options, steps),
                "images_per_second": (steps - first) * options.batch_size / (time.monotonic() - epoch_begun),
                "seconds": time.monotonic() - epoch_begun,
                "peak_memory_mib": peak_memory_mib(device),
            }
            per_step = (time.monotonic() - begun) / max(1, (epoch + 1) * steps - steps_before)
            log.info(summary(record, options.epochs, per_step * steps * (options.epochs - epoch - 1)))
            last = epoch + 1 == options.epochs
            if last or (options.eval_every and (epoch + 1) % options.eval_every == 0):
                # An evaluation can take longer than a kill's grace, or meet a bad image.
                state.save(folder / STATE_FILE)
                record |= judge.judge(final, epoch + 1, position, last=last)
                last = last or judge.ended(position)
            position.epoch, position.step, position.sums = epoch + 1, 0, {}
            position.records.append(record)
            if board is not None:
                write_text(folder / METRICS_FILE, "".join(json.dumps(record) + "\n" for record in position.records))
                write_events(board, record)
            stopped = world.any(stop.requested)
            # Of a small set an epoch takes less than to write the state.
            if world.any(last or stopped or time.monotonic() - saved >= SECONDS_BETWEEN_STATES):
                state.save(folder / STATE_FILE)
                saved = time.monotonic()
            if stopped and not last:
                raise Interrupted(f"saved after {counted(epoch + 1, 'epoch')}")
            if last:
                break
    tell_if_worse(position)
    return position.records


def train_epoch(
    train_step: Callable[..., Any],
    state: TrainingState,
    loader: TrainingLoader,
    options: TrainOptions,
    stop: "Stop",
) -> None:
    """Train from where `state.position` stands to the epoch's end, or to the update after a stop was requested.

    `train_step` is a `Step`, distributed or not. Raises FloatingPointError as `fit` does.
    """
    model, position, optimizer, scaler = state.model.train(), state.position, state.optimizer, state.scaler
    world = state.world
    device, epoch, first, steps = state.device, position.epoch, position.step, len(loader)
    sums = {name: torch.tensor(value, device=device) for name, value in position.sums.items()}
    previous: tuple[Tensor, Batch] | None = None
    batches = track(loader.epoch(epoch, skip=first), steps, f"epoch {epoch + 1}/{options.epochs}", first)
    for step, batch in enumerate(batches, first):
        set_learning_rate(optimizer, rate_factor(epoch + step / steps, options, steps))
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        sides = None if batch.sides is None else batch.sides.to(device, non_blocking=True)
        partner = None
        if model.pairs:
            whole = draw_partners(len(labels), (options.seed, epoch, step), world.size)
            partner = (whole[world.share] // world.size).to(device, non_blocking=True)
        group = min(options.accumulate, steps - step // options.accumulate * options.accumulate)
        update = (step + 1) % options.accumulate == 0 or step + 1 == steps
        apart = isinstance(train_step, DistributedDataParallel) and not update
        with cast(DistributedDataParallel, train_step).no_sync() if apart else nullcontext():
            parts, loss = train_step(images, labels, partner, sides)
            scaler.scale(loss / group).backward()
        if update:
            if options.clip_norm:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(chain(model.parameters(), state.loss.parameters()), options.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if state.averaged:
                state.averaged.update_parameters(model)
        for name, value in flat_losses(parts, loss):
            sums[name] = sums.get(name, 0) + value.detach()
        position.step = step + 1
        # Checked one step late: asking at once would have a GPU stand idle in every step.
        require_finite(previous, loader)
        previous = (loss.detach(), batch)
        if update and world.any(stop.requested):
            break
    require_finite(previous, loader)
    position.sums = {name: value.item() for name, value in sums.items()}


def start(
    model: DCAL,
    loss: BranchLoss,
    options: TrainOptions,
    device: torch.device,
    data: str,
    world: World = ALONE,
    how: Decoding = AS_SHOWN,
) -> TrainingState:
    """The state of a training that has not begun, on the data that fingerprint names; seeds torch's random numbers.

    `how` as for `read_image`.
    """
    if options.loss_weights == "equal" and hasattr(model, "log_variances"):
        model.log_variances.requires_grad_(False)
    optimizer = build_optimizer(
        model,
        options.optimizer,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        bias_lr_factor=options.bias_lr_factor,
        fused=device.type == "cuda",
        loss=loss,
    )
    averaged = None
    if options.ema:
        averaged = AveragedModel(model, multi_avg_fn=moving_average(options.ema), use_buffers=True)
    torch.manual_seed(options.seed if world.main else seed_of(options.seed, world.rank))
    scaled = choose_precision(options.precision, device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    return TrainingState(model, loss, optimizer, scaler, averaged, device, data, world, how)


def moving_average(decay: float) -> Callable[..., None]:
    """torch's exponential moving average for `AveragedModel`, which leaves counts and indices as they are."""
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], count: Any) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:  # of whole numbers the average falls short and is cut off: 11 becomes 10 at a decay of 0.9999
            torch._foreach_copy_(averaged, current)

    return update


def rate_factor(epoch: float, options: TrainOptions, steps: int) -> float:
    """The learning rate's factor at a fractional epoch, each of so many steps; warm-up takes at most a quarter."""
    warmup = options.warmup_epochs if options.warmup_steps is None else options.warmup_steps / steps
    return learning_rate_factor(
        epoch,
        epochs=options.epochs,
        warmup_epochs=min(warmup, options.epochs / 4),
        warmup_start=options.warmup_start,
        floor=options.lr_floor,
    )


def draw_partners(count: int, entropy: tuple[int, int, int], shares: int = 1) -> Tensor:
    """Each image's partner in the batch, (count,) int64: a derangement, fresh in every (seed, epoch, step).

    Of a batch that `shares` processes divide as `World.share` does, partners are of the same share.
    """
    generator = torch.Generator().manual_seed(seed_of(*entropy))
    drawn = [share + shares * derangement(count // shares, generator) for share in range(shares)]
    return torch.stack(drawn, dim=1).flatten()


def seed_of(*entropy: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def require_finite(previous: tuple[Tensor, Batch] | None, loader: TrainingLoader) -> None:
    """Raise FloatingPointError, naming the images, if a step's loss is NaN or infinite."""
    if previous is None or torch.isfinite(previous[0]):
        return
    paths = ", ".join(str(loader.samples[position].path) for position in previous[1].positions)
    raise FloatingPointError(
        f"the loss is {previous[0].item()}; try a lower train.lr, train.clip_norm=1 or train.precision=float32. "
        f"Images of the batch: {paths}"
    )


@dataclass
class Stop:
    """Whether a signal asked the training to stop."""

    requested: bool = False


@contextmanager
def stop_requested(world: World) -> Iterator[Stop]:
    """Note SIGINT and SIGTERM instead of dying in the middle of a step; a second one ends at once.

    Of several processes torchrun ends those that do not stop by themselves, and its second signal may be the first's
    echo.
    """
    stop = Stop()

    def note(number: int, frame: Any) -> None:
        if stop.requested and world.size > 1:
            return
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        log.info("stopping after this step%s", " (again to stop at once)" if world.size == 1 else "")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def event_writer(folder: Path, epoch: int, world: World) -> AbstractContextManager[SummaryWriter | None]:
    """TensorBoard's writer of a run from an epoch on, in the main process alone."""
    return SummaryWriter(str(folder), purge_step=epoch) if world.main else nullcontext()


def flat_losses(parts: dict[str, dict[str, Tensor]], loss: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The total and every part of every branch, named `loss` and `branch/part`."""
    yield "loss", loss
    for branch, named in parts.items():
        for part, value in named.items():
            yield f"{branch}/{part}", value


def epoch_losses(sums: dict[str, float], steps: int) -> dict[str, Any]:
    """Means over an epoch's steps: `loss`, and `losses` by branch and part."""
    losses: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in sums.items():
        if name != "loss":
            branch, part = name.split("/")
            losses[branch][part] = value / steps
    return {"loss": sums["loss"] / steps, "losses": dict(losses)}


def log_variances(model: DCAL) -> dict[str, float]:
    """Each branch's learned w by name; none for a baseline."""
    if not hasattr(model, "log_variances"):
        return {}
    return dict(zip(BRANCHES[model.method], model.log_variances.tolist(), strict=True))


def summary(record: dict[str, Any], epochs: int, seconds_left: float) -> str:
    """An epoch in one line."""
    branches = "  ".join(f"{branch} {sum(parts.values()):.3f}" for branch, parts in record["losses"].items())
    return (
        f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.3f}  {branches}  lr {record['lr']:.2g}  "
        f"{record['images_per_second']:.0f} img/s  {duration(record['seconds'])}"
        + (f", about {duration(seconds_left)} left" if record["epoch"] < epochs else "")
    )


def write_events(board: SummaryWriter, record: dict[str, Any]) -> None:
    """An epoch's record as TensorBoard scalars."""
    epoch = record["epoch"]
    scalars = {name: record[name] for name in ("loss", "lr", "images_per_second", "peak_memory_mib")}
    scalars |= {f"loss/{branch}/{part}": v for branch, parts in record["losses"].items() for part, v in parts.items()}
    scalars |= {f"log_variance/{branch}": value for branch, value in record["log_variances"].items()}
    scalars |= {f"evaluation/{k}": v for k, v in record.get("evaluation", {}).items() if isinstance(v, float)}
    scalars |= {f"held_out/{k}": v for k, v in record.get("held_out", {}).items()}
    for name, value in scalars.items():
        board.add_scalar(name, value, epoch)
    board.flush()

"""Where a training stands: everything that an exact resume needs, in one file."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from reid.config import ConfigError
from reid.data.preprocessing import AS_SHOWN, Decoding
from reid.distributed.world import ALONE, World
from reid.files import write_whole
from reid.models.dcal import DCAL
from reid.names import counted
from reid.training.losses import BranchLoss


@dataclass
class Position:
    """How far a run is.

    `epoch` and `step` count what is done, `sums` holds this epoch's losses so far, `records` a record for each epoch
    done, `best` the best score so far, of the epoch `best_epoch`, and `waited` how many evaluations came after it;
    `ended` says that these were enough. `frozen` is the score of the weights it started from, `frozen_held_out` that on
    the identities held out, None where nobody asked.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    frozen: float | None = None
    best_epoch: int = 0
    waited: int = 0
    ended: bool = False
    frozen_held_out: float | None = None


@dataclass
class TrainingState:
    """What changes while a model trains, and what it trains on.

    `averaged` is the moving average of the weights, when there is one; `data` the fingerprint of images and labels;
    `how` they are decoded. All of it is the same in every process of `world`, except the random states.
    """

    model: DCAL
    loss: BranchLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None
    device: torch.device
    data: str
    world: World = ALONE
    how: Decoding = AS_SHOWN
    position: Position = field(default_factory=Position)

    def save(self, path: Path) -> None:
        """Write the state whole, with the random states of all processes; raises OSError when it cannot be written."""
        random = self.world.gather(self._random())
        self.world.on_main(lambda: self._write(path, random))

    def _write(self, path: Path, random: list[dict[str, Tensor]]) -> None:
        state = {
            "data": self.data,
            "decoding": asdict(self.how),
            "position": vars(self.position),
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "random": random,
        }
        write_whole(path, lambda temporary: torch.save(state, temporary))

    def _random(self) -> dict[str, Tensor]:
        """The states of this process's random numbers by device."""
        states = {"cpu": torch.get_rng_state()}
        return {**states, "cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else states

    def restore(self, path: Path) -> None:
        """Continue from a saved state; raises ValueError for a file that is damaged or of another model.

        It is exact where as many processes saved it. Other processes go on with random numbers of their own.
        """
        state: dict[str, Any] = self.world.on_main(lambda: _read(path))
        try:
            self.model.load_state_dict(state["model"])
            self.loss.load_state_dict(state.get("loss", {}))  # earlier states have none: no loss learned anything
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.averaged:
                self.averaged.load_state_dict(state["averaged"])
            self.position = Position(**state["position"])
            random = state["random"]
            if isinstance(random, Tensor):  # earlier states are of one process
                random = [{"cpu": random, **({"cuda": cuda} if (cuda := state["random_cuda"][:1]) else {})}]
            self._go_on(random)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise _unusable(path, error) from error

    def _go_on(self, random: list[dict[str, Tensor]]) -> None:
        rank = self.world.rank
        own = random[rank % len(random)]
        torch.set_rng_state(own["cpu"])
        if self.device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], self.device)
        if rank >= len(random):
            torch.manual_seed(int(torch.randint(2**62, ())) + rank)


def saved_decoding(path: Path) -> Decoding:
    """How a saved training decodes its images; raises ValueError for a damaged file."""
    state = _read(path, mmap=True)
    before = {"profiles": state.get("profiles", False)}  # or before there were such: states said only this, or nothing
    return Decoding(**state.get("decoding", before))


def require_resumable(path: Path, data: str, epochs: int) -> None:
    """Raise ValueError where a saved training is of other `data`, or has more epochs than it is to have."""
    state = _read(path, mmap=True)
    if state.get("data") != data:
        raise ValueError(f"{path}: the training images or their labels are not those the run began with")
    done, steps = state["position"]["epoch"], state["position"]["step"]
    if done + (steps > 0) > epochs:
        part = f" and {counted(steps, 'step')}" if steps else ""
        raise ConfigError(f"train.epochs={epochs}: the run has {counted(done, 'epoch')}{part} already")


def _read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _unusable(path, error) from error
    return state


def _unusable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path}: damaged, or the state of another run ({reason})")

"""Where a training stands: everything that an exact resume needs, in one file."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from reid.checkpoint import write_whole
from reid.losses import BranchLoss
from reid.models.dcal import DCAL


@dataclass
class Position:
    """How far a run is.

    `epoch` and `step` count what is done, `sums` holds this epoch's losses so far, `records` a record for each epoch
    done, `best` the best score so far.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf


@dataclass
class TrainingState:
    """What changes while a model trains, and what it trains on.

    `averaged` is the moving average of the weights, when there is one; `data` the fingerprint of images and labels.
    """

    model: DCAL
    loss: BranchLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None
    device: torch.device
    data: str
    position: Position = field(default_factory=Position)

    def save(self, path: Path) -> None:
        """Write the state whole, with all random states; raises OSError when it cannot be written."""
        state = {
            "data": self.data,
            "position": vars(self.position),
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write_whole(path, lambda temporary: torch.save(state, temporary))

    def restore(self, path: Path) -> None:
        """Continue from a saved state; raises ValueError for a file that is damaged or of another model."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            same_data = state["data"] == self.data
            self.model.load_state_dict(state["model"])
            self.loss.load_state_dict(state.get("loss", {}))  # earlier states have none: no loss learned anything
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.averaged:
                self.averaged.load_state_dict(state["averaged"])
            torch.set_rng_state(state["random"])
            if torch.cuda.is_available() and len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
            self.position = Position(**state["position"])
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: damaged, or the state of another run ({reason})") from error
        if not same_data:
            raise ValueError(f"{path}: the training images or their labels are not those the run began with")

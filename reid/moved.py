"""Where modules, and names of packages, went that had another place before: importing one tells."""

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "reid.calibrate": "reid.evaluation.calibrate",
    "reid.checkpoint": "reid.inference.checkpoint",
    "reid.classifier": "reid.inference.classifier",
    "reid.distributed.World": "reid.distributed.world.World",
    "reid.distributed.joined": "reid.distributed.world.joined",
    "reid.embedder": "reid.inference.embedder",
    "reid.exported": "reid.inference.exported",
    "reid.features": "reid.evaluation.features",
    "reid.loop": "reid.training.loop",
    "reid.losses": "reid.training.losses",
    "reid.optim": "reid.training.optim",
    "reid.predictor": "reid.inference.predictor",
    "reid.runs": "reid.training.runs",
    "reid.scoring": "reid.evaluation.scoring",
    "reid.sides": "reid.inference.side_info",
    "reid.state": "reid.training.state",
    "service.api.admin_schemas": "service.wire.admin_schemas",
    "service.api.schemas": "service.wire.schemas",
    "service.backup": "service.upkeep.backup",
    "service.batcher": "service.gallery.batcher",
    "service.images": "service.gallery.pictures",
    "service.importing": "service.bulk.importing",
    "service.index": "service.gallery.index",
    "service.jobs": "service.upkeep.jobs",
    "service.reconcile": "service.upkeep.reconcile",
    "service.reindex": "service.upkeep.reindex",
    "service.shards": "service.bulk.shards",
    "service.sources": "service.bulk.sources",
}


class MovedFinder:
    """The last that Python asks for a module: names the new place of what was moved."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for a module that has another place now; knows of no others."""
        if name in MOVED:
            # Not with its name: Python keeps such an error to itself at `from package import name`.
            raise ModuleNotFoundError(f"{name} is now {MOVED[name]}")
        return None

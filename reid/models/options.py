"""What can be chosen of the model, in one record."""

from dataclasses import dataclass

from reid.names import Method, PartnerStream, Task


@dataclass(frozen=True)
class DcalOptions:
    """The choices of `DCAL`, and of the backbone below it, that are no sizes.

    `method` names the branches and `head` the task that their heads are of. `ratio` in (0, 1] is the share of patches
    that GLCA chooses, which pictures of its attention show. `partner_stream` says which of the partner's streams PWCA
    reads. `drop_path` in [0, 1) is the stochastic depth of the last block; `stride`, smaller than the patch, makes
    patches overlap. `checkpointing` recomputes each block in the backward pass instead of keeping what it computed.
    TransReID's additions: `jigsaw` is the shift of its jigsaw module, 0 for none; `sides` how many combinations of
    camera and view have an embedding.
    """

    method: Method = "dcal"
    head: Task = "reid"
    ratio: float = 0.3
    partner_stream: PartnerStream = "sa"
    drop_path: float = 0.1
    stride: int | None = None
    checkpointing: bool = False
    jigsaw: int = 0
    sides: int = 0

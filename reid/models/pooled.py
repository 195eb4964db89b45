"""Networks of timm that are not opened for cross-attention, taken whole: those of convolutions, and other transformers.

B images, D width.
"""

import timm
import torch
from torch import Tensor, nn

from reid.models.backbones import architecture, resolve
from reid.models.dcal import Branch, DcalOutput
from reid.models.layers import TimmModule
from reid.models.layouts import NECK_OF_POOLED, POOL, Grid, State
from reid.names import Features, Method


class PooledNetwork(nn.Module):
    """A network whose one vector an image is what it pools: called as DCAL is in evaluation, and with one branch.

    With MiewID's `parts` that is the generalised mean of the last map, and a batch norm behind it.
    """

    method: Method = "baseline"
    classes = 0
    rolls_out = False
    # It has no tokens; an export tells of them all the same.
    grid: Grid = (1, 1)
    prefix = 0

    def __init__(self, backbone: TimmModule, width: int, parts: State | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = width
        self.pool: nn.Parameter | None = None
        self.neck: nn.BatchNorm1d | None = None
        if parts:
            self.pool = nn.Parameter(parts[POOL].flatten())
            self.neck = nn.BatchNorm1d(width)
            self.neck.load_state_dict(
                {name.removeprefix(NECK_OF_POOLED): parts[name] for name in parts if name != POOL}
            )

    def embedding_size(self, features: Features) -> int:
        """E, the numbers in an embedding of these features."""
        return 0 if features == "glca" else self.width

    def forward(
        self, images: Tensor, sides: Tensor | None = None, *, glca: bool = True, rollout: bool = False
    ) -> DcalOutput:
        """Images (B, 3, height, width) float32, normalised RGB, to one branch, whose logits are (B, 0).

        `sides` and `glca` are as for DCAL and change nothing. Raises ValueError for a rollout.
        """
        if rollout:
            raise ValueError(f"backbone {architecture(self.backbone)!r} has no class token to roll attention out from")
        if self.pool is None or self.neck is None:
            token = self.backbone(images)
        else:
            maps = self.backbone.forward_features(images).clamp(min=1e-6)
            token = self.neck(maps.pow(self.pool).mean(dim=(2, 3)).pow(1 / self.pool))
        return DcalOutput(Branch(token, token[:, :0]))


def build_pooled(name: str, image_size: Grid) -> tuple[TimmModule, int]:
    """Build a network by timm's name, without its classifier, for images of one size (height, width); and its width D.

    Raises ValueError for an unknown name, for a size that the network cannot take, and where it gives no one vector.
    """
    spec = resolve(name, whole=True)
    native = timm.get_pretrained_cfg(spec.timm_name)
    fixed = {"img_size": image_size} if native.fixed_input_size else {}
    shown = "x".join(map(str, image_size))
    try:
        model = timm.create_model(spec.timm_name, num_classes=0, **fixed).eval()
        with torch.inference_mode():
            given = model(torch.zeros(1, 3, *image_size))
    except (RuntimeError, AssertionError, TypeError) as error:
        made = "x".join(map(str, native.input_size[1:]))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"backbone {name!r}, made for {made}, takes no images of {shown} pixels ({reason})") from error
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise ValueError(f"backbone {name!r} does not give one vector for an image")
    return model, given.shape[1]

"""Every named backbone, cut to two blocks a stage so that all can be tried."""

from dataclasses import replace

import pytest

from reid.models import backbones
from reid.models.backbones import BACKBONES

# One of each kind of network, block and token layout; the others are the same code in other sizes.
KINDS = (
    "deit_tiny",
    "r50_vit_base",
    "cait_xs24",
    "swin_tiny",
    "deit3_small",
    "eva02_tiny",
    "eva02_base",
    "dinov2_small_reg",
    "dinov3_small",
    "clip_vit_base",
    "siglip_base",
)


@pytest.fixture(params=[name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES])
def backbone(request, monkeypatch):
    """The name of a backbone, of which only a shallow one is built."""
    spec = BACKBONES[request.param]
    depth = {"depths": (2, 2, 2, 2)} if "swin" in request.param else {"depth": 2}
    cut = replace(spec, overrides={**spec.overrides, **depth})
    monkeypatch.setitem(backbones.BACKBONES, request.param, cut)
    return request.param

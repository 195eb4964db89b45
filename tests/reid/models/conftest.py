"""Every named backbone, cut to two blocks a stage so that all can be tried."""

from dataclasses import replace

import pytest

from reid.models import backbones
from reid.models.specs import BACKBONES

# One of each kind of network, block and token layout that is narrow; others of the kind, and wide ones, are slow.
KINDS = (
    "deit_tiny",
    "cait_xs24",
    "swin_tiny",
    "deit3_small",
    "eva02_tiny",
    "dinov2_small_reg",
    "dinov3_small",
)


@pytest.fixture(params=[name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES])
def backbone(request, monkeypatch):
    """The name of a backbone, of which only a shallow one is built."""
    spec = BACKBONES[request.param]
    depth = {"depths": (2, 2, 2, 2)} if "swin" in request.param else {"depth": 2}
    cut = replace(spec, overrides={**spec.overrides, **depth})
    monkeypatch.setitem(backbones.BACKBONES, request.param, cut)
    return request.param


@pytest.fixture
def small(monkeypatch):
    """A function that makes a backbone of few blocks of a known one; both have the same name."""

    def shrink(name, **overrides):
        spec = replace(BACKBONES[name], overrides=overrides)
        monkeypatch.setitem(BACKBONES, name, spec)

    return shrink

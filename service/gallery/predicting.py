"""Uploads through a model: what it sees of them, and where it looks."""

from typing import Any

from PIL import Image
from torch import Tensor

from reid.inference.predictor import Predictor
from reid.report.attention import overlay
from service.gallery.batcher import Batcher
from service.gallery.pictures import decode
from service.metrics import Metrics
from service.records import NotServed

OVERLAY_SIDE = 1024  # pixels; the model sees less, and people need no more


def prepared(predictor: Predictor, data: bytes, metrics: Metrics) -> Tensor:
    """What a model sees of an upload, (3, height, width), timed as the stage `decode`; raises as `decode` does."""
    with metrics.stages["decode"].time():
        return predictor.prepare(decode(data))


def attended(predictor: Predictor, data: bytes, owner: Batcher[Any, Any]) -> Image.Image:
    """An upload of at most OVERLAY_SIDE pixels with the model's attention over it.

    `owner` is the batcher whose thread runs the model. Raises as `decode` does, and NotServed where there is no map.
    """
    if not predictor.model.rolls_out:
        raise NotServed("the backbone of this model has no class token, whose attention could be shown")
    image = decode(data)
    found = owner.run(lambda: predictor.attention([image])[0]).result()
    image.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    return overlay(image, found)

"""A classifier at work: photos come in, the probabilities of their classes go out, and nothing is kept.

C is the number of classes.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from threading import Semaphore
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.data.images import UnknownFormat, UnusableImage
from reid.inference.classifier import Classifier
from service.gallery.batcher import Batcher
from service.gallery.decoders import Decoders
from service.gallery.gallery import Gallery
from service.gallery.rendering import Rendered
from service.gallery.worker import Worker, draw_attention, of_the_only_region, order_for, require_attention
from service.metrics import Metrics
from service.records import NOBODY, Box, Cause, Region, Vectors

AT_ONCE = 256  # photos that are prepared and wait for the model; one of 448 x 448 pixels takes 2.4 MB


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A prepared photo (3, height, width)."""

    image: Tensor
    queued: float = field(default_factory=perf_counter)


class Classification:
    """A classifier that threads may share, alone or beside a gallery of the same process.

    One owner thread runs the model: that of the gallery where there is one, so that the two models take turns.
    Methods raise `Closed` after `close`.
    """

    def __init__(
        self,
        classifier: Classifier,
        model_id: str,
        gallery: Gallery | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Take up work; a `gallery`, whose decoders are used, is closed later than this, others with it."""
        self.classifier = classifier
        self.model_id = model_id
        self._gallery = gallery
        self._room = Semaphore(AT_ONCE)
        self.batcher: Batcher[_Job, Vectors] = Batcher(self._work, max_waiting=AT_ONCE)
        self._owner: Batcher[Any, Any] | Worker
        if gallery is None:
            self.metrics, self._owner, self._decoders = Metrics(), self.batcher, decoders or Decoders()
        else:
            self.metrics, self._owner, self._decoders = gallery.metrics, gallery.worker, gallery.decoders
        described = {"model_id": model_id, "classes": str(len(self.classes)), "prediction": classifier.prediction}
        self.metrics.watch_classifier(described, waiting=lambda: self.batcher.waiting["urgent"])

    @property
    def classes(self) -> Sequence[str]:
        """The names of the C classes, in label order."""
        return self.classifier.classes

    def classify(self, images: Sequence[bytes], cause: Cause = NOBODY) -> list[Vectors | UnknownFormat | UnusableImage]:
        """The probabilities (C,) of the classes for each photo, or why there are none."""
        order = order_for(self.classifier, [None], "view")
        within = self.metrics.stages["decode"].time
        taken = list[Future[Future[Vectors]]]()
        for data in images:
            self._room.acquire()  # given back when this photo is done, so that requests of many photos take turns
            try:
                taken.append(self._decoders.submit(cause.actor, data, order, self._take, within))
            except BaseException:
                self._room.release()
                raise
            taken[-1].add_done_callback(self._release)
        return [_result(one) for one in taken]

    def attention(self, data: bytes, box: Box | None = None, cause: Cause = NOBODY) -> Image.Image:
        """A photo, or a box in it, with the model's attention over it; raises as `Decoders.render`, and NotServed."""
        require_attention(self.classifier)
        order = order_for(self.classifier, [box and Region.around(*box)], "view", "shown")
        view, shown = of_the_only_region(self._decoders.render(cause.actor, data, order))
        return draw_attention(self.classifier, view, shown, self._owner.run)

    def check(self) -> None:
        """Return once the threads that the model needs answer."""
        self._owner.run(lambda: None).result()
        self.batcher.run(lambda: None).result()

    def give_up(self) -> None:
        """Read and classify no photo any more: whoever waits for one gets `Closed`."""
        self.batcher.give_up()
        if self._gallery is None:
            self._decoders.close()

    def close(self) -> None:
        """Finish what waits for the model."""
        self.batcher.close()
        if self._gallery is None:
            self._decoders.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, rendered: Rendered) -> "Future[Vectors]":
        return self.batcher.submit(_Job(self.classifier.prepare(of_the_only_region(rendered)[0])))

    def _release(self, taken: "Future[Future[Vectors]]") -> None:
        """Give a photo's room back once it has its probabilities or has failed."""
        if taken.cancelled() or taken.exception() is not None:
            self._room.release()
        else:
            taken.result().add_done_callback(lambda _: self._room.release())

    def _work(self, jobs: list[_Job]) -> list[Vectors | Exception]:
        now = perf_counter()
        for job in jobs:
            self.metrics.stages["wait"].observe(now - job.queued)
        self.metrics.classify_batch_size.observe(len(jobs))
        model = partial(self._model, torch.stack([job.image for job in jobs]))
        rows = model() if self._gallery is None else self._owner.run(model).result()
        broken = UnusableImage("the model's probabilities for this image are not finite")
        return [row if np.isfinite(row).all() else broken for row in rows]

    def _model(self, images: Tensor) -> Vectors:
        with self.metrics.stages["classify"].time():
            return self.classifier.classify_prepared(images)


def _result(taken: "Future[Future[Vectors]]") -> Vectors | UnknownFormat | UnusableImage:
    try:
        return taken.result().result()
    except (UnknownFormat, UnusableImage) as error:
        return error

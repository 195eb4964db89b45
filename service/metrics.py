"""What a service measures of itself, for Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Stage = Literal["decode", "wait", "model", "search", "store"]

SECONDS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The measurements of one gallery and of those who ask it, in a registry of their own; threads may share them.

    Labels take few values: routes are templates, never paths, and nothing that a client made up becomes one.
    """

    def __init__(
        self,
        model: Mapping[str, str],
        *,
        ready: Callable[[], bool],
        items: Callable[[], int],
        waiting: Callable[[], Mapping[str, int]],
    ) -> None:
        """Describe the model by some words; the functions are called whenever the metrics are read.

        `waiting` gives the length of each queue. A `ready` that raises OSError or ValueError is not ready.
        """
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "reid_requests_total", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "reid_request_seconds",
            "From a request's arrival to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "reid_refused_total", "Requests refused, by the code of the problem", ["code"], registry=registry
        )
        self.batch_size = Histogram(
            "reid_batch_size", "Photos given to the model at once", buckets=SIZES, registry=registry
        )
        stages = Histogram(
            "reid_stage_seconds", "Parts of the work on requests", ["stage"], buckets=SECONDS, registry=registry
        )
        self.stages: Mapping[Stage, Histogram] = {stage: stages.labels(stage) for stage in get_args(Stage)}
        Info("reid_model", "The model that is loaded", registry=registry).info(dict(model))
        ProcessCollector(registry=registry)
        registry.register(_State(ready, items, waiting))


class _State(Collector):
    """What is read from the gallery at the moment of asking."""

    def __init__(
        self, ready: Callable[[], bool], items: Callable[[], int], waiting: Callable[[], Mapping[str, int]]
    ) -> None:
        self._ready = ready
        self._items = items
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        try:
            ready = self._ready()
        except (OSError, ValueError):  # the store cannot be read: that is when the other numbers are wanted most
            ready = False
        yield GaugeMetricFamily("reid_ready", "Whether queries are answered", ready)
        yield GaugeMetricFamily("reid_items", "Items that can be found", self._items())
        depth = GaugeMetricFamily("reid_queue_depth", "Jobs that wait for the model", labels=["kind"])
        for kind, length in self._waiting().items():
            depth.add_metric([kind], length)
        yield depth

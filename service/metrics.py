"""What a service measures of itself, for Prometheus."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Stage = Literal["decode", "wait", "model", "classify", "search", "store"]

ClosedFor = Literal["all", "address", "displaced", "silent", "slow", "unread", "head"]

SECONDS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

# Of the process, as its memory is, and of the time before there is anything else to measure.
CLOSED_CONNECTIONS = Counter(
    "reid_connections_closed_total",
    "Connections refused or closed: too many in all or of one address, to make room, silent, with a body or an answer "
    "that hardly moves, with too large a head",
    ["reason"],
    registry=None,
)
for _reason in get_args(ClosedFor):
    CLOSED_CONNECTIONS.labels(_reason)


class Metrics:
    """The measurements of one service, in a registry of their own; threads may share them.

    Labels take few values: routes are templates, never paths, and nothing that a client made up becomes one.
    """

    def __init__(self) -> None:
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
        self.unlogged = Counter(
            "reid_unlogged_queries_total",
            "Queries answered that could not be written to the log, say for a full disk",
            registry=registry,
        )
        self.batch_size = Histogram(
            "reid_batch_size", "Photos given to the model of the gallery at once", buckets=SIZES, registry=registry
        )
        self.classify_batch_size = Histogram(
            "reid_classify_batch_size", "Photos given to the classifier at once", buckets=SIZES, registry=registry
        )
        stages = Histogram(
            "reid_stage_seconds", "Parts of the work on requests", ["stage"], buckets=SECONDS, registry=registry
        )
        self.stages: Mapping[Stage, Histogram] = {stage: stages.labels(stage) for stage in get_args(Stage)}
        ProcessCollector(registry=registry)
        registry.register(CLOSED_CONNECTIONS)
        self._state = _State()
        registry.register(self._state)

    def watch_gallery(
        self,
        model: Mapping[str, str],
        *,
        ready: Callable[[], bool],
        items: Callable[[], int],
        unfollowed: Callable[[], int],
        recall: Callable[[], float | None],
        waiting: Callable[[], Mapping[str, int]],
        free: Callable[[], int],
        degraded: Callable[[], bool],
    ) -> None:
        """Tell of a gallery, whose model some words describe; the functions are called whenever the metrics are read.

        `waiting` gives the length of each queue, `unfollowed` the changes that the search index has yet to follow,
        `recall` the share of the best that an approximate one finds, if it is known,
        `free` the bytes free on its disk. A `ready` that raises OSError or ValueError is not ready; then what else
        cannot be read is left out.
        """
        Info("reid_model", "The model of the gallery", registry=self.registry).info(dict(model))
        self._state.ready, self._state.items, self._state.unfollowed = ready, items, unfollowed
        self._state.free, self._state.degraded, self._state.recall = free, degraded, recall
        self._state.waiting.append(waiting)

    def watch_classifier(self, model: Mapping[str, str], *, waiting: Callable[[], int]) -> None:
        """Tell of a classifier, described by some words, and of the length of its queue."""
        Info("reid_classifier", "The classifier", registry=self.registry).info(dict(model))
        self._state.waiting.append(lambda: {"classify": waiting()})


class _State(Collector):
    """What is read at the moment of asking; without a gallery there are no items, and nothing to wait for."""

    def __init__(self) -> None:
        self.ready: Callable[[], bool] = lambda: True
        self.items: Callable[[], int] | None = None
        self.unfollowed: Callable[[], int] | None = None
        self.recall: Callable[[], float | None] | None = None
        self.free: Callable[[], int] | None = None
        self.degraded: Callable[[], bool] | None = None
        self.waiting: list[Callable[[], Mapping[str, int]]] = []

    def collect(self) -> Iterator[Metric]:
        try:
            ready = self.ready()
        except (OSError, ValueError):  # the store cannot be read: that is when the other numbers are wanted most
            ready = False
        yield GaugeMetricFamily("reid_ready", "Whether queries are answered", ready)
        told = {
            "reid_items": ("Items that can be found", self.items),
            "reid_index_pending": ("Changes that wait for the search index", self.unfollowed),
            "reid_index_recall": ("Share of the 10 best items that an approximate search index finds", self.recall),
            "reid_free_bytes": ("Bytes free on the disk of the gallery", self.free),
            "reid_degraded": ("Whether somebody should look after the gallery", self.degraded),
        }
        for name, (meaning, read) in told.items():
            with suppress(OSError, ValueError):
                if read is not None and (value := read()) is not None:
                    yield GaugeMetricFamily(name, meaning, value)
        depth = GaugeMetricFamily("reid_queue_depth", "Jobs that wait for the model", labels=["kind"])
        for waiting in self.waiting:
            for kind, length in waiting().items():
                depth.add_metric([kind], length)
        yield depth

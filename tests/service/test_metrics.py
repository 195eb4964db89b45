import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics


def make(**state):
    """The metrics of a service that is ready, with 3 items and empty queues, but for what is given."""
    state = {
        "ready": lambda: True,
        "items": lambda: 3,
        "unfollowed": lambda: 0,
        "recall": lambda: None,
        "waiting": lambda: {"urgent": 0, "bulk": 0},
        "free": lambda: 10**12,
        "degraded": lambda: False,
        **state,
    }
    metrics = Metrics()
    metrics.watch_gallery({"model_id": "m", "features": "sa"}, **state)
    return metrics


def read(metrics):
    """Every sample of the exposition: its value by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
    }


def test_the_state_is_that_of_the_moment_of_reading():
    state = {"items": 3, "ready": True, "urgent": 1}
    metrics = make(
        ready=lambda: state["ready"],
        items=lambda: state["items"],
        waiting=lambda: {"urgent": state["urgent"], "bulk": 4},
    )
    assert read(metrics)[("reid_ready",)] == 1
    state.update(items=5, ready=False, urgent=2)
    samples = read(metrics)
    assert samples[("reid_items",)] == 5
    assert samples[("reid_ready",)] == 0
    assert samples[("reid_queue_depth", ("kind", "urgent"))] == 2
    assert samples[("reid_queue_depth", ("kind", "bulk"))] == 4
    assert samples[("reid_model_info", ("features", "sa"), ("model_id", "m"))] == 1


def test_the_recall_is_told_once_it_is_known():
    known = [None, 0.97]
    metrics = make(recall=known.pop)
    assert read(metrics)[("reid_index_recall",)] == 0.97
    assert ("reid_index_recall",) not in read(metrics)


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("damaged")])
def test_a_store_that_cannot_be_read_is_not_ready_and_the_rest_is_told(error):
    def ready():
        raise error

    samples = read(make(ready=ready))
    assert (samples[("reid_ready",)], samples[("reid_items",)]) == (0, 3)


def test_what_else_cannot_be_read_is_left_out():
    def away():
        raise OSError("gone")

    samples = read(make(items=away, unfollowed=lambda: 7))
    assert ("reid_items",) not in samples
    assert samples[("reid_index_pending",)] == 7


def test_stages_and_batches_are_counted_and_summed():
    metrics = make()
    metrics.stages["wait"].observe(0.02)
    metrics.stages["wait"].observe(2)
    with metrics.stages["model"].time():
        pass
    metrics.batch_size.observe(32)
    samples = read(metrics)
    assert samples[("reid_stage_seconds_sum", ("stage", "wait"))] == pytest.approx(2.02)
    assert samples[("reid_stage_seconds_bucket", ("le", "0.03"), ("stage", "wait"))] == 1
    counts = {stage: samples[("reid_stage_seconds_count", ("stage", stage))] for stage in metrics.stages}
    assert counts == {"decode": 0, "wait": 2, "model": 1, "classify": 0, "search": 0, "store": 0}
    assert samples[("reid_batch_size_bucket", ("le", "16.0"))] == 0
    assert samples[("reid_batch_size_bucket", ("le", "32.0"))] == 1


def test_the_process_is_measured():
    assert read(make())[("process_resident_memory_bytes",)] > 1e6


def test_one_service_does_not_count_for_another():
    first, second = make(), make()
    first.batch_size.observe(1)
    assert read(first)[("reid_batch_size_count",)] == 1
    assert read(second)[("reid_batch_size_count",)] == 0

"""Waiting for what another thread, process or machine does."""

from time import monotonic, sleep

DEADLINE = 120  # seconds, for what takes a few on an idle machine


def wait_until(happened, what="it does not come"):
    """What a function says as soon as that is true; after DEADLINE the test fails with `what`."""
    end = monotonic() + DEADLINE
    while not (said := happened()):
        assert monotonic() < end, what
        sleep(0.02)
    return said

"""Functions in processes of their own that need not import anything anew, and say line by line what they do."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

FORK = multiprocessing.get_context("fork")


def _run(function: Callable[..., None], arguments: tuple[Any, ...], writing: int) -> None:
    sys.stdout = open(writing, "w")  # noqa: SIM115
    function(*arguments)


class Child:
    """A function at work; what `subprocess.Popen` offers, as far as tests need it."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        reading, writing = os.pipe()
        self._process = FORK.Process(target=_run, args=(function, arguments, writing))
        self._process.start()
        os.close(writing)
        self.stdout = open(reading)  # noqa: SIM115

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal; it may have ended, and is still known by its number."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self._process.join()

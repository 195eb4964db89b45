"""Commands of the service in processes of their own, which start from one that has imported torch and never used it.

A fresh interpreter spends five seconds of a processor on imports; what has to be one is started by `subprocess`.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["service.api.app", "service.opening", "service.serving"])


def _run(module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(output.detach(), 2)
    os.dup2(2, 1)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.exit(import_module(module).main(list(arguments)))


class Command:
    """A command's `main` in a process; what `subprocess.Popen` offers, as far as tests need it.

    All it says goes to `log`, or else to the pipe `stderr`.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> None:
        self.args = [module, *arguments]
        self.stderr: IO[str] | None = None
        if log is None:
            reading, writing = os.pipe()
            self.stderr = open(reading)  # noqa: SIM115
        else:
            writing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        given = (module, list(arguments), dict(environment), DupFd(writing))
        self._process = PROCESSES.Process(target=_run, args=given)
        self._process.start()
        os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of a signal; None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """What it still says, until it ends."""
        said = ""
        if self.stderr is not None and not self.stderr.closed:
            said = self.stderr.read()  # a hang ends with the time that pytest gives a test
            self.stderr.close()
        self.wait(timeout)
        return None, said

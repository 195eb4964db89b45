"""Milvus servers for tests, on 127.0.0.1 alone: the real one, of the wheel milvus 2.3.5, and that of milvus-lite.

Each comes from an environment of its own, which `make test-milvus` makes: milvus-lite brings a faiss-cpu, which would
overwrite the faiss-gpu of ours.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from tests.waiting import DEADLINE

Kind = Literal["milvus", "milvus-lite"]

ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".venv-milvus"
# Seconds after which the real server misses one that was killed, of which 30 delay every start; and milliseconds
# between ticks of its clock, for which a strong read waits.
QUICK = {"common.session.ttl": 5, "proxy.timeTickInterval": 20}
READY_SECONDS = 120
STOP_SECONDS = 5
# The wheel's own command is a parent that does not pass on a signal to end.
RUN_MILVUS = """
import ctypes, os, signal, sys, milvus
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # however inner_port.py ends
config = milvus.MilvusServerConfig(data_dir=sys.argv[1])
for setting in sys.argv[2:]:
    config.set(*setting.split("=", 1))
config.resolve()
milvus._initialize_data_files(config.base_data_dir)
os.chdir(config.base_data_dir)
libraries = os.path.abspath("bin")
os.environ |= {"DEPLOY_MODE": "STANDALONE", "LD_LIBRARY_PATH": libraries, "MILVUS_RUN_DIR": os.path.abspath("run")}
os.execv("bin/milvus", ["milvus", "run", "standalone"])
"""


class MilvusServer:
    """A server on a port and in a folder that it keeps when it is started again; not running at first."""

    def __init__(self, kind: Kind, folder: Path, settings: Mapping[str, int] = QUICK) -> None:
        self._kind, self._folder, self._settings = kind, folder, settings
        self._python = ENVIRONMENTS / kind / "bin" / "python"
        if not self._python.exists():
            pytest.skip(f"{kind} is not installed in {ENVIRONMENTS}: make test-milvus")
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._started: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._pid

    def start(self) -> None:
        """Start it, if it does not run, and return when it answers; it may load its collections for longer."""
        if self._started and self._started.poll() is None:
            return
        self.kill()
        if self._kind == "milvus":
            self._start_inside()
        else:
            command = [self._python.parent / "milvus-lite", "server", "--host", "127.0.0.1"]
            self._run([*command, "--port", self._port, "--data-dir", self._folder / "data"])
            self._pid = self._started.pid
        self._wait()

    def stop(self) -> None:
        """End it in order, if it runs."""
        self._end(signal.SIGINT if self._kind == "milvus-lite" else signal.SIGTERM)

    def kill(self) -> None:
        """End it as `kill -9` does, if it runs."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """The end of what it has said."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _start_inside(self) -> None:
        """Start the real server, which listens on all interfaces, in a network namespace that has none."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            listener.listen(64)
            command = ["unshare", "--map-root-user", "--net", sys.executable, Path(__file__).with_name("inner_port.py")]
            command += [listener.fileno(), 19530, self._python, "-c", RUN_MILVUS, self._folder / "data"]
            command += [f"{name}={value}" for name, value in self._settings.items()]
            self._run(command, stdout=subprocess.PIPE, pass_fds=(listener.fileno(),))
        line = self._started.stdout.readline()
        if not line:
            self._started.wait()
            if "unshare failed" in self.log():
                pytest.skip("no network namespace can be made here, and the server would listen on all interfaces")
            raise RuntimeError(f"the server did not start: {self.log()}")
        self._pid = int(line)

    def _run(self, command: list[object], **options: object) -> None:
        with open(self._folder / "log", "a") as log:
            words = [str(word) for word in command]
            options = {"stdout": log, **options}
            self._started = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=log, text=True, **options)

    def _wait(self) -> None:
        from pymilvus import MilvusClient, MilvusException

        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                client = MilvusClient(self.uri, timeout=2, dedicated=True)
                try:
                    client.list_collections(timeout=2)
                    return
                finally:
                    client.close()
            except MilvusException as error:
                if self._started.poll() is not None:
                    raise RuntimeError(f"the server ended: {self.log()}") from error
                if time.monotonic() > until:
                    raise TimeoutError(f"not ready after {READY_SECONDS} s: {error}; {self.log()}") from error
            time.sleep(0.2)

    def _end(self, how: signal.Signals) -> None:
        if not self._started:
            return
        if self._started.poll() is None:
            os.kill(self._pid, how)
            try:
                self._started.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):  # it has gone, and what had started it goes a little later
                    os.kill(self._pid, signal.SIGKILL)
                self._started.wait(DEADLINE)
        for stream in (self._started.stdin, self._started.stdout):
            if stream:
                stream.close()
        self._started = None

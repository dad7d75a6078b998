"""True Python programs beside a test, which start warm: see program_server.py."""

from __future__ import annotations

import json
import multiprocessing.util
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

from filelock import FileLock

OWNER = "HEADSWEEP_TESTS"  # the process whose end is the server's end: pytest itself, for all its workers
START_SECONDS = 120


class Program:
    """`python WORDS`, with what it prints in files. Its interface is that of `subprocess.Popen`.

    `kind` says what it finds imported, if not all that it may: see program_server.py.
    """

    def __init__(
        self,
        words: Sequence[str],
        cwd: Path | None = None,
        env: Mapping[str, str] = os.environ,
        new_session: bool = False,
        kind: str | None = None,
    ) -> None:
        self.args, self.returncode = list(words), None
        self._files = [tempfile.TemporaryFile() for _ in ("stdout", "stderr")]  # noqa: SIM115 - read at the end
        request = {"words": self.args, "cwd": str(cwd or Path.cwd()), "environment": dict(env)}
        request |= {"new_session": new_session, "places": [0, 1, 2], "ignored": [], "blocked": []}
        with Path(os.devnull).open() as nothing:
            handles = [nothing.fileno(), *(file.fileno() for file in self._files)]
            self._connection = connect(_kind(env) if kind is None else kind)
            socket.send_fds(self._connection, [json.dumps(request).encode()], handles)
        self.pid = int(self._connection.recv(16))

    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it. Raises TimeoutExpired, with what was printed."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise TimeoutExpired(self.args, timeout or 0, *map(self._printed, (0, 1)))
            self.returncode = int(self._connection.recv(16))
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        try:
            return self.wait(0)
        except TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has printed to both streams by its end."""
        self.wait(timeout)
        return self._printed(0), self.stderr()

    def stderr(self) -> str:
        """What it has printed there so far."""
        return self._printed(1)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _printed(self, number: int) -> str:
        handle = self._files[number].fileno()  # its position is the program's, too
        return os.pread(handle, os.fstat(handle).st_size, 0).decode()


def run(words: Sequence[str], timeout: float = 300, **options: object) -> CompletedProcess[str]:
    """As `subprocess.run` with `capture_output`: `python WORDS` to its end, for at most `timeout` seconds."""
    program = Program(words, **options)
    try:
        return CompletedProcess(program.args, program.wait(timeout), *program.communicate())
    finally:
        program.kill()


def relay(passed: Sequence[int] = (), kind: str = "", tests: Sequence[str] = ()) -> list[str]:
    """What starts Python where another program does: a process that stands for a program which starts warm.

    `passed` are the descriptors that it gets beside 0, 1 and 2; `kind` and `tests` say what is imported: see
    program_server.py.
    """
    script = str(Path(__file__).with_name("relay.py"))
    return [sys.executable, "-S", "-E", script, address(kind, *tests), ",".join(map(str, (0, 1, 2, *passed)))]


def write_interpreter(path: Path, kind: str = "") -> str:
    """Write an executable that starts Python warm, for a program that takes the path of an interpreter.

    `kind` says what is imported: see program_server.py. What submitit starts first is known to it by its pid, so it is
    started cold.
    """
    cold = f'[ "$2" != submitit.local._local ] || exec {sys.executable} "$@"'
    path.write_text(f'#!/bin/sh\n{cold}\nexec {shlex.join(relay(kind=kind))} "$@"\n')
    path.chmod(0o755)
    return str(path)


def module(python: str, name: str) -> list[str]:
    """The words of `python -m NAME`; what it starts with `sys.executable` is started with `python`."""
    start = f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return ["-c", f"import runpy, sys; sys.executable = {python!r}; {start}"]


@cache
def start_forkservers_warm() -> None:
    """Let the forkserver of this process and those of its forks start warm, too."""
    start = multiprocessing.util.spawnv_passfds

    def spawn(path: bytes, words: Sequence[str], passed: Sequence[int]) -> int:
        if "multiprocessing.forkserver" in words[-1]:
            words = [*relay(passed, _kind(os.environ)), "-c", words[-1]]
        return start(path, words, passed)

    multiprocessing.util.spawnv_passfds = spawn


def connect(kind: str = "") -> socket.socket:
    """A connection to the server, on which one program can be asked for."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(address(kind))
    return connection


def _kind(environment: Mapping[str, str]) -> str:
    """What a program may find imported; headsweep not where a variable is of importance for its import."""
    if environment.get("NO_TORCH"):
        return ".commands"
    return "" if environment.get("PYTHONPATH") or "HYDRA_FULL_ERROR" in environment else ".runs"


@cache
def address(kind: str, *tests: str) -> str:
    """The socket where programs of a kind are asked for, at the server, which is started if no other worker has.

    Where it starts, `tests` are what it imports for the workers that it will start.
    """
    owner = os.environ[OWNER]
    path = Path(tempfile.gettempdir(), f"headsweep-tests-{owner}")
    log = Path(f"{path}.log")
    with FileLock(f"{path}.lock"):
        if not log.exists():
            _start(path, owner, log, tests)
    deadline = time.monotonic() + START_SECONDS
    while not Path(f"{path}{kind}").exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"program_server.py does not serve {path}{kind}:\n{log.read_text()}")
        time.sleep(0.05)
    return f"{path}{kind}"


def _start(path: Path, owner: str, log: Path, tests: Sequence[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    script = str(Path(__file__).with_name("program_server.py"))
    with log.open("w") as file:
        subprocess.Popen(
            [sys.executable, script, str(path), owner, *tests],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

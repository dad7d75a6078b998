"""Run Python programs in forks of processes that have imported what they need, each in a fraction of a second.

    python program_server.py SOCKET PID [TESTS...]

serves until process PID ends, at a socket for each `Kind`; TESTS are files and folders of tests. A client sends what
`programs.Program` describes, with the descriptors that the program gets. It gets the program's pid, and its exit code
at the end; a number that it sends is a signal for the program, and when it ends first, the program is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import mmap
import multiprocessing.util
import os
import random
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from hydra_files import FOLDERS, read_project_files_once

LIGHT = ("click", "submitit", "rich.live", "filelock")
HEAVY = (
    *("torch", "torch.distributed", "torch.utils.flop_counter", "torchvision.transforms.v2"),
    *("torch._dynamo", "torch._inductor.compile_fx", "timm", "scipy.stats"),
    *("mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"),
)
COMMANDS = ("headsweep.cli", "headsweep.entry", "headsweep.launch.run_sweep", "headsweep.launch.slurm.launcher")
RUNS = ("headsweep.launch.local.worker", "headsweep.tracking.mlflow.tracker", "headsweep.tracking.mlflow.model")
SIGNALS = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
MOST_BYTES = 1 << 20  # of a request
HUGE_PAGE = 2 << 20  # bytes
MADV_COLLAPSE = 25
ENTRIES = sys.path[1:]  # where this Python finds modules


class Kind(Enum):
    """What a program finds imported, by the ending of the socket that starts it."""

    light = ".light"  # libraries that every command needs: the program may not import others
    libraries = ""  # and others; of headsweep nothing: the program may bring its own
    runs = ".runs"  # and headsweep
    tests = ".tests"  # and the modules of tests: a worker of pytest-xdist
    commands = ".commands"  # headsweep's commands, where torch is not installed as far as anybody can tell


def main(address: str, owner: int, *tests: str) -> NoReturn:
    load(*LIGHT)
    for kind in (Kind.light, Kind.commands):
        start(kind, address, owner)
    with leaks_unsearched():
        load(*HEAVY)
    read_revisions_once()
    make_forks_cheap()  # those of the next servers, too
    if tests and os.fork() == 0:
        import_tests(tests)
        serve(f"{address}{Kind.tests.value}", owner)
    move_to_huge_pages()
    start(Kind.runs, address, owner)
    serve(address, owner)


def load(*names: str) -> None:
    for name in names:
        importlib.import_module(name)


@contextlib.contextmanager
def leaks_unsearched() -> Iterator[None]:
    """Let nanobind's modules not search for leaks at the end of each program, which takes as long as all else then."""
    register = atexit.register

    def register_others(function: Callable[..., object], *arguments: object, **options: object) -> object:
        is_search = getattr(getattr(function, "__code__", None), "co_filename", "") == "<internal>"
        return function if is_search else register(function, *arguments, **options)

    atexit.register = register_others
    yield
    atexit.register = register


def read_revisions_once() -> None:
    """Let MLflow load its fifty migrations here, not whenever a process opens a store: to see which is the latest."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()


def start(kind: Kind, address: str, owner: int) -> None:
    """Fork a server of some kind."""
    if os.fork() == 0:
        if kind is not Kind.light:
            try:
                load_headsweep(kind)
            except Exception:  # each program will report it
                traceback.print_exc()
        move_to_huge_pages()
        serve(f"{address}{kind.value}", owner)


def import_tests(tests: Sequence[str]) -> None:
    """Import the modules of tests, with assertions rewritten, once for all workers: they take seconds each.

    What fails here fails in each worker, which reports it.
    """
    import pytest  # here, as light programs may find nothing that headsweep does not need

    printed = [os.dup(stream) for stream in (1, 2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    with contextlib.suppress(BaseException):
        pytest.main(["--collect-only", "-p", "no:cacheprovider", *tests])
    for stream, handle in enumerate(printed, 1):
        os.dup2(handle, stream)
        os.close(handle)
    os.close(nothing)


def load_headsweep(kind: Kind) -> None:
    """Import modules and Hydra's plugins, and read the files of conf/ that most commands compose."""
    if kind is Kind.commands:
        find = PathFinder.find_spec
        PathFinder.find_spec = lambda name, *where: None if name == "torch" else find(name, *where)
    load(*COMMANDS)
    read_project_files_once()
    with hydra.initialize_config_dir(FOLDERS[0], version_base="1.3"):
        hydra.compose("train", overrides=["hydra/launcher=slurm"], return_hydra_config=True)
        config = hydra.compose("train")
    if kind is Kind.runs:
        load(*RUNS)
        read_once(config)


def read_once(config: DictConfig) -> None:
    """Read what each run and each table of a process reads once; `config` is the composed configuration of a run."""
    from digits import read_digits_once
    from headsweep.config import parse
    from headsweep.data import datasets
    from headsweep.plan import frozen
    from headsweep.report.table import published

    read_digits_once()
    datasets.load(parse(config).dataset)
    frozen._where_runs_train()
    published.load(published.FOLDER)


def serve(address: str, owner: int) -> NoReturn:
    """Start the programs that clients ask for."""
    make_forks_cheap()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        Programs(listener).serve(os.pidfd_open(owner))
    for ending in ("", ".lock", ".log"):
        Path(f"{address}{ending}").unlink(missing_ok=True)
    os._exit(0)


def make_forks_cheap() -> None:
    """Let programs share what is in memory: a page is copied when a program first writes to it.

    The garbage collector writes to all of them, and the end of many a library to its own.
    """
    gc.collect()
    gc.set_threshold(100_000, 20, 100)  # collecting is a sixteenth of all that programs and tests compute otherwise
    gc.freeze()
    for ending in list(weakref.finalize._registry):
        ending.atexit = False


def move_to_huge_pages() -> None:
    """Let a fork copy fewer entries of page tables, one for each page that was written: where Linux can (6.1).

    With `make_forks_cheap` the fork of a program and its end take a third of the tenth of a second that they take
    otherwise. It takes a second itself, too long for the three forks that are workers of pytest.
    """
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, *_, name = [*line.split(maxsplit=5), ""][:6]
        first, last = (int(address, 16) for address in addresses.split("-"))
        if permissions == "rw-p" and name in ("", "[heap]") and last - first >= HUGE_PAGE:
            for advice in (mmap.MADV_HUGEPAGE, MADV_COLLAPSE):
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)


class Programs:
    """The programs that were asked for at a socket, and the connections of their clients."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.ends: dict[int, Started] = {}  # by the descriptor that is ready when it has ended
        self.clients: dict[int, Started] = {}  # by that of the client's connection

    def serve(self, owner_ends: int) -> None:
        while owner_ends not in (ready := self._ready(owner_ends)):
            for handle in ready:
                if handle in self.ends:
                    self._report(handle)
                elif handle in self.clients:
                    self._pass_on(self.clients[handle])
                elif handle == self.listener.fileno():
                    self._start(owner_ends)
        for program in self.ends.values():
            program.kill()

    def _ready(self, owner_ends: int) -> list[int]:
        waited = select.poll()
        for handle in (owner_ends, self.listener.fileno(), *self.ends, *self.clients):
            waited.register(handle, select.POLLIN)
        return [handle for handle, _ in waited.poll()]

    def _start(self, owner_ends: int) -> None:
        """Fork the program that the next client asks for."""
        connection, _ = self.listener.accept()
        request, handles = receive(connection)
        if not request:  # the client has ended
            connection.close()
            return
        if (pid := os.fork()) == 0:
            for handle in (owner_ends, *self.ends, *self.clients, connection.fileno(), self.listener.fileno()):
                os.close(handle)
            become(request, handles)
        for handle in handles:
            os.close(handle)
        program = Started(pid, request["new_session"], connection)
        self.ends[os.pidfd_open(pid)] = self.clients[connection.fileno()] = program
        program.answer(pid)

    def _report(self, end: int) -> None:
        """Report the exit code of a program that has ended."""
        program = self.ends.pop(end)
        os.close(end)
        _, status = os.waitpid(program.pid, 0)
        if self.clients.pop(program.connection.fileno(), None):
            program.answer(os.waitstatus_to_exitcode(status))
        program.connection.close()

    def _pass_on(self, program: Started) -> None:
        """Pass a signal of its client on to a program; one whose client has ended is killed."""
        try:
            number = program.connection.recv(16)
        except ConnectionError:
            number = b""
        if number:
            os.kill(program.pid, int(number))
        else:
            del self.clients[program.connection.fileno()]
            program.kill()


@dataclass
class Started:
    pid: int
    is_leader: bool  # of a process group, which ends with it
    connection: socket.socket

    def answer(self, number: int) -> None:
        with contextlib.suppress(OSError):  # the client may have ended
            self.connection.send(str(number).encode())

    def kill(self) -> None:
        """Kill it, with its group; it may not have made that yet."""
        os.kill(self.pid, signal.SIGKILL)
        if self.is_leader:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request and the descriptors that came with it."""
    message, handles, _, _ = socket.recv_fds(connection, MOST_BYTES, 16)
    return json.loads(message or "{}"), handles


def become(request: dict[str, Any], handles: list[int]) -> NoReturn:
    """Be `python WORDS`, to its end."""
    if request["new_session"]:
        os.setsid()
    take(request, handles)
    if may_start_forkserver(request["words"], request["environment"]):
        prepare_forkserver()
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    words = request["words"]
    if words[0] == "-u":
        words = words[1:]
        sys.stdout, sys.stderr = unbuffered(1), unbuffered(2)
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[0] = request["cwd"]
        execute(lambda: runpy.run_module(words[1], run_name="__main__", alter_sys=True))
    if words[0] == "-c":
        sys.argv[:] = ["-c", *words[2:]]
        execute_code(words[1])
    sys.argv[:] = words
    sys.path[0] = str(Path(words[0]).resolve().parent)
    execute(lambda: runpy.run_path(words[0], run_name="__main__"))


def may_start_forkserver(words: list[str], environment: dict[str, str]) -> bool:
    """Whether a program may start a forkserver, which takes as long to prepare as the program; others start it cold."""
    words = words[words[0] == "-u" :]
    if "NO_TORCH" in environment or "headsweep.launch.slurm.window" in words:  # these submit jobs
        return False
    if words[0] == "-c":
        return {"status", "cancel", "logs"}.isdisjoint(words[2:3])
    if words[0] != "-m":
        return not {"-m", "batch_size=auto"}.isdisjoint(words)
    commands = {"train", "plan", "retry", "watch", "sync"}
    return words[1] == "submitit.core._submit" or not commands.isdisjoint(words[2:3])


def execute_code(code: str) -> NoReturn:
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    execute(lambda: exec(code, vars(main)))


def unbuffered(handle: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(handle, "w", closefd=False), sys.stdout.encoding, write_through=True)


def execute(program: Callable[[], object]) -> NoReturn:
    """Do what Python does around a program, but for the destruction of all modules at its end."""
    code: object = 0
    try:
        program()
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def take(request: dict[str, Any], handles: list[int]) -> None:
    """Take over what a new process gets: descriptors, folder, environment, and what Python makes of them."""
    high = [os.dup2(handle, 500 + number) for number, handle in enumerate(handles)]
    for handle in handles:
        os.close(handle)
    for handle, place in zip(high, request["places"], strict=True):
        os.dup2(handle, place)
        os.close(handle)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    first = [] if os.environ.get("PYTHONSAFEPATH") else [""]
    sys.path[:] = [*first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *ENTRIES]
    tempfile.tempdir = None
    random.seed()


def prepare_forkserver() -> None:
    """Let the first forkserver that this process starts be a fork, too: a child that waits, with nothing run so far."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if (child := os.fork()) == 0:
        near.close()
        become_forkserver(far)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    far.close()
    start = multiprocessing.util.spawnv_passfds

    def spawn(path: bytes, words: list[str], passed: list[int]) -> int:
        if near.fileno() < 0 or "multiprocessing.forkserver" not in words[-1]:
            return start(path, words, passed)
        blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        request = {"code": words[-1], "places": list(passed), "blocked": blocked}
        request |= {"cwd": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(near, [json.dumps(request).encode()], list(passed))
        near.close()
        return child

    multiprocessing.util.spawnv_passfds = spawn


def become_forkserver(orders: socket.socket) -> NoReturn:
    """Execute the code of a forkserver, unless its launcher ends without asking for one."""
    request, handles = receive(orders)
    if not request:
        os._exit(0)
    orders.close()
    take(request, handles)
    sys.argv[:] = ["-c"]
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    execute_code(request["code"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

"""Run Python programs in forks of one process that has imported the heavy libraries, each in a fraction of a second.

    python program_server.py SOCKET PID

serves at SOCKET until process PID ends. A client sends what `programs.Program` describes, with the descriptors that
the program gets. It gets the program's pid, and its exit code at the end; a number that it sends is a signal for the
program, and when it ends first, the program is killed. Of headsweep nothing is imported: a program may bring its own.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
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
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    *("hydra", "submitit", "torch", "torch.distributed", "torch.utils.flop_counter", "torchvision.transforms.v2"),
    *("torch._dynamo", "torch._inductor.compile_fx", "timm", "sklearn.datasets", "scipy.stats", "rich.live"),
    *("filelock", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"),
)
SIGNALS = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
MOST_BYTES = 1 << 20  # of a request
ENTRIES = sys.path[1:]  # where this Python finds modules


def serve(address: str, owner: int) -> NoReturn:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or every fork would copy what its collector looks at
    owner_ends = os.pidfd_open(owner)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        while owner_ends not in select.select([listener, owner_ends], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                os.close(owner_ends)
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                supervise(connection)
            connection.close()
    for ending in ("", ".lock", ".log"):
        Path(f"{address}{ending}").unlink(missing_ok=True)
    os._exit(0)


def supervise(connection: socket.socket) -> NoReturn:
    """Fork the program that is asked for, pass its client's signals on and report its end."""
    request, handles = receive(connection)
    if (program := os.fork()) == 0:
        connection.close()
        become(request, handles)
    for handle in handles:
        os.close(handle)
    connection.send(str(program).encode())
    end = os.pidfd_open(program)
    while end not in select.select([connection, end], [], [])[0]:
        number = connection.recv(16)
        if not number:
            kill(program, is_leader=request["new_session"])
            os._exit(0)
        os.kill(program, int(number))
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(OSError):  # the client may have ended
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def kill(program: int, is_leader: bool) -> None:
    if is_leader:
        os.killpg(program, signal.SIGKILL)
    else:
        os.kill(program, signal.SIGKILL)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A request and the descriptors that came with it."""
    message, handles, _, _ = socket.recv_fds(connection, MOST_BYTES, 16)
    return json.loads(message or "{}"), handles


def become(request: dict[str, Any], handles: list[int]) -> NoReturn:
    """Be `python WORDS`, to its end."""
    if request["new_session"]:
        os.setsid()
    take(request, handles)
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
    sys.path[:] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *ENTRIES]
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
    serve(sys.argv[1], int(sys.argv[2]))

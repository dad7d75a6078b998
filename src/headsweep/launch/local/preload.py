"""What the forkserver imports once for all of its processes; if that fails, each process reports the reason."""

from __future__ import annotations

import sys
from types import TracebackType

from headsweep import sockets
from headsweep.processes import resource_error


def _print_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print why the forkserver ends, e.g. because it cannot start a process."""
    print(f"headsweep: the forkserver ends ({kind.__name__}: {error})", file=sys.stderr)


sys.excepthook = _print_end
sys.path[:] = filter(None, sys.path)  # without the working directory, which Python 3.10 always adds
sockets.remove_at_exit()
failure = ""
try:
    import hydra  # noqa: F401 - a new process runs the entry script, which imports it

    from headsweep.launch.local import worker  # noqa: F401
except (ImportError, MemoryError, OSError) as error:
    failure = resource_error(error)

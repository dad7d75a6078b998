"""What the forkserver imports, so that each of its processes starts warm; if that fails, each says why in a line."""

from __future__ import annotations

import sys
from types import TracebackType

from headsweep import sockets
from headsweep.processes import starved


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print why the forkserver ends, e.g. where the system gives it no process."""
    print(f"headsweep: the forkserver ends ({kind.__name__}: {error})", file=sys.stderr)


sys.excepthook = _say
sockets.remove_at_exit()
failure = ""
try:
    # Hydra too: a new process runs the entry script, which imports it. The digits come with scikit-learn, whose
    # import takes longer than all else that a run does before its first step.
    import hydra  # noqa: F401
    import sklearn.datasets  # noqa: F401

    from headsweep.launch.local import worker  # noqa: F401
except (ImportError, MemoryError, OSError) as error:
    failure = starved(error)

"""headsweep: which classification head, and how many of them?

From Python: `sweep` trains a grid, `results` compares its runs, `load` returns a trained model. Each is imported when
it is first used: `import headsweep` alone imports neither torch nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headsweep.api.load import load
    from headsweep.api.results import Results, results
    from headsweep.api.sweep import sweep
    from headsweep.errors import FailedRunsError, UserError

    __version__: str

__all__ = ["FailedRunsError", "Results", "UserError", "__version__", "load", "results", "sweep"]

_MODULES = {
    "FailedRunsError": "headsweep.errors",
    "Results": "headsweep.api.results",
    "UserError": "headsweep.errors",
    "load": "headsweep.api.load",
    "results": "headsweep.api.results",
    "sweep": "headsweep.api.sweep",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from headsweep.folders import installed_version

        return installed_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

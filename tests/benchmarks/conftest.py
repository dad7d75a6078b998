import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from headsweep.config import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, shapes_unchecked: None) -> Any:
    """Imports a script of benchmarks/ by its name; restores the number of threads."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before, threads = set(sys.modules), torch.get_num_threads()
    yield lambda name: __import__(name)
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent in (FOLDER, PROJECT_ROOT / "tests/heads"):
            del sys.modules[name]


@pytest.fixture
def rows(benchmark: Any, tmp_path: Path) -> Any:
    """Returns the rows, by name, of the record that a benchmark has written to tmp_path."""

    def read() -> dict[str, dict[str, Any]]:
        (path,) = tmp_path.glob("*.json")
        return {row["name"]: row for row in benchmark("results").read(path).rows}

    return read

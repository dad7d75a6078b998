import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark_files import FOLDER
from headsweep.config import PROJECT_ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks/ as it is found where it is run; the number of threads stays what it was."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before, threads = set(sys.modules), torch.get_num_threads()
    yield lambda name: __import__(name)
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent in (FOLDER, PROJECT_ROOT / "tests/heads"):
            del sys.modules[name]

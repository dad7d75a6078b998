"""Files of results, as the scripts of benchmarks/ write them."""

import json
from pathlib import Path
from typing import Any

from headsweep.config import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "benchmarks"


def rows(path: Path, benchmark: str) -> dict[str, dict[str, Any]]:
    """The rows of a file of results by name, whose format is checked."""
    content = json.loads(path.read_text())
    assert content["benchmark"] == benchmark and content["command"] and content["date"] and content["settings"]
    assert {"processor", "cores", "gpu", "threads", "load", "torch", "python"} == set(content["machine"])
    for row in content["rows"]:
        assert len({len(samples) for samples in row["samples"].values()}) == 1
        assert all(value > 0 for samples in row["samples"].values() for value in samples)
    return {row["name"]: row for row in content["rows"]}

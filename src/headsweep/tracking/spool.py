"""The spool: an append-only file, one JSON line an epoch, synced before anything else hears of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """The metrics of one moment of a run.

    `metrics` are a function of the configuration alone: a resumed run writes the same bytes. What depends on
    the machine (unix time, seconds, images per second) is in `clock`.
    """

    epoch: int
    step: int
    metrics: dict[str, float]
    clock: dict[str, float] = field(default_factory=dict)


class Spool:
    """The metrics of one run, in the order in which they were measured."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Entry) -> None:
        """Write `entry` and return when it is on disk."""
        with self.path.open("ab") as file:
            file.write(json.dumps(vars(entry), sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """All whole entries; a line that a crash tore is not one."""
        return [Entry(**json.loads(line)) for line in self._whole_lines()]

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, and a torn last line, before a run goes on from its checkpoint."""
        if not self.path.exists():
            return
        kept = [line for line in self._whole_lines() if json.loads(line)["step"] <= step]
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, kept)))
            os.fsync(file.fileno())

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def series(entries: list[Entry], metric: str) -> Mapping[int, float]:
    """Epoch -> value of `metric`."""
    return {entry.epoch: entry.metrics[metric] for entry in entries if metric in entry.metrics}

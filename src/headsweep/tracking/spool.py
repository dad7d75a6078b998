"""The spool: an append-only file, one JSON line an epoch, the truth about a run's metrics (law 6).

To write a line costs the training microseconds, to sync it milliseconds. So whatever makes the metrics known, or has
them behind it, calls `Spool.sync` first: the checkpoint, the result, and each projection of what it has read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from headsweep.tracking import durable

_encode = json.JSONEncoder(sort_keys=True).encode


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
        """Write `entry`, which every process sees then; a power cut may still take it until `sync`."""
        line = _encode(vars(entry)).encode() + b"\n"
        # Opened anew each time: a network file system hands on what was written when the file is closed.
        with self.path.open("ab", buffering=0) as file:
            while line:  # a disk that fills up takes a part, then refuses the rest
                line = line[file.write(line) :]

    def sync(self) -> None:
        """Return when all that was appended, by whichever process, is on disk."""
        if self.path.exists():
            durable.sync(self.path)

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
        self.sync()

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return list(takewhile(_is_whole, self.path.read_bytes().splitlines(keepends=True)))


def _is_whole(line: bytes) -> bool:
    """After a power cut, a block that was not yet written reads as zeros, which JSON never has."""
    return line.endswith(b"\n") and b"\0" not in line


def series(entries: list[Entry], metric: str) -> Mapping[int, float]:
    """Epoch -> value of `metric`."""
    return {entry.epoch: entry.metrics[metric] for entry in entries if metric in entry.metrics}

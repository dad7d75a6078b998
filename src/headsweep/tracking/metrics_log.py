"""The metrics log: an append-only file, one JSON line an epoch, the truth about a run's metrics (law 6).

To write a line costs the training microseconds, to sync it milliseconds. So whatever makes the metrics known, or has
them behind it, calls `MetricsLog.sync` first: the checkpoint, the result, and each projection of what it has read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged, check_shares, parse_json, read_bytes, require

MOST = 10**15  # epochs or steps: beyond what any computer takes
LATEST = 1e11  # Unix time: the year 5138, beyond which Python writes no date
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

    def check(self) -> None:
        """Raise ValueError for a moment at which no run can be, or an accuracy that none can have."""
        require("epoch", self.epoch, 1 <= self.epoch <= MOST, f"an integer in [1, {MOST}]")
        require("step", self.step, 1 <= self.step <= MOST, f"an integer in [1, {MOST}]")
        time = self.clock.get("time", 0.0)
        require("clock.time", time, 0 <= time <= LATEST, "seconds since 1970")
        check_shares(self.metrics)


class MetricsLog:
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
            atomic_files.sync(self.path)

    def entries(self) -> list[Entry]:
        """All whole entries; a line that a crash tore is not one.

        Raises:
            Damaged: a whole line is none that `append` writes.
        """
        return self._parsed(self._whole_lines())

    def last(self, count: int, tail: int) -> list[Entry]:
        """The last `count` entries, or all, from the last `tail` bytes of the file if those suffice.

        Raises:
            Damaged: as `entries`, for those lines alone.
        """
        if self.path.is_symlink():
            return self.entries()  # which refuses it
        try:
            with self.path.open("rb") as file:
                start = max(0, self.path.stat().st_size - tail)
                file.seek(start)
                lines = file.read().splitlines(keepends=True)
        except OSError:
            return self.entries()[-count:]  # says what is wrong
        whole = list(takewhile(_is_whole, lines[1 if start else 0 :]))
        if start and len(whole) < count:  # many heads make long lines
            return self.entries()[-count:]
        return self._parsed(whole[-count:])

    def rewind(self, step: int) -> None:
        """Forget what came after `step`, and a torn last line, before a run goes on from its checkpoint."""
        lines = self._whole_lines()
        if not self.path.exists():
            return
        kept = [line for line, entry in zip(lines, self._parsed(lines), strict=True) if entry.step <= step]
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, kept)))
        self.sync()

    def _whole_lines(self) -> list[bytes]:
        content = read_bytes(self.path, self._fix) or b""
        return list(takewhile(_is_whole, content.splitlines(keepends=True)))

    def _parsed(self, lines: Sequence[bytes]) -> list[Entry]:
        try:
            return [parse_json(line, Entry) for line in lines]
        except ValueError as error:
            raise Damaged(self.path, f"a line of it: {error}", self._fix) from error

    @property
    def _fix(self) -> str:
        return f"remove {self.path.parent} and give the sweep's command again"


def _is_whole(line: bytes) -> bool:
    """After a power cut, a block that was not yet written reads as zeros, which JSON never has."""
    return line.endswith(b"\n") and b"\0" not in line


def series(entries: list[Entry], metric: str) -> Mapping[int, float]:
    """Epoch -> value of `metric`."""
    return {entry.epoch: entry.metrics[metric] for entry in entries if metric in entry.metrics}

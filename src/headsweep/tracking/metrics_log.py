"""The metrics log: an append-only file with one JSON line an epoch, the authoritative record of a run's metrics.

Writing a line takes microseconds, syncing it milliseconds. So training only writes, and whatever depends on the metrics
calls `MetricsLog.sync` first: saving a checkpoint or the result, and sending metrics to a tracker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged, check_shares, parse_json, read_bytes, require

MOST = 10**15  # epochs or steps: more than any run has
LATEST = 1e11  # Unix time: the year 5138, near the limit of Python's dates
_TAIL = 4096  # bytes at the end of a log that usually hold its last epochs
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
        """Raise ValueError for values out of range."""
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
        """Write `entry`, which is then visible to every process; until `sync`, a power cut may lose it."""
        line = _encode(vars(entry)).encode() + b"\n"
        # Opened each time: a network file system transmits what was written when the file is closed.
        with self.path.open("ab", buffering=0) as file:
            while line:  # a disk that fills up accepts a part first
                line = line[file.write(line) :]

    def sync(self) -> None:
        """Return when everything that any process has appended is on disk."""
        if self.path.exists():
            atomic_files.sync(self.path)

    def entries(self) -> list[Entry]:
        """Return all entries but for a last line that a crash has cut off.

        Raises:
            Damaged: a complete line is not as `append` writes it.
        """
        return self._parsed(self._complete_lines())

    def last(self, count: int) -> list[Entry]:
        """Return the last `count` entries, or all, from the end of the file alone if that suffices.

        Raises:
            Damaged: as `entries`, for those lines alone.
        """
        if self.path.is_symlink():
            return self.entries()  # raises Damaged
        try:
            with self.path.open("rb") as file:
                start = max(0, self.path.stat().st_size - _TAIL)
                file.seek(start)
                lines = file.read().splitlines(keepends=True)
        except OSError:
            return self.entries()[-count:]  # raises Damaged, or finds no file
        complete = list(takewhile(_is_complete, lines[1 if start else 0 :]))
        if start and len(complete) < count:  # many heads make long lines
            return self.entries()[-count:]
        return self._parsed(complete[-count:])

    def check_epochs(self, entries: Sequence[Entry], count: int, source: str) -> None:
        """Check that there are all of the first `count` epochs.

        Args:
            entries: all of this log.
            count: of the epochs.
            source: the file that says so.

        Raises:
            Damaged: an epoch is absent.
        """
        found = {entry.epoch for entry in entries}
        absent = next((epoch for epoch in range(1, count + 1) if epoch not in found), None)
        if absent is not None:
            reason = f"expected the {count} epochs that {source} has, found no epoch {absent}"
            raise Damaged(self.path, reason, self._fix)

    def rewind(self, step: int) -> None:
        """Remove what comes after `step`, and a cut-off last line, before a run resumes from its checkpoint."""
        lines = self._complete_lines()
        if not self.path.exists():
            return
        kept = [line for line, entry in zip(lines, self._parsed(lines), strict=True) if entry.step <= step]
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, kept)))
        self.sync()

    def _complete_lines(self) -> list[bytes]:
        content = read_bytes(self.path, self._fix) or b""
        return list(takewhile(_is_complete, content.splitlines(keepends=True)))

    def _parsed(self, lines: Sequence[bytes]) -> list[Entry]:
        try:
            return [parse_json(line, Entry) for line in lines]
        except ValueError as error:
            raise Damaged(self.path, f"a line of it: {error}", self._fix) from error

    @property
    def _fix(self) -> str:
        return f"remove {self.path.parent} and run the sweep's command again"


def _is_complete(line: bytes) -> bool:
    """Return whether a line ends and has no zero bytes, which a power cut leaves and JSON never has."""
    return line.endswith(b"\n") and b"\0" not in line


def series(entries: list[Entry], metric: str) -> Mapping[int, float]:
    """Return epoch -> value of `metric`."""
    return {entry.epoch: entry.metrics[metric] for entry in entries if metric in entry.metrics}

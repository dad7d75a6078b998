"""Which runs train together in one process: those that read the same batches of stored tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from headsweep.plan.token_streams import stream_of
from headsweep.text import plural
from headsweep.tracking.cost import RunCost

# Further runs save little, as the batches are read once for so many already; a process that dies takes them along.
MOST_RUNS = 32
MOST_BYTES = 2**31  # of the weights, gradients and moments of a process's heads; activations are those of one head
_BYTES_PER_PARAMETER = 20  # weight, gradient, two moments, moving average


@dataclass(frozen=True)
class Candidate:
    """A run that may train together with others."""

    stream: str | None  # see `stream_of`; None: it trains by itself
    bytes: int = 0  # of the state of its head

    @staticmethod
    def of(config: Mapping[str, Any], cost: RunCost) -> Candidate:
        """Return that of a run with a configuration as in its run.json."""
        return Candidate(stream_of(config), _BYTES_PER_PARAMETER * cost.get("head_parameters", 0))


def grouped(candidates: Sequence[Candidate], slots: int) -> list[list[int]]:
    """Return the runs of each process, as indices, ordered by the first one.

    The runs of a stream are one group if there are streams for all slots. Of the streams that are left over, each is
    split, so that no slot is idle.
    """
    streams: dict[object, list[int]] = {}
    for index, candidate in enumerate(candidates):
        streams.setdefault(index if candidate.stream is None else candidate.stream, []).append(index)
    several = [runs for runs in streams.values() if len(runs) > 1]
    groups = [runs for runs in streams.values() if len(runs) == 1]
    whole = len(several) - len(several) % slots
    left = len(several) - whole
    for number, runs in enumerate(several):
        pieces = 1 if number < whole else slots // left + (number - whole < slots % left)
        groups += (part for piece in _split(runs, pieces) for part in _bounded(piece, candidates))
    return sorted(groups)


def _split(runs: Sequence[int], pieces: int) -> Iterator[list[int]]:
    """Yield pieces of about equal length, none of them empty."""
    pieces = min(pieces, len(runs))
    ends = [len(runs) * piece // pieces for piece in range(pieces + 1)]
    return (list(runs[first:end]) for first, end in pairwise(ends))


def _bounded(runs: Sequence[int], candidates: Sequence[Candidate]) -> Iterator[list[int]]:
    """Yield parts that fit into a process."""
    part: list[int] = []
    for index in runs:
        taken = sum(candidates[it].bytes for it in part) + candidates[index].bytes
        if part and (len(part) == MOST_RUNS or taken > MOST_BYTES):
            yield part
            part = []
        part.append(index)
    yield part


def shared_line(groups: Sequence[Sequence[object]]) -> str | None:
    """Return a line about the runs that train together; None if none do."""
    shared = [len(group) for group in groups if len(group) > 1]
    if not shared:
        return None
    least, most = min(shared), max(shared)
    each = f"{least}" if least == most else f"{least} to {most}"
    processes = f"{len(shared)} process{'es' * (len(shared) > 1)}"
    alone = len(groups) - len(shared)
    others = f"; {plural(alone, 'run')} by {'itself' if alone == 1 else 'themselves'}" if alone else ""
    return f"stored tokens: {sum(shared)} runs train in {processes}, {each} at a time on the same batches{others}"

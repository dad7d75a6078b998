"""Work that is done in steps, so that one process can do that of several runs in turn."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Place(NamedTuple):
    """How far a run is: what comes later in its work is larger."""

    step: int  # optimizer steps done
    evaluated: int  # batches evaluated since


START = Place(-1, 0)  # before a run is loaded
InSteps = Generator[Place, None, T]  # yields where it is after each step or evaluated batch, and returns its result


def to_the_end(work: InSteps[T]) -> T:
    """Do all of it without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value

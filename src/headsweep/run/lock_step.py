"""Train several runs in one process, step by step, so that they can share the batches that they read."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from headsweep.training.in_steps import START, InSteps, Place


def in_lock_step(
    runs: Sequence[InSteps[None]], enter: Callable[[int], None] = lambda number: None
) -> Iterator[tuple[int, Exception | None]]:
    """Train all runs to their ends. One that has failed or stopped does not affect the others.

    The run that is furthest behind goes on, so runs that were interrupted at different steps meet. Of those at one
    place each is in turn the first, which waits for the batch to be read: their times stay comparable.

    Args:
        runs: the work of each.
        enter: called with the number of a run before its turn.

    Yields:
        The number of a run that has ended, and what it raised.
    """
    settings = [_Settings.of_this_process()] * len(runs)
    waiting = [(START, number, number) for number in range(len(runs))]
    while waiting:
        _, _, number = heapq.heappop(waiting)
        enter(number)
        settings[number].apply()
        try:
            place = next(runs[number])
        except StopIteration:
            yield number, None
        except Exception as error:
            yield number, error
        else:
            heapq.heappush(waiting, (place, _turn(number, place, len(runs)), number))
        settings[number] = _Settings.of_this_process()


def _turn(number: int, place: Place, runs: int) -> int:
    return (number + place.step + place.evaluated) % runs


@dataclass(frozen=True)
class _Settings:
    """Settings of torch that belong to a process, but here to a run: they change its last bits."""

    threads: int  # those that wrote the run's checkpoint, see `TrainingState.restore`
    deterministic: bool
    warns_only: bool  # see `allow_nondeterminism`

    @staticmethod
    def of_this_process() -> _Settings:
        return _Settings(
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def apply(self) -> None:
        if self != (found := _Settings.of_this_process()):
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warns_only)
            if self.threads != found.threads:
                torch.set_num_threads(self.threads)

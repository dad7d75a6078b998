"""Batches of stored tokens that the runs of one process read once, when they are at the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from headsweep.config import RunConfig
from headsweep.data.batches import TrainBatch
from headsweep.data.loader import EvalBatch, EvalLoader, TrainLoader
from headsweep.plan.past_costs import plain
from headsweep.plan.token_streams import stream_of
from headsweep.training.batches import EvaluationBatches, TrainingBatches


class Loaders(NamedTuple):
    """Those of one run."""

    training: TrainLoader
    evaluations: Mapping[str, EvalLoader]  # by name of the split


class Batches(NamedTuple):
    """The same, of which several runs may be in the middle."""

    training: TrainingBatches
    evaluations: Mapping[str, EvaluationBatches]  # by name of the split


class TokenStreams:
    """The batches of this process, by stream."""

    def __init__(self) -> None:
        self._known: dict[str, Batches] = {}

    def batches(self, run: RunConfig, load: Callable[[], Loaders]) -> Batches:
        """Return the batches of a run with stored tokens; `load` is called for the first run of each stream."""
        stream = stream_of(plain(run))
        assert stream is not None, "the run has stored tokens"
        if stream not in self._known:
            training, evaluations = load()
            shared = {name: SharedEvaluation(batches) for name, batches in evaluations.items()}
            self._known[stream] = Batches(SharedTraining(training), shared)
        return self._known[stream]


B = TypeVar("B", TrainBatch, EvalBatch)


class _LastBatch(Generic[B]):
    """The batches of a sequence, of which the last one that was made is kept."""

    def __init__(self, batches_from: Callable[[int], Iterator[B]]) -> None:
        """`batches_from` yields the batches from a place on, perhaps not all of them."""
        self._batches_from: Callable[[int], Iterator[B]] = batches_from
        self._rest: Iterator[B] = iter(())
        self._batch: B | None = None
        self._place, self._version = -1, 0

    def __call__(self, place: int) -> B:
        """Return the batch at `place`: without work if it is that of the last call, with least work if the next."""
        if self._batch is not None and place == self._place and self._batch.images._version == self._version:
            return self._batch  # not if a head has changed it in place
        batch = next(self._rest, None) if place == self._place + 1 else None
        if batch is None:
            self._rest = self._batches_from(place)
            batch = next(self._rest)
        self._place, self._version, self._batch = place, batch.images._version, batch
        return batch


class SharedTraining:
    """Training batches, made once for all runs that ask for the same one after each other."""

    def __init__(self, loader: TrainLoader) -> None:
        self.steps_per_epoch = loader.steps_per_epoch
        self._last = _LastBatch(lambda place: loader.epoch(*divmod(place, loader.steps_per_epoch)))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainBatch]:
        """See `TrainLoader.epoch`."""
        for number in range(first, self.steps_per_epoch):
            yield self._last(epoch * self.steps_per_epoch + number)


class SharedEvaluation:
    """The same for the batches of a split."""

    def __init__(self, loader: EvalLoader) -> None:
        self._count, self._last = len(loader), _LastBatch(loader.starting_at)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[EvalBatch]:
        return (self._last(number) for number in range(self._count))

"""Successive halving: all cells train for a while, the best by validation accuracy go on, and so again until the end.

Rounds are synchronous and a choice depends on the runs' numbers alone, so the same command always chooses the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headsweep.config import Duration, DurationUnit, RunConfig
from headsweep.data.locate import has_validation
from headsweep.errors import ConfigError
from headsweep.launch.progress_bars import Display
from headsweep.plan.fingerprint import group
from headsweep.plan.plan import Plan
from headsweep.tracking.metrics_log import series
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.screening import Round, Screening
from headsweep.tracking.sweep_folder import SweepFolder

KEY = "hydra.launcher.halving"
METRIC = "val/top1"


class Pool(Protocol):
    """Where runs are trained, and pause."""

    def train(
        self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None], until: int | None
    ) -> None:
        """Train the runs in `folders` to epoch `until`, or to their end."""


class Halving:
    """The screening of one plan."""

    def __init__(self, eta: int, pool: Pool | None, plan: Plan) -> None:
        """Of the cells that are left, one in `eta` goes on after each round; without a `pool`, nothing can be trained.

        Raises:
            ConfigError: `eta` is no whole number of at least 2, or the cells cannot be screened.
        """
        if not isinstance(eta, int) or eta < 2:
            raise ConfigError(KEY, eta, "want a whole number of at least 2, or null")
        runs = [planned.run for planned in plan.runs]
        self._eta, self._pool, self._sweep, self._epochs = eta, pool, SweepFolder(plan.folder), _epochs(runs)
        _check_validation(runs)
        self._cells: dict[str, list[RunFolder]] = {}
        for planned in plan.runs:
            self._cells.setdefault(group(planned.run), []).append(planned.folder)
        self._rounds = round_ends(len(self._cells), eta, self._epochs)
        if not self._rounds:
            what = f"{len(self._cells)} cells of {self._epochs} epochs leave nothing to screen"
            raise ConfigError(KEY, eta, f"{what}; want at least {eta} cells of 2 epochs, or null")

    @property
    def opening(self) -> str:
        """The rounds in words."""
        words, left = f"halving by {self._eta}: {len(self._cells)} cells until epoch ", len(self._cells)
        for until in self._rounds:
            left = kept(left, self._eta)
            words += f"{until}, {left} until "
        return f"{words.removesuffix('until ')}to the end ({self._epochs})"

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None]) -> None:
        """Train the runs in `folders`, each as far as its cell goes; what was chosen is in the sweep's folder."""
        left, choices = self._cells, list[Round]()
        self._write(choices)  # what another command chose holds no longer
        for until in self._rounds:
            ours = {folder for cell in left.values() for folder in cell}
            self._train([it for it in folders if it in ours and _top1(it, until) is None], display, changed, until)
            scores = _scores(left, until)
            choices.append(Round(until, scores, best(scores, kept(len(left), self._eta))))
            self._write(choices)
            for folder in ours:
                changed(folder)
            display.say(f"after epoch {until}: {len(choices[-1].went_on)} of {len(left)} cells kept")
            left = {cell: left[cell] for cell in choices[-1].went_on}
        ours = {folder for cell in left.values() for folder in cell}
        self._train([folder for folder in folders if folder in ours], display, changed, None)

    def _train(
        self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None], until: int | None
    ) -> None:
        assert self._pool is not None
        if folders:
            display.expect(len(folders))
            self._pool.train(folders, display, changed, until)

    def _write(self, choices: Sequence[Round]) -> None:
        self._sweep.write_screening(Screening(self._eta, self._epochs, len(self._cells), tuple(choices)))


def round_ends(cells: int, eta: int, epochs: int) -> list[int]:
    """The epoch at which each round of screening ends; a round has at least one epoch more than the one before."""
    rounds = next(count for count in range(cells) if eta ** (count + 1) > cells)
    ends = [-(-epochs // eta ** (rounds - number)) for number in range(rounds)]  # rounded up
    return [end for end in dict.fromkeys(ends) if end < epochs]


def kept(cells: int, eta: int) -> int:
    """How many of `cells` go on."""
    return -(-cells // eta)


def best(scores: Mapping[str, float | None], count: int) -> list[str]:
    """The `count` best cells, in the order of `scores`; of equal ones the first, and what diverged (None) last."""
    numbers = {cell: -math.inf if score is None else score for cell, score in scores.items()}
    ranked = sorted(numbers, key=numbers.__getitem__, reverse=True)
    return [cell for cell in scores if cell in ranked[:count]]


def _scores(cells: Mapping[str, Sequence[RunFolder]], until: int) -> dict[str, float | None]:
    """Mean over the seeds of each cell; one with a run that has failed is not there."""
    tops = {cell: [_top1(folder, until) for folder in folders] for cell, folders in cells.items()}
    means = {cell: statistics.fmean(known) for cell, seeds in tops.items() if len(known := _known(seeds)) == len(seeds)}
    return {cell: mean if math.isfinite(mean) else None for cell, mean in means.items()}


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _top1(folder: RunFolder, until: int) -> float | None:
    """What a run is judged by: minus infinity if it diverged before; None if it has not come so far."""
    known = series(folder.metrics_log.entries(), METRIC).get(until)
    return -math.inf if known is None and folder.state() is RunState.diverged else known


def _epochs(runs: Sequence[RunConfig]) -> int:
    """How long all runs are.

    Raises:
        ConfigError: they differ, or do not count epochs.
    """
    durations = {run.duration: Duration.parse("duration", run.duration) for run in runs}
    for text, duration in durations.items():
        if duration.unit is not DurationUnit.epochs:
            raise ConfigError("duration", text, f'{KEY} counts epochs; want e.g. "20 epochs"')
    if len({duration.value for duration in durations.values()}) > 1:
        raise ConfigError("duration", ", ".join(durations), f"{KEY} compares cells at one epoch; want one duration")
    return math.ceil(next(iter(durations.values())).value)


def _check_validation(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError unless all runs hold out the same validation images for the same seed."""
    for run in runs:
        if not has_validation(run.dataset):
            raise ConfigError("dataset.validation", 0, f"{KEY} chooses by validation accuracy; want a share above 0")
    for key in ("name", "digest", "validation"):
        values = {str(getattr(run.dataset, key)): None for run in runs}
        if len(values) > 1:
            want = f"{KEY} compares accuracy on the same images; want one data set and share, in a command each"
            raise ConfigError(f"dataset.{key}", ", ".join(values), want)

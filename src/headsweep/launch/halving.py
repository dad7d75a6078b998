"""Successive halving: in each round all cells train some epochs, then the best by validation accuracy go on.

Rounds are synchronous and a choice depends on the runs' metrics alone, so the same command always chooses the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headsweep.config import Duration, DurationUnit, RunConfig, spec_of
from headsweep.data.locate import has_validation
from headsweep.errors import ConfigError
from headsweep.launch.progress_bars import Display
from headsweep.plan.code_of_runs import begin_with_current_code
from headsweep.plan.fingerprint import group
from headsweep.plan.plan import Plan
from headsweep.text import plural
from headsweep.tracking.metric_names import VAL_TOP1
from headsweep.tracking.metrics_log import series
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.screening import Round, Screening
from headsweep.tracking.sweep_folder import SweepFolder

KEY = "hydra.launcher.halving"


class Pausing(Protocol):
    """A launcher whose runs can pause after an epoch."""

    def start(
        self, missing: Sequence[RunFolder], display: Display, notify: Callable[[RunFolder], None], until: int | None
    ) -> None:
        """Train the runs in `missing` to epoch `until`, or to their end."""


class Halving:
    """The screening of one plan."""

    def __init__(self, eta: int, launcher: Pausing, plan: Plan) -> None:
        """Of the cells that are left, one in `eta` goes on after each round.

        Raises:
            ConfigError: `eta` is not an integer >= 2, or the cells cannot be screened.
        """
        if not isinstance(eta, int) or eta < 2:
            raise ConfigError(KEY, eta, "expected an integer >= 2, or null")
        runs = [planned.run for planned in plan.runs]
        self._eta, self._launcher, self._sweep, self._epochs = eta, launcher, SweepFolder(plan.folder), _epochs(runs)
        _check_validation(runs)
        _check_trained(runs)
        self._output, self._begun = plan.output, set[RunFolder]()
        self._cells: dict[str, list[RunFolder]] = {}
        for planned in plan.runs:
            self._cells.setdefault(group(planned.run), []).append(planned.folder)
        self._rounds = round_ends(len(self._cells), eta, self._epochs)
        if not self._rounds:
            found = f"found {plural(len(self._cells), 'cell')} of {plural(self._epochs, 'epoch')}"
            raise ConfigError(KEY, eta, f"expected at least {eta} cells of 2 epochs, {found}; give null, or more")

    @property
    def opening(self) -> str:
        """Return a line about the rounds."""
        words, left = f"halving by {self._eta}: {len(self._cells)} cells until epoch ", len(self._cells)
        for until in self._rounds:
            left = kept(left, self._eta)
            words += f"{until}, {left} until "
        return f"{words.removesuffix('until ')}to the end ({self._epochs})"

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Callable[[RunFolder], None]) -> None:
        """Train the runs in `missing`, each as far as its cell goes; the choices are in the sweep's folder."""
        if not missing:
            return
        left, choices = self._cells, list[Round]()
        self._write(choices)  # the choices of another command are void
        for until in self._rounds:
            of_round = {folder for cell in left.values() for folder in cell}
            self._train([it for it in missing if it in of_round and _top1(it, until) is None], display, notify, until)
            scores = _scores(left, until)
            choices.append(Round(until, scores, best(scores, kept(len(left), self._eta))))
            self._write(choices)
            for folder in of_round:
                notify(folder)
            display.say(f"after epoch {until}: {len(choices[-1].went_on)} of {len(left)} cells kept")
            left = {cell: left[cell] for cell in choices[-1].went_on}
        last = {folder for cell in left.values() for folder in cell}
        self._train([folder for folder in missing if folder in last], display, notify, None)

    def _train(
        self, folders: Sequence[RunFolder], display: Display, notify: Callable[[RunFolder], None], until: int | None
    ) -> None:
        if folders:
            # Not for all runs at once: those that are screened out are never continued with the current code.
            begin_with_current_code([it for it in folders if it not in self._begun], self._output, display.say)
            self._begun.update(folders)
            display.expect(len(folders))
            self._launcher.start(folders, display, notify, until)

    def _write(self, choices: Sequence[Round]) -> None:
        self._sweep.write_screening(Screening(self._eta, self._epochs, len(self._cells), tuple(choices)))


def round_ends(cells: int, eta: int, epochs: int) -> list[int]:
    """Return the epoch at which each round ends; a round has at least one epoch more than the one before."""
    rounds = next(count for count in range(cells) if eta ** (count + 1) > cells)
    ends = [-(-epochs // eta ** (rounds - number)) for number in range(rounds)]  # rounded up
    return [end for end in dict.fromkeys(ends) if end < epochs]


def kept(cells: int, eta: int) -> int:
    """Return how many of `cells` go on."""
    return -(-cells // eta)


def best(scores: Mapping[str, float | None], count: int) -> list[str]:
    """Return the `count` best cells, in the order of `scores`; of equal ones the first, and diverged (None) last."""
    numbers = {cell: -math.inf if score is None else score for cell, score in scores.items()}
    ranked = sorted(numbers, key=numbers.__getitem__, reverse=True)
    return [cell for cell in scores if cell in ranked[:count]]


def _scores(cells: Mapping[str, Sequence[RunFolder]], until: int) -> dict[str, float | None]:
    """Return the mean over the seeds of each cell, without cells of which a run has failed."""
    tops = {cell: [_top1(folder, until) for folder in folders] for cell, folders in cells.items()}
    means = {cell: statistics.fmean(known) for cell, seeds in tops.items() if len(known := _known(seeds)) == len(seeds)}
    return {cell: mean if math.isfinite(mean) else None for cell, mean in means.items()}


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _top1(folder: RunFolder, until: int) -> float | None:
    """Return a run's score: minus infinity if it diverged before `until`; None if it has not reached it."""
    known = series(folder.metrics_log.entries(), VAL_TOP1).get(until)
    return -math.inf if known is None and folder.state() is RunState.diverged else known


def _epochs(runs: Sequence[RunConfig]) -> int:
    """Return the duration of all runs.

    Raises:
        ConfigError: durations differ, or are not in epochs.
    """
    durations = {run.duration: Duration.parse("duration", run.duration) for run in runs}
    for text, duration in durations.items():
        if duration.unit is not DurationUnit.epochs:
            raise ConfigError("duration", text, f'expected epochs with {KEY}; give e.g. "20 epochs"')
    if len({duration.value for duration in durations.values()}) > 1:
        raise ConfigError(
            "duration", ", ".join(durations), f"expected one duration with {KEY}, which compares cells at one epoch"
        )
    return math.ceil(next(iter(durations.values())).value)


def _check_trained(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError if a head is not trained, so that it has no accuracy at the end of a round."""
    for run in runs:
        if spec_of(run.head).is_fitted:
            raise ConfigError("head", run.head.name, f"expected a head that is trained, with {KEY}; sweep it alone")


def _check_validation(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError unless all runs hold out the same validation images for the same seed."""
    for run in runs:
        if not has_validation(run.dataset):
            raise ConfigError(
                "dataset.validation", 0, f"expected a share above 0 with {KEY}, which compares validation accuracy"
            )
    for key in ("name", "digest", "validation"):
        values = {str(getattr(run.dataset, key)): None for run in runs}
        if len(values) > 1:
            expected = f"expected one data set and share with {KEY}, which compares accuracy on the same images"
            raise ConfigError(f"dataset.{key}", ", ".join(values), f"{expected}; give one command for each")

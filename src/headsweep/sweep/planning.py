"""What a grid would train: for each run its state, cost and time, from what is on disk; nothing is started.

Nothing here imports torch; costs that no run has recorded are counted by whoever is asked to.
"""

from __future__ import annotations

import heapq
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headsweep.config import Duration, RunConfig
from headsweep.errors import UserError
from headsweep.sweep.fingerprint import group
from headsweep.sweep.plan import Cost, PlannedRun, check_new, plan_of, resolve, run_names
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunResult, RunState

Check = Callable[[Sequence[RunConfig]], list[Cost | UserError]]

UNKNOWN = "?"
_OVER = {RunState.finished, RunState.diverged}
# What a step costs does not depend on these.
_NO_MATTER = {"seed", "duration", "optimizer", "schedule", "tracking", "paths", "decorrelation", "clip_norm"}


@dataclass(frozen=True)
class Row:
    """One run of the plan."""

    fingerprint: str
    name: str
    state: str  # of RunState; "done" where it is finished
    cost: Cost | None  # parameters, head_parameters, flops, head_flops
    seconds: float | None  # of training that are left, as runs of the same cost have taken; None: none has ended


@dataclass(frozen=True)
class Survey:
    """A plan that was looked at."""

    name: str
    rows: list[Row]
    bad: list[tuple[str, str]]  # name and mistake of each cell that is not valid

    @property
    def waiting(self) -> list[Row]:
        """The runs that would be trained."""
        return [row for row in self.rows if row.state not in ("done", RunState.diverged.value)]

    def eta(self, slots: int) -> tuple[float, int]:
        """Seconds until the runs of known time have ended in `slots` slots, and how many are of unknown time."""
        ends = [0.0] * slots
        known = [row.seconds for row in self.waiting if row.seconds is not None]
        for seconds in known:
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends), len(self.waiting) - len(known)


def survey(runs: Sequence[RunConfig], bad: Sequence[tuple[str, str]], check: Check | None) -> Survey:
    """Look at the data and the folders of `runs`; `bad` cells are known already.

    `check` counts the cost of new runs, or says why they cannot be built; None: only recorded costs are given.
    """
    resolved = list(zip(run_names(runs), resolve(runs), strict=True))
    bad = [*bad, *((name, str(run)) for name, run in resolved if isinstance(run, UserError))]
    good = [run for _, run in resolved if isinstance(run, RunConfig)]
    if not good:
        return Survey("", [], bad)
    plan = plan_of(good)
    answers = check_new(plan, check) if check else {}
    names = run_names([planned.run for planned in plan.runs])
    records = _Records(plan.output)
    rows = []
    for planned, name in zip(plan.runs, names, strict=True):
        answer = answers.get(planned.fingerprint)
        if isinstance(answer, UserError):
            bad.append((name, str(answer)))
        else:
            rows.append(_row(planned, name, answer, records))
    return Survey(plan.name, rows, bad)


def _row(planned: PlannedRun, name: str, cost: Cost | None, records: _Records) -> Row:
    state = planned.folder.state()
    shown = "done" if state is RunState.finished else state.value
    left = 0.0 if state in _OVER else records.seconds(planned)
    return Row(planned.fingerprint, name, shown, cost or records.costs.get(group(planned.run)), left)


class _Records:
    """What the runs in a folder have cost."""

    def __init__(self, output: Path) -> None:
        self.costs: dict[str, Cost] = {}  # by group
        self._paces: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # (seconds a step, steps an epoch)
        for record, result in _recorded(output):
            self.costs.setdefault(record.group, record.cost)
            seconds = result.clock.get("train_seconds") if result else None
            if result and seconds and result.steps and result.epochs:
                self._paces[_cost_class(record.config)].append((seconds / result.steps, result.steps / result.epochs))

    def seconds(self, planned: PlannedRun) -> float | None:
        """The training that is left of a run, at the median pace of those that cost as much a step."""
        paces = self._paces.get(_cost_class(_plain(planned.run)))
        if not paces:
            return None
        steps_per_epoch = round(statistics.median(steps for _, steps in paces))
        steps = Duration.parse("duration", planned.run.duration).steps(steps_per_epoch, planned.run.batch_size)
        done = max((entry.step for entry in planned.folder.spool.entries()), default=0)
        return statistics.median(seconds for seconds, _ in paces) * max(0, steps - done)


def _recorded(output: Path) -> Iterator[tuple[RunRecord, RunResult | None]]:
    for path in sorted((output / "runs").glob("*/run.json")):
        folder = RunFolder(path.parent)
        try:
            yield folder.record(), folder.result()
        except (OSError, ValueError, TypeError):
            continue  # damaged, or of another version: no reason not to plan


def _cost_class(config: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in config.items() if key not in _NO_MATTER}, sort_keys=True)


def _plain(run: RunConfig) -> dict[str, Any]:
    """As a run's record has it."""
    return json.loads(json.dumps(asdict(run), default=lambda value: value.value if isinstance(value, Enum) else value))


def show(survey: Survey, slots: int, as_json: bool) -> None:
    """Print a survey: a table on a terminal, plain lines elsewhere, or JSON."""
    if as_json:
        print(json.dumps(asdict(survey), indent=1))
        return
    console = Console()
    if console.is_terminal:
        console.print(_table(survey.rows))
    else:
        for row in survey.rows:
            print("  ".join(_cells(row)))
    for name, mistake in survey.bad:
        print(f"not valid  {name}: {mistake}")
    print(_totals(survey, slots))


def _table(rows: Sequence[Row]) -> Table:
    table = Table("fingerprint", "run", "state", "parameters", "FLOPs backbone + head", "time", box=None)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    cost = row.cost
    parameters = f"{cost['parameters'] / 1e6:.2f} M" if cost else UNKNOWN
    flops = f"{(cost['flops'] - cost['head_flops']) / 1e6:.1f} + {cost['head_flops'] / 1e6:.1f} M" if cost else UNKNOWN
    return [row.fingerprint, row.name, row.state, parameters, flops, "-" if row.seconds == 0 else _time(row.seconds)]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= 2 * size), (1, "s"))
    return f"{seconds / size:.0f} {unit}"


def _totals(survey: Survey, slots: int) -> str:
    bad = f"{len(survey.bad)} cell{'s' * (len(survey.bad) != 1)} not valid"
    if not survey.rows:
        return bad
    states = [f"{count} {state}" for state, count in Counter(row.state for row in survey.rows).items()]
    parts = [*states, bad] if survey.bad else states
    return f"{len(survey.rows)} runs in {survey.name}: {', '.join(parts)}; {_expectation(survey, slots)}"


def _expectation(survey: Survey, slots: int) -> str:
    count = len(survey.waiting)
    seconds, unknown = survey.eta(slots)
    if not count:
        return "nothing to train"
    if unknown == count:
        return f"{count} to train, time unknown: no run of this cost has ended yet"
    known = f"{count} to train, about {_time(seconds)} in {slots} slot{'s' * (slots != 1)}"
    return f"{known}, without {unknown} of unknown time" if unknown else known

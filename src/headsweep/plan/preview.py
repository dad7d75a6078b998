"""Preview a plan: state, cost and time of each run, from files alone; nothing is started.

Nothing here imports torch; costs that no run has recorded are counted by the caller's `check`.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from headsweep.config import RunConfig
from headsweep.config.study.points import Point
from headsweep.errors import UserError
from headsweep.plan.design import Declared
from headsweep.plan.fingerprint import group
from headsweep.plan.lookup import Lookup
from headsweep.plan.origin import Origin, described, origin_of
from headsweep.plan.past_costs import Records, cost_class, plain
from headsweep.plan.plan import PlannedRun, check_new, plan_of
from headsweep.plan.run_names import run_names
from headsweep.text import UNKNOWN, aligned, one_line, span
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_record import RunState

Check = Callable[[Sequence[RunConfig]], list[RunCost | UserError]]

HEADINGS = ("FINGERPRINT", "RUN", "STATE", "PARAMETERS", "FLOPs BACKBONE + HEAD", "TIME", "MEMORY")
FROM = "FROM"  # heading of the last column, if a run is more than a point of a product
DONE = "done"
_OVER = {RunState.finished, RunState.diverged}


@dataclass(frozen=True)
class Row:
    """One run of the plan."""

    fingerprint: str
    name: str
    state: str  # of RunState; DONE where it is finished
    cost: RunCost | None
    seconds: float | None  # training time left, from finished runs of the same cost; None: there is none
    memory_gib: float | None  # peak, from finished runs of the same cost
    origin: Origin  # in its study


@dataclass(frozen=True)
class Preview:
    """The rows of a plan and its invalid cells."""

    name: str
    rows: list[Row]
    bad: list[tuple[str, str]]  # name and error of each invalid cell
    notes: tuple[str, ...] = ()  # of the plan

    @property
    def waiting(self) -> list[Row]:
        """Runs that would be trained."""
        return [row for row in self.rows if row.state not in (DONE, RunState.diverged.value)]

    def eta(self, slots: int) -> tuple[float, int]:
        """Return the seconds that runs of known time take in `slots` slots, and the number of runs of unknown time."""
        ends = [0.0] * slots
        known = [row.seconds for row in self.waiting if row.seconds is not None]
        for seconds in known:
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends), len(self.waiting) - len(known)


def preview(
    runs: Sequence[RunConfig],
    bad: Sequence[tuple[str, str]],
    check: Check | None,
    on_gpus: bool = False,
    lookup: Lookup | None = None,
    declared: Declared | None = None,
) -> Preview:
    """Check the data and the folders of `runs`.

    Args:
        runs: the valid cells.
        bad: name and error of cells already known to be invalid.
        check: counts the cost of new runs, or returns why they cannot be built; None: only recorded costs are given.
        on_gpus: report GPU memory instead of host memory.
        lookup: has located their data already, if given.
        declared: where in a study each of `runs` comes from.

    Raises:
        ConfigError: as `design_of`.
    """
    resolved = list(zip(run_names(runs), (lookup or Lookup()).resolve(runs), strict=True))
    bad = [*bad, *((name, str(run)) for name, run in resolved if isinstance(run, UserError))]
    is_good = [isinstance(run, RunConfig) for _, run in resolved]
    good = [run for _, run in resolved if isinstance(run, RunConfig)]
    if not good:
        return Preview("", [], bad)
    if declared:
        points = [point for point, is_ in zip(declared.points, is_good, strict=True) if is_]
        declared = replace(declared, points=points)
    plan = plan_of(good, declared)
    damages = {planned.fingerprint: planned.folder.damage() for planned in plan.runs}
    plan = replace(plan, runs=tuple(planned for planned in plan.runs if not damages[planned.fingerprint]))
    bad += [(name, str(damage)) for name, damage in damages.items() if damage]
    answers = check_new(plan, check) if check else {}
    names = run_names([planned.run for planned in plan.runs])
    origins = _origins(declared, plan.cells) if declared else {}
    records = Records(plan.output)
    memory = records.gpu_memory if on_gpus else records.memory
    rows = []
    for planned, name in zip(plan.runs, names, strict=True):
        answer = answers.get(planned.fingerprint)
        if isinstance(answer, UserError):
            bad.append((name, str(answer)))
        else:
            rows.append(_row(planned, name, answer, records, memory, origins.get(planned.fingerprint, {})))
    return Preview(plan.name, rows, bad, plan.notes)


def _origins(declared: Declared, cells: Sequence[str]) -> dict[str, Origin]:
    """Return fingerprint -> origin; `cells` has the fingerprint of each point."""
    points: dict[str, list[Point]] = {}
    for fingerprint, point in zip(cells, declared.points, strict=True):
        points.setdefault(fingerprint, []).append(point)
    return {name: origin_of(found, len(declared.study.blocks)) for name, found in points.items()}


def _row(
    planned: PlannedRun,
    name: str,
    cost: RunCost | None,
    records: Records,
    memory: Mapping[str, float],
    origin: Origin,
) -> Row:
    state = planned.folder.state()
    shown = DONE if state is RunState.finished else state.value
    left = 0.0 if state in _OVER else records.seconds(planned)
    counted = cost or records.costs.get(group(planned.run))
    return Row(planned.fingerprint, name, shown, counted, left, memory.get(cost_class(plain(planned.run))), origin)


def show(plan: Preview, slots: int, more: Mapping[str, object] | None = None) -> None:
    """Print a preview: a table on a terminal, plain lines elsewhere; or, with `more` keys, JSON."""
    if more is not None:
        print(json.dumps({**asdict(plan), **more}, indent=1))
        return
    for note in plan.notes:
        print(one_line(note))
    if sys.stdout.isatty():
        heading = [*HEADINGS, *[FROM] * any(row.origin for row in plan.rows)]
        print(aligned([heading, *(_cells(row)[: len(heading)] for row in plan.rows)]))
    else:
        for row in plan.rows:
            print(one_line("  ".join(_cells(row)).rstrip()))
    for name, mistake in plan.bad:
        print(one_line(f"not valid  {name}: {mistake}"))
    print(_totals(plan, slots))


def _cells(row: Row) -> list[str]:
    cost = row.cost
    parameters = f"{cost['parameters'] / 1e6:.2f} M" if cost else UNKNOWN
    flops = f"{(cost['flops'] - cost['head_flops']) / 1e6:.1f} + {cost['head_flops'] / 1e6:.1f} M" if cost else UNKNOWN
    time = "-" if row.seconds == 0 else span(row.seconds)
    memory = UNKNOWN if row.memory_gib is None else f"{row.memory_gib:.1f} GiB"
    return [row.fingerprint, row.name, row.state, parameters, flops, time, memory, described(row.origin)]


def _totals(plan: Preview, slots: int) -> str:
    bad = f"{len(plan.bad)} cell{'s' * (len(plan.bad) != 1)} not valid"
    if not plan.rows:
        return bad
    states = [f"{count} {state}" for state, count in Counter(row.state for row in plan.rows).items()]
    parts = [*states, bad] if plan.bad else states
    runs = f"{len(plan.rows)} run{'s' * (len(plan.rows) != 1)}"
    return f"{runs} in {plan.name}: {', '.join(parts)}; {_expectation(plan, slots)}"


def _expectation(plan: Preview, slots: int) -> str:
    count = len(plan.waiting)
    seconds, unknown = plan.eta(slots)
    if not count:
        return "nothing to train"
    if unknown == count:
        return f"{count} to train, time unknown: no run of this cost has finished yet"
    known = f"{count} to train, about {span(seconds)} in {slots} slot{'s' * (slots != 1)}"
    return f"{known}, plus {unknown} of unknown time" if unknown else known

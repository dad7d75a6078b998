"""Inconsistencies between the rows of a table: mixed code versions, precisions, durations, data or seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from headsweep.config.keys import has_trait
from headsweep.config.traits import DATA
from headsweep.report.read.cells import Cell, Run
from headsweep.text import plural


@dataclass(frozen=True)
class Inconsistency:
    """One respect in which the rows of a table differ beside their axes."""

    kind: str  # code, precision, epochs, data or seeds
    sentence: str


def inconsistencies(cells: Sequence[Cell], axes: Collection[str] = ()) -> Iterator[Inconsistency]:
    """Yield every inconsistency between the cells; what the cells differ in by an axis in `axes` is none."""
    runs = [run for cell in cells for run in cell.runs]
    yield from _code(runs)
    yield from _precisions(cells, "precision" in axes)
    if "duration" not in axes:
        yield from _epochs(cells)
    if not any(has_trait(axis, DATA) for axis in axes):
        yield from _data(runs)
    yield from _seeds(cells)


def code_version(run: Run) -> str:
    return run.record.code_name


def _code(runs: Sequence[Run]) -> Iterator[Inconsistency]:
    versions = Counter(map(code_version, runs))
    if len(versions) > 1:
        yield Inconsistency(
            "code", f"MIXED CODE VERSIONS: {_counted(versions)}. Differences between rows may come from the code."
        )
    yield from _packages(runs)


def _packages(runs: Sequence[Run]) -> Iterator[Inconsistency]:
    """Compare the versions of each package among the runs that use it."""
    used: dict[str, Counter[str]] = {}
    for run in runs:
        for name, version in run.record.packages.items():
            used.setdefault(name, Counter())[version] += 1
    for name, versions in used.items():
        if len(versions) > 1:
            yield Inconsistency(
                "code",
                f"MIXED VERSIONS OF {name}: {_counted(versions)}. Differences between rows may come from its code.",
            )


def _precisions(cells: Sequence[Cell], is_axis: bool) -> Iterator[Inconsistency]:
    """Compare the precisions in which the runs were trained; of an axis, within each of its values, e.g. auto."""
    used: dict[object, Counter[str]] = {}
    for cell in cells:
        counts = used.setdefault(cell.value("precision") if is_axis else None, Counter())
        counts.update(precision for run in cell.runs if (precision := _precision(run)))
    for precisions in used.values():
        if len(precisions) > 1:
            yield Inconsistency(
                "precision",
                f"MIXED PRECISIONS: {_counted(precisions)}. Differences between rows may come from the precision.",
            )


def _precision(run: Run) -> str | None:
    """Return the precision of a run that is over; None if it was not recorded."""
    return run.result.environment.get("precision") if run.result else None


def _epochs(cells: Sequence[Cell]) -> Iterator[Inconsistency]:
    durations = dict.fromkeys(str(cell.value("duration")) for cell in cells)
    if len(durations) > 1:
        yield Inconsistency(
            "epochs",
            f"DIFFERENT DURATIONS: {', '.join(durations)}. Differences between rows may come from the duration.",
        )


def _data(runs: Sequence[Run]) -> Iterator[Inconsistency]:
    data = Counter(run.data for run in runs)
    if len(data) > 1:
        yield Inconsistency(
            "data", f"DIFFERENT DATA: {_counted(data)}. Accuracies on different data are not comparable."
        )


def _seeds(cells: Sequence[Cell]) -> Iterator[Inconsistency]:
    sets = Counter(cell.seeds for cell in cells)
    if len(sets) > 1:
        counted = "; ".join(f"{_ranges(seeds)} ({plural(count, 'cell')})" for seeds, count in sets.items())
        yield Inconsistency("seeds", f"UNEQUAL SEED SETS: {counted}. Their means are not directly comparable.")


def seed_list(seeds: Sequence[int]) -> str:
    """Return e.g. "seed 3" or "seeds 0-4, 7"."""
    return f"seed{'s' * (len(seeds) > 1)} {_ranges(sorted(seeds))}"


def _ranges(seeds: Sequence[int]) -> str:
    """Return e.g. "0-4, 7"."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{what} ({plural(count, 'run')})" for what, count in counts.items())

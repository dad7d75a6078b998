"""What must not stand in one table without a word: other code, other epochs, other images, other seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from headsweep.config.keys import has_trait
from headsweep.config.traits import DATA
from headsweep.report.read.cells import Cell, Run


@dataclass(frozen=True)
class Mixture:
    """One way in which the rows of a table are not alike beside their axes."""

    kind: str  # code, epochs, data or seeds
    sentence: str


def mixtures(cells: Sequence[Cell], axes: Collection[str] = ()) -> Iterator[Mixture]:
    """Every way in which these cells are mixed; what an axis in `axes` says of them is no mixture."""
    runs = [run for cell in cells for run in cell.runs]
    yield from _code(runs)
    if "duration" not in axes:
        yield from _epochs(cells)
    if not any(has_trait(axis, DATA) for axis in axes):
        yield from _data(runs)
    yield from _seeds(cells)


def code_version(run: Run) -> str:
    """The commit, as people write it, and whether it had changes."""
    commit = run.record.code.get("commit")
    return (commit[:10] if commit else "unknown version") + (" + changes" if run.record.code.get("dirty") else "")


def _code(runs: Sequence[Run]) -> Iterator[Mixture]:
    versions = Counter(map(code_version, runs))
    if len(versions) > 1:
        yield Mixture(
            "code", f"MIXED CODE VERSIONS: {_counted(versions)}. Differences between rows may come from the code."
        )


def _epochs(cells: Sequence[Cell]) -> Iterator[Mixture]:
    durations = dict.fromkeys(str(cell.value("duration")) for cell in cells)
    if len(durations) > 1:
        yield Mixture(
            "epochs",
            f"DIFFERENT DURATIONS: {', '.join(durations)}. Rows of different duration compare training, not heads.",
        )


def _data(runs: Sequence[Run]) -> Iterator[Mixture]:
    data = Counter(run.data for run in runs)
    if len(data) > 1:
        yield Mixture("data", f"DIFFERENT DATA: {_counted(data)}. Accuracies on other images are not comparable.")


def _seeds(cells: Sequence[Cell]) -> Iterator[Mixture]:
    sets = Counter(cell.seeds for cell in cells)
    if len(sets) > 1:
        counted = "; ".join(f"{_listed(seeds)} ({_number(count, 'cell')})" for seeds, count in sets.items())
        yield Mixture("seeds", f"UNEQUAL SEED SETS: {counted}. A mean over other seeds is another estimate.")


def seeds_in_words(seeds: Sequence[int]) -> str:
    """E.g. seed 3, or seeds 0-4, 7."""
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed(sorted(seeds))}"


def _listed(seeds: Sequence[int]) -> str:
    """E.g. 0-4, 7."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{what} ({_number(count, 'run')})" for what, count in counts.items())


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"

"""Several data sets in one verdict: mean ranks, Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from headsweep.errors import UserError
from headsweep.report.stats.inference import LEVEL
from headsweep.report.stats.ranks import LEAST_ARMS, LEAST_SETS, Ranking, rank_arms
from headsweep.report.table.columns import ABSENT, Entry, difference_entry
from headsweep.report.table.layout import Heading, Sheet
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import BETTER, Note, Row, Table
from headsweep.text import plural

TITLE = "Over data sets"
AXIS = "dataset.name"
_Arm = tuple[str, ...]  # head, number of heads and the values of the other axes


def has_several(table: Table) -> bool:
    """Return whether the table has several data sets."""
    return len(_arms(table)[1]) > 1


def sheet(table: Table) -> Sheet:
    """Return a row for each arm: its difference from the baseline on each data set, and its mean rank.

    Raises:
        UserError: there is one data set.
    """
    arms, sets = _arms(table)
    if len(sets) < 2:
        raise UserError(f"--over dataset: Friedman's test needs at least {LEAST_SETS} data sets, found 1")
    ranking = _ranking(table, arms, sets)
    headings = [Heading(name, name, is_number=name == "heads") for name in ("head", "heads", *_axes(table))]
    headings += [Heading("difference", f"Δ {name}") for name in sets] + [Heading("difference", "mean rank")]
    ranks = dict(zip(arms, ranking.mean_ranks, strict=True)) if isinstance(ranking, Ranking) else {}
    rows = []
    for arm, by_set in arms.items():
        entries = [difference_entry(by_set[name]) if name in by_set else ABSENT for name in sets]
        rank = Entry(f"{ranks[arm]:.2f}", ranks[arm]) if arm in ranks else ABSENT
        rows.append((*map(Entry, arm), *entries, rank))
    return Sheet(tuple(headings), tuple(rows), tuple(_notes(table, sets, ranking)))


def checked(table: Table) -> Sheet:
    """Return the sheet of a table that is asked for by name. Raises UserError where the test cannot be made."""
    shown = sheet(table)
    ranking = _ranking(table, *_arms(table))
    if not isinstance(ranking, Ranking):
        raise UserError(f"--over dataset: {ranking}")
    return shown


def _axes(table: Table) -> tuple[str, ...]:
    return tuple(axis for axis in table.axes if axis != AXIS and axis not in table.tuned)


def _arms(table: Table) -> tuple[dict[_Arm, dict[str, Row]], list[str]]:
    """Return arm -> data set -> its first row, and the data sets."""
    if AXIS not in table.axes:
        return {}, []
    arms: dict[_Arm, dict[str, Row]] = {}
    for row in table.rows:
        values = dict(zip(table.axes, row.axes, strict=True))
        arm = (row.head, str(row.heads), *(values[axis] for axis in _axes(table)))
        arms.setdefault(arm, {}).setdefault(values[AXIS], row)
    return arms, list(dict.fromkeys(name for by_set in arms.values() for name in by_set))


def _ranking(table: Table, arms: Mapping[_Arm, Mapping[str, Row]], sets: Sequence[str]) -> Ranking | str:
    """Return the ranking of the arms, or why there is none."""
    if len(sets) < LEAST_SETS or len(arms) < LEAST_ARMS:
        return (
            f"Friedman's test needs at least {LEAST_SETS} data sets and {LEAST_ARMS} arms, found {len(sets)} data sets "
            f"and {plural(len(arms), 'arm')}"
        )
    if table.no_claims:
        return f"Friedman's test needs arms that are tuned alike, found: {table.no_claims}"
    means = [[_mean(by_set.get(name), table.expected) for name in sets] for by_set in arms.values()]
    if gaps := sum(mean is None for of_arm in means for mean in of_arm):
        return f"Friedman's test needs every arm on every data set with all its seeds, found {gaps} incomplete cells"
    score = METRICS[table.metric].score
    return rank_arms([[score(mean) for mean in of_arm if mean is not None] for of_arm in means])


def _mean(row: Row | None, expected: Collection[int]) -> float | None:
    """Return the mean of a cell; None where seeds are missing, whose absence may have made it better."""
    if row is None or row.compared is None or not set(expected) <= set(row.seeds):
        return None
    return row.compared.mean if row.compared.n == row.planned else None


def _notes(table: Table, sets: Sequence[str], ranking: Ranking | str) -> Iterator[Note]:
    noun, seeds = METRICS[table.metric].noun, sorted({row.difference.n for row in table.by_cell if row.difference})
    n = f" (n = {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))})" if seeds else ""
    yield Note(
        f"Δ is the difference in {noun} from the baseline on the same data set, as in the table{n}; p there is "
        "corrected (Holm) over the differences on all data sets together."
    )
    if any(row.is_better for row in table.rows):
        yield BETTER
    if not isinstance(ranking, Ranking):
        yield Note(f"UNDECIDED over data sets: {ranking}.")
        return
    yield Note(f"Mean rank: rank of the mean {noun} on each data set, 1 is the best; mean over {len(sets)} data sets.")
    p = f"p = {ranking.p:.3g} ({'exact' if ranking.is_exact else 'sampled'} permutation distribution)"
    yield Note(f"Friedman's test over {len(sets)} data sets: chi-squared = {ranking.statistic:.2f}, {p}.")
    if ranking.p < LEVEL:
        yield Note(
            f"Nemenyi: two arms differ (family-wise {LEVEL:g}) if their mean ranks differ by more than "
            f"{ranking.critical_difference:.2f}."
        )
    else:
        yield Note("Friedman's test is not significant: no arm is claimed to differ from another over data sets.")

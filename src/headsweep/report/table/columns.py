"""The columns that a table can show, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headsweep.report.read.cells import MISSING
from headsweep.report.stats.inference import LEVEL, Estimate
from headsweep.report.stats.superiority import Superiority
from headsweep.report.table.inconsistencies import seed_list
from headsweep.report.table.metrics import METRICS, PERCENT, Unit
from headsweep.report.table.model import Row
from headsweep.tracking.run_record import RunState

MINUS = "\N{MINUS SIGN}"
EN_DASH = "\N{EN DASH}"
_FINISHED = RunState.finished.label
MOST_DECIMALS = 4  # of measured values
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


@dataclass(frozen=True)
class Entry:
    """One entry of a table: its text, and where it is a number also value and half-width in the unit of the column."""

    text: str
    number: float | None = None
    half_width: float | None = None
    decimals: int = 2
    sign: str = ""
    bold: bool = False
    note: str = ""  # the end of the text, after the number


Entries = Callable[[Sequence[Row]], tuple[str, list[Entry]]]  # the unit of the column, and an entry for each row


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    title: str  # with "{metric}" for the compared metric
    entries: Entries
    if_any: bool = False  # by default only shown where a row has an entry
    is_number: bool = True


ABSENT = Entry(MISSING)
UNDECIDED = Entry("undecided")


def unit_of(largest: float) -> tuple[float, str]:
    """Return the unit in which counts up to `largest` are written: its size and its letter."""
    return next((size, unit) for size, unit in _UNITS if largest >= size or size == 1)


def _cost(name: str) -> Entries:
    """A count, in the unit of the largest one, with enough digits to distinguish the counts."""

    def entries(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
        counts = {row.costs[name] for row in rows if name in row.costs}
        size, unit = unit_of(max(counts, default=0))
        decimals, exact = {"": 0, "k": 1}.get(unit, 2), round(math.log10(size))
        while decimals < exact and len({rounded(count / size, decimals) for count in counts}) < len(counts):
            decimals += 1
        return unit, [_plain(row.costs.get(name), decimals, size) for row in rows]

    return entries


def _clock(name: str, decimals: int, size: float = 1.0) -> Entries:
    def entries(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
        values = [None if (value := row.costs.get(name)) is None else value / size for row in rows]
        entries = _plains(values, decimals)
        return "", [_with_range(entry, row.ranges.get(name), size) for entry, row in zip(entries, rows, strict=True)]

    return entries


def _with_range(entry: Entry, of_seeds: tuple[float, float] | None, size: float) -> Entry:
    """Return the range of the seeds in place of their median, where it is one with the decimals of the column."""
    low, high = (rounded(value / size, entry.decimals) for value in of_seeds or (0.0, 0.0))
    return entry if low == high else Entry(f"{low}{EN_DASH}{high}")


def _plains(values: Sequence[float | None], decimals: int) -> list[Entry]:
    """Return measured values, with at least two significant digits of the smallest."""
    smallest = min((value for value in values if value), default=1.0)
    while decimals < MOST_DECIMALS and smallest < 10 ** (1 - decimals):
        decimals += 1
    return [_plain(value, decimals) for value in values]


def _plain(value: float | None, decimals: int, size: float = 1.0) -> Entry:
    if value is None:
        return ABSENT
    return Entry(human(rounded(value / size, decimals)), value / size, decimals=decimals)


def rounded(value: float, decimals: int, sign: str = "") -> str:
    """Return the value with so many decimals; what rounds to zero has no sign."""
    text = f"{value:{sign}.{decimals}f}"
    return text if float(text) else f"{0:.{decimals}f}"


def human(number: str) -> str:
    """Return a number with a typographic minus (U+2212), which is as wide as a plus."""
    return number.replace("-", MINUS)


def _head_share(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    shares = [100 * row.costs["head_flops"] / row.costs["flops"] if row.costs.get("flops") else None for row in rows]
    return "%", [_plain(share, 1) for share in shares]


def _peak_memory(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    """The peak of the GPU's memory if there is one, else of the process's."""
    memory = [row.costs.get("peak_gpu_memory_gib", row.costs.get("peak_memory_gib")) for row in rows]
    return "GiB", _plains(memory, 2)


def _live(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    """Training time with the backbone in each step, where the runs read stored tokens."""
    both = [(row.costs.get("train_seconds"), row.costs.get("live_seconds")) for row in rows]
    return "", _plains([None if own is None or live is None else (own + live) / 60 for own, live in both], 1)


def _token_size(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    """The size alone: it is the same for all seeds, but for those that began before all tokens were computed."""
    sizes = [row.costs.get("token_bytes") for row in rows]
    return "", _plains([None if size is None else size / 1e9 for size in sizes], 2)


def _n(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [ABSENT if row.state != _FINISHED else _one_n(seeds_in_mean(row), row.planned) for row in rows]


def _one_n(n: int, planned: int) -> Entry:
    return Entry(str(n) if n == planned else f"{n}/{planned}")


def _failed(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [Entry(f"{row.failed}/{row.planned}") if row.failed else ABSENT for row in rows]


def seeds_in_mean(row: Row) -> int:
    """Return the number of seeds in the mean of the compared metric."""
    return row.compared.n if row.compared else 0


def _metric(name: str) -> Entries:
    def entries(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
        return "", [_one_metric(row, name) for row in rows]

    return entries


def _one_metric(row: Row, name: str) -> Entry:
    if row.state != _FINISHED and name == row.metric:
        states = {row.state: row.seeds, **row.others}
        return Entry(", ".join(f"{state} ({seed_list(seeds)})" for state, seeds in states.items()))
    found = row.estimates.get(name)
    return metric_entry(found, METRICS[name].unit, "", row.is_better and name == row.metric, _own_n(row, found))


def _own_n(row: Row, of: Estimate | Superiority | None) -> str:
    """Return the number of seeds of a value where it is not that of the row."""
    return f"(n={of.n})" if of and of.n != seeds_in_mean(row) else ""


def metric_entry(value: Estimate | None, unit: Unit, sign: str = "", bold: bool = False, note: str = "") -> Entry:
    """Return a metric or a difference in its unit with its half-width, and a note in brackets after it."""
    if value is None:
        return ABSENT
    mean, half = unit.size * value.mean, None if value.half_width is None else unit.size * value.half_width
    decimals = decimals_of(half, unit)
    text = human(rounded(mean, decimals, sign)) + ("" if half is None else f" ± {half:.{decimals}f}")
    return Entry(f"{text} {note}".rstrip(), mean, half, decimals, sign, bold, note)


def decimals_of(half: float | None, unit: Unit = PERCENT) -> int:
    """Return the decimals of a metric with this half-width: ± 0.00 would mean no spread at all."""
    decimals, most = unit.decimals, unit.decimals + MOST_DECIMALS - PERCENT.decimals
    while half and decimals < most and not float(f"{half:.{decimals}f}"):
        decimals += 1
    return decimals


def _difference(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [difference_entry(row) for row in rows]


def difference_entry(row: Row) -> Entry:
    """Return the difference of a row from its baseline, with its own n where fewer seeds are common."""
    if row.is_baseline:
        return Entry("baseline")
    return metric_entry(row.difference, METRICS[row.metric].unit, "+", row.is_better, _own_n(row, row.difference))


def _over_images(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    found = [(row, row.estimate_over_images) for row in rows]
    return "", [metric_entry(value, PERCENT, note=_own_n(row, value)) for row, value in found]


def _difference_over_images(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    found = [(row, row.difference_over_images) for row in rows]
    return "", [metric_entry(value, PERCENT, "+", note=_own_n(row, value)) for row, value in found]


def _superiority(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [ABSENT if row.superiority is None else _one_superiority(row, row.superiority) for row in rows]


def _one_superiority(row: Row, of: Superiority) -> Entry:
    return Entry(f"{of.probability:.2f} ({of.low:.2f} to {of.high:.2f}) {_own_n(row, of)}".rstrip())


def _verdict(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [ABSENT if row.verdict is None else Entry(row.verdict.text) for row in rows]


def _p(get: Callable[[Row], float | None]) -> Entries:
    def entries(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
        return "", [UNDECIDED if _is_withheld(row) else p_entry(get(row)) for row in rows]

    return entries


def _is_withheld(row: Row) -> bool:
    """Return whether the difference has a p that supports no claim."""
    return row.undecided is not None and row.difference is not None and row.difference.p is not None


def _mcnemar(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [p_entry(row.mcnemar_p) for row in rows]


def p_entry(p: float | None) -> Entry:
    """Return a p-value, with enough decimals to show on which side of the level it is."""
    if p is None:
        return ABSENT
    if p < 0.001:
        return Entry("< 0.001")
    decimals = 3
    while p < LEVEL <= float(f"{p:.{decimals}f}"):  # 0.050 beside a bold number would contradict it
        decimals += 1
    return Entry(f"{p:.{decimals}f}", p, decimals=decimals)


def _published(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [_one_published(published_values(row, "top1")) for row in rows]


def _one_published(values: list[float]) -> Entry:
    text = " / ".join(f"{top1:.2f}" for top1 in values) or MISSING
    return Entry(text, values[0] if len(values) == 1 else None)


def published_values(row: Row, metric: str) -> list[float]:
    """Return the published values of a metric in the unit of the paper, one for each source that has one."""
    return [number.value for entry in row.published if (number := getattr(entry, metric)) is not None]


def _flags(rows: Sequence[Row]) -> tuple[str, list[Entry]]:
    return "", [Entry(", ".join(row.flags)) if row.flags else ABSENT for row in rows]


_ALL = [
    Column("parameters", "params", _cost("parameters")),
    Column("head_parameters", "head params", _cost("head_parameters")),
    Column("flops", "FLOPs", _cost("flops")),
    Column("head_flops", "head FLOPs", _cost("head_flops")),
    Column("head_share", "head share", _head_share),
    Column("images_per_second", "images/s", _clock("images_per_second", 0)),
    Column("peak_memory", "memory", _peak_memory),
    Column("time", "minutes", _clock("train_seconds", 1, 60)),
    Column("time_live", "minutes live", _live),
    Column("token_time", "token minutes", _clock("token_seconds", 1, 60)),
    Column("token_size", "token GB", _token_size),
    Column("n", "n", _n),
    Column("failed", "failed", _failed, if_any=True),
    *(Column(name, metric.title, _metric(name)) for name, metric in METRICS.items()),
    Column("top1_images", "top-1 % over images", _over_images, if_any=True),
    Column("published", "published", _published, if_any=True),
    Column("difference", "Δ {metric}", _difference),
    Column("difference_images", "Δ top-1 over images", _difference_over_images, if_any=True),
    Column("p_better", "P(better)", _superiority),
    Column("verdict", "verdict", _verdict, if_any=True, is_number=False),
    Column("p", "p", _p(lambda row: row.p), if_any=True),
    Column("p_sign_flip", "p sign-flip", _p(lambda row: row.sign_flip_p)),
    Column("p_mcnemar", "p McNemar*", _mcnemar, if_any=True),
    Column("flags", "flags", _flags, if_any=True, is_number=False),
]
COLUMNS: dict[str, Column] = {column.name: column for column in _ALL}
DEFAULT = (
    "parameters", "flops", "head_share", "images_per_second", "n", "failed", "top1", "top1_images", "published", "top5",
    "difference", "difference_images", "verdict", "p", "p_mcnemar", "flags",
)  # fmt: skip
# Left out on a narrow screen, in this order.
EXPENDABLE = ("head_share", "top5", "images_per_second", "flops", "parameters")

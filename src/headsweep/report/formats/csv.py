"""A table for programs: one line a row, accuracies in [0, 1], log loss in nats and counts in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from headsweep.report.read.cells import MEASURED_COSTS, TOKEN_COSTS
from headsweep.report.stats.inference import Estimate
from headsweep.report.table.clocks import CLOCKS
from headsweep.report.table.columns import published_values, seeds_in_mean
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Row, Table
from headsweep.report.table.published_check import within_tolerance
from headsweep.text import one_line
from headsweep.tracking.cost import MODEL_COSTS

_ENDS = ((0, "min"), (1, "max"))


def write(table: Table) -> str:
    """Return the table as CSV; an empty field is a missing number."""
    records = [_escaped(record(table, row)) for row in table.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(key for one in records for key in one), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def escape(value: object) -> object:
    """Return the value, text in one line; text that a spreadsheet would read as a formula gets an apostrophe."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _escaped(record: Mapping[str, object]) -> dict[object, object]:
    return {escape(key): escape(value) for key, value in record.items()}


def record(table: Table, row: Row) -> dict[str, object]:
    """Return all values of a row by name."""
    metrics = dict.fromkeys(name for other in table.rows for name in other.estimates) or ("top1", "top5")
    return {
        "head": row.head,
        "heads": row.heads,
        **dict(zip(table.axes, row.axes, strict=True)),
        "state": row.state,
        "n": seeds_in_mean(row),
        "planned": row.planned,
        "failed": row.failed,
        "seeds": " ".join(map(str, row.seeds)),
        **{name: row.costs.get(name) for name in (*MODEL_COSTS, *MEASURED_COSTS)},
        **_tokens(table, row),
        **{f"{name}_{end}": row.ranges.get(name, (None, None))[at] for name in CLOCKS.values() for at, end in _ENDS},
        **{key: value for name in metrics for key, value in _fields(name, row.estimates.get(name)).items()},
        **_fields("difference", row.difference),
        **_over_images(table, row),
        **_superiority(row),
        **_verdict(table, row),
        "difference_p": row.difference.p if row.difference else None,
        "difference_p_holm": row.p,
        "difference_p_sign_flip": row.difference.sign_flip_p if row.difference else None,
        "difference_p_sign_flip_holm": row.sign_flip_p,
        "p_mcnemar_holm": row.mcnemar_p,
        "undecided": row.undecided,
        "flags": "; ".join(row.flags),
        "published_top1": " ".join(f"{number / 100:.6g}" for number in published_values(row, "top1")),
        "published_top5": " ".join(f"{number / 100:.6g}" for number in published_values(row, "top5")),
        "published_source": "; ".join(f"{entry.source}, {entry.printed_as}" for entry in row.published),
        "within_tolerance": within_tolerance(row),
        "fingerprints": " ".join(row.fingerprints),
    }


def _over_images(table: Table, row: Row) -> dict[str, object]:
    """Return the intervals over images, if the table has any."""
    if not any(other.estimate_over_images for other in table.rows):
        return {}
    return {
        **_fields("top1_over_images", row.estimate_over_images),
        **_fields("difference_over_images", row.difference_over_images),
        "images": row.estimate_over_images.images if row.estimate_over_images else None,
    }


def _tokens(table: Table, row: Row) -> dict[str, object]:
    """Return the costs of stored tokens, if a row has any."""
    has_any = any(name in other.costs for other in table.rows for name in TOKEN_COSTS)
    return {name: row.costs.get(name) for name in TOKEN_COSTS} if has_any else {}


def _verdict(table: Table, row: Row) -> dict[str, object]:
    """Return the verdict and its p, if the table has a margin."""
    if table.margin is None:
        return {}
    return {
        "margin": table.margin.points / METRICS[table.metric].unit.size,
        "verdict": row.verdict.text if row.verdict else None,
        "difference_p_not_worse_holm": row.verdict.not_worse_p if row.verdict else None,
        "difference_p_equivalent_holm": row.verdict.equivalent_p if row.verdict else None,
    }


def _superiority(row: Row) -> dict[str, object]:
    of = row.superiority
    return {
        "p_better": of.probability if of else None,
        "p_better_low": of.low if of else None,
        "p_better_high": of.high if of else None,
    }


def _fields(name: str, value: Estimate | None) -> dict[str, object]:
    return {
        f"{name}_mean": value.mean if value else None,
        f"{name}_half_width": value.half_width if value else None,
        f"{name}_n": value.n if value else None,
    }

"""The variants of a study are one axis, by their names; the others are compared with its baseline variant."""

from __future__ import annotations

import pytest
from made_arms import LR, made_setting
from rendering import as_csv, as_markdown

from headsweep.errors import UserError
from headsweep.report.table.build import compare
from headsweep.report.table.layout import pivot
from headsweep.report.table.model import Question, Table
from headsweep.tracking.design import Design

BETTER = [0.861, 0.862, 0.863, 0.859, 0.864]
VARIANTS = {
    "paper": {"ema_decay": 0.0, "augmentation.mixup": 0.8},
    "no mixup": {"ema_decay": 0.0, "augmentation.mixup": 0.0},
    "EMA": {"ema_decay": 0.999, "augmentation.mixup": 0.8},
}


def study(**more):
    """Two heads by three variants, of which EMA is better."""
    return [
        made_setting(head, BETTER if name == "EMA" else 0.80, variant=name, **keys(values), **more)
        for head in ("seqpool", "ga")
        for name, values in VARIANTS.items()
    ]


def keys(values):
    return {key.replace(".", "__"): value for key, value in values.items()}


def declared(cells, *keys: str, **options) -> Table:
    variants = {cell.record.group: cell.variant for cell in cells if cell.variant}
    design = Design(variants, list(keys or ("ema_decay", "augmentation.mixup")), baseline="paper")
    return compare(cells, Question(design=design, **options))


def test_the_names_take_the_place_of_the_keys_that_variants_set():
    table = declared(study())
    assert table.axes == ("variant",)
    assert [row.axes for row in table.rows] == [(name,) for name in VARIANTS] * 2
    assert [row.flags for row in table.rows] == [()] * 6  # variants are no tuning
    assert [row["variant"] for row in as_csv(table)] == [*VARIANTS] * 2
    assert "NOT TUNED" not in as_markdown(table)


def test_variants_are_compared_with_the_baseline_variant_of_the_same_head():
    table = declared(study())
    assert [row.is_baseline for row in table.rows] == [True, False, False] * 2
    assert [row.is_better for row in table.rows] == [False, False, True] * 2
    text = as_markdown(table)
    assert "from the baseline (variant=paper, and otherwise the same configuration)" in text
    assert "over 4 planned differences" in text


def test_the_baseline_can_be_another_variant_or_a_head():
    ema = declared(study(), baseline={"variant": "EMA"})
    assert [row.is_baseline for row in ema.rows] == [False, False, True] * 2
    heads = declared(study(), baseline={"head": "ga"})
    assert [row.is_baseline for row in heads.rows] == [False] * 3 + [True] * 3
    assert [row.difference is not None for row in heads.rows] == [True] * 3 + [False] * 3
    both = declared(study(), baseline={"head": "seqpool", "variant": "paper"})
    assert [row.is_baseline for row in both.rows] == [True] + [False] * 5
    assert all(row.difference for row in both.rows[1:])
    with pytest.raises(
        UserError, match="--baseline variant=AMP: no such cell among 6; variant is paper, no mixup, EMA"
    ):
        declared(study(), baseline={"variant": "AMP"})


def test_a_pivot_has_the_variants_down_and_the_heads_across():
    sheet = pivot(declared(study()), ("variant",), ("head",))
    assert [row[0].text for row in sheet.rows] == [*VARIANTS]
    assert [heading.group for heading in sheet.headings] == ["", "head seqpool", "head ga"]
    assert [entry.bold for entry in sheet.rows[2][1:]] == [True, True]


def test_a_variant_may_change_the_head_or_its_options():
    wide = [made_setting("ga", 0.80, variant="paper"), made_setting("ga", BETTER, variant="wide", head__gram_dim=384)]
    table = declared(wide, "head.gram_dim")
    assert (table.axes, table.rows[1].is_better) == (("variant",), True)
    other = [made_setting("ga", 0.80, variant="paper"), made_setting("seqpool", BETTER, variant="no gram")]
    assert declared(other, "head.name", "head.gram_dim").rows[1].is_better


def test_cells_of_one_variant_that_differ_in_one_of_its_keys_get_a_column_for_it():
    cells = [
        made_setting("ga", 0.8, variant=name, ema_decay=decay)
        for name, decays in (("paper", (0.0,)), ("EMA", (0.99, 0.999)))
        for decay in decays
    ]
    assert declared(cells, "ema_decay").axes == ("variant", "ema_decay")


def test_cells_without_a_variant_have_none_in_the_column():
    cells = [*study(), made_setting("gap", 0.80, ema_decay=0.0, augmentation__mixup=0.8)]
    assert declared(cells).rows[-1].axes == ("—",)


def test_without_the_runs_of_the_baseline_variant_nothing_is_compared():
    table = declared([cell for cell in study() if cell.variant != "paper"])
    assert not any(row.difference or row.is_baseline for row in table.rows)


def test_the_settings_of_each_variant_are_tuned():
    cells = [
        made_setting(
            head, [top + (rate == 1e-3) / 20 for top in BETTER], 0.7 + rate, name, optimizer__lr=rate, **keys(values)
        )
        for head in ("seqpool", "ga")
        for name, values in VARIANTS.items()
        for rate in (1e-3, 3e-3)
    ]
    table = declared(cells, tune=(LR,))
    assert table.axes == ("variant", LR)
    assert [row.axes for row in table.rows] == [(name, "0.003") for name in VARIANTS] * 2
    assert [row.is_baseline for row in table.rows] == [True, False, False] * 2

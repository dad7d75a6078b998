"""The setting of each arm is chosen on validation images, at equal budgets; without a choice, nothing is claimed."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from made_arms import LR, learning_rates, made_setting, with_val
from made_cells import made_cell
from rendering import as_csv, as_markdown

from headsweep.errors import UserError
from headsweep.report.formats import json as json_format
from headsweep.report.html.labels import series_label
from headsweep.report.table.build import compare
from headsweep.report.table.layout import pivot
from headsweep.report.table.model import Question, Table
from headsweep.tracking.run_record import RunState

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def tuned(cells, *keys, **options) -> Table:
    return compare(cells, Question(tune=keys or (LR,), **options))


def notes(table: Table) -> str:
    return " ".join(note.text for note in table.footnotes)


def settings(table: Table) -> list[tuple[str, ...]]:
    return [arm.chosen.values for arm in table.arms]


def test_the_best_of_several_learning_rates_is_not_bold_against_the_same_rate_of_the_baseline():
    """Bold until now: ga at 1e-2, where seqpool is at its worst; at its best rate, seqpool is better than ga at its."""
    table = compare(learning_rates(), Question())
    ga = table.rows[5]
    assert 100 * ga.difference.mean == pytest.approx(24.58)
    assert round(100 * ga.difference.half_width, 2) == 1.63
    assert ga.difference.p < 0.001
    assert (ga.p, ga.is_better) == (None, False)
    text = as_markdown(table)
    assert "**" not in text
    assert f"NOT TUNED: {LR} varies and no value was chosen on validation images, so nothing is bold" in text
    assert "Best settings of the baseline: head=seqpool heads=1 at optimizer.lr=0.003 (val top-1 84.23 %)." in text
    assert f"`headsweep table --tune {LR}`" in text.replace("\\", "")


def test_without_validation_images_the_best_setting_of_the_baseline_is_that_on_test_images():
    text = notes(compare(learning_rates(val=False), Question()))
    assert "head=seqpool heads=1 at optimizer.lr=0.003 (top-1 85.23 %)" in text
    assert "--tune" not in text and "validation images (dataset.validation > 0) can be tuned" in text


def test_a_row_at_a_setting_that_the_baseline_was_not_tried_at_is_flagged_and_counted():
    cells = [made_setting("seqpool", [0.85, 0.852, 0.849, 0.851, 0.853], optimizer__lr=1e-3)]
    cells += [made_setting("ga", 0.84 + rate, optimizer__lr=rate) for rate in RATES]
    table = compare(cells, Question())
    assert [row.difference is not None for row in table.rows] == [False, False, False, True, False, False]
    assert [row.flags for row in table.rows] == [(), *([("tuning 5 to 1",)] * 5)]
    assert "over 5 planned differences" in notes(table)
    assert not any(row.is_better for row in table.rows)


def test_the_settings_that_are_best_on_validation_images_are_compared_on_test_images():
    table = tuned(learning_rates())
    assert settings(table) == [("0.003",), ("0.01",)]
    seqpool, ga = table.rows
    assert (seqpool.axes, ga.axes) == (("0.003",), ("0.01",))
    assert 100 * ga.difference.mean == pytest.approx(84.56 - 85.23)
    assert not ga.is_better and ga.undecided is None
    text = notes(table)
    assert (
        "optimizer.lr, chosen for each row among 3 settings (0.001, 0.003, 0.01) by the mean over seeds of val" in text
    )
    assert "Chosen: optimizer.lr=0.003 for head=seqpool heads=1; optimizer.lr=0.01 for head=ga heads=1." in text
    assert "over 1 planned difference." in text  # arms, not cells
    assert "otherwise the same configuration but for optimizer.lr" in text
    assert "NOT TUNED" not in text and "UNEQUAL" not in text


def test_a_tuned_head_that_is_better_is_bold():
    cells = [made_setting("seqpool", 0.80 + rate, 0.8, optimizer__lr=rate) for rate in (1e-3, 1e-2)]
    tops = [0.861, 0.862, 0.863, 0.859, 0.864]
    cells += [made_setting("ga", tops, 0.8 + rate, optimizer__lr=rate) for rate in (1e-3, 1e-2)]
    table = tuned(cells)
    assert [row.is_better for row in table.rows] == [False, True]
    assert "**+6.08" in as_markdown(table)


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_does_not_depend_on_test_metrics(seed):
    cells = learning_rates()
    finished = [run.result.metrics["test/top1"] for cell in cells for run in cell.runs]
    random.Random(seed).shuffle(finished)
    permuted = iter(finished)

    def with_other_test(run):
        return replace(run, result=replace(run.result, metrics={**run.result.metrics, "test/top1": next(permuted)}))

    others = [replace(cell, runs=tuple(map(with_other_test, cell.runs))) for cell in cells]
    table = tuned(others)
    assert settings(table) == settings(tuned(cells))
    assert [row.compared.mean for row in table.rows] != [row.compared.mean for row in tuned(cells).rows]


def test_the_maximum_over_epochs_plays_no_part():
    """`best/epoch` and what is logged for it are other numbers than the last epoch's."""
    cells = learning_rates()
    worst = cells[0]
    runs = [
        replace(
            run,
            result=replace(run.result, metrics={**run.result.metrics, "best/top1": 1.0}),
            history=lambda _: {1: 1.0},
        )
        for run in worst.runs
    ]
    assert settings(tuned([replace(worst, runs=tuple(runs)), *cells[1:]])) == [("0.003",), ("0.01",)]


def test_unequal_numbers_of_settings_are_refused_and_marked_without_bold():
    cells = learning_rates()[1:]
    with pytest.raises(UserError, match=r"UNEQUAL TUNING: 2 settings of head=seqpool heads=1; 3 .* Add --mark"):
        tuned(cells)
    cells = [with_val(cell, [0.9] * 5) if cell.value(LR) == 1e-2 else cell for cell in cells]
    table = tuned(cells, mark=True)
    assert settings(table) == [("0.01",), ("0.01",)]
    assert table.rows[1].difference.p < 0.001
    assert (table.rows[1].undecided, table.rows[1].is_better) == ("arms not tuned alike", False)
    assert table.rows[1].flags[0] == "tuning 3 to 2"
    assert "UNEQUAL TUNING" in as_markdown(table) and "**" not in as_markdown(table)


def test_unequal_seeds_between_the_settings_of_an_arm_are_refused():
    cells = learning_rates()
    fewer = replace(cells[3], runs=cells[3].runs[:4])
    unfinished = made_cell("ga", [0.7, 0.7, 0.7, 0.7, RunState.partial], parameters={LR: 1e-3})
    for cell in (fewer, with_val(unfinished, [0.7] * 5)):
        others = [*cells[:3], cell, *cells[4:]]
        with pytest.raises(UserError, match=r"UNEQUAL SEEDS BETWEEN SETTINGS of 1 arm \(head=ga heads=1\)"):
            tuned(others)
        assert "UNEQUAL SEEDS BETWEEN" in notes(tuned(others, mark=True))


def test_a_choice_among_runs_that_have_not_ended_is_refused_and_marked_as_provisional():
    tops = [0.8, 0.81, RunState.running]
    cells = [made_setting("ga", tops, val, optimizer__lr=lr) for lr, val in ((0.001, 0.7), (0.01, 0.8))]
    with pytest.raises(UserError, match="NOT ENDED: 2 of 6 runs; the choice of settings is provisional"):
        tuned(cells)
    marked = notes(tuned(cells, mark=True))
    assert "NOT ENDED" in marked and "Chosen, provisionally: optimizer.lr=0.01 for head=ga heads=1." in marked
    assert "Chosen: " in notes(tuned(learning_rates()))


def test_of_equal_settings_the_first_in_the_order_of_the_plan_is_chosen():
    cells = [made_setting(head, 0.8, 0.7, optimizer__lr=rate) for head in ("seqpool", "ga") for rate in (1e-2, 1e-3)]
    table = tuned(cells)
    assert settings(table) == [("0.01",), ("0.01",)]
    assert [arm.tied for arm in table.arms] == [2, 2]
    assert "Equal val top-1: of head=seqpool heads=1, head=ga heads=1, the first in the order of the plan" in notes(
        table
    )


@pytest.mark.parametrize("state", [RunState.diverged, RunState.failed])
def test_a_setting_that_lost_a_seed_counts_as_worst(state):
    """Even if its other seeds are the best: it would be chosen by its survivors."""
    cells = learning_rates()
    lost = with_val(made_cell("ga", [0.9, 0.9, state, 0.9, 0.9], parameters={LR: 1e-2}), [0.9] * 5)
    table = tuned([*cells[:5], lost])
    assert settings(table) == [("0.003",), ("0.003",)]
    assert table.arms[1].settings[2].lost == 1
    assert "1 of 6 settings count as worst" in notes(table)


def test_a_setting_whose_validation_metric_is_not_finite_counts_as_worst():
    cells = learning_rates()
    assert settings(tuned([*cells[:5], with_val(cells[5], [float("nan"), *[0.9] * 4])])) == [("0.003",), ("0.003",)]


def test_an_arm_that_lost_all_settings_shows_the_first_and_claims_nothing():
    cells = learning_rates()[:3]
    cells += [made_cell("ga", [RunState.diverged] * 5, parameters={LR: rate}) for rate in (1e-3, 3e-3, 1e-2)]
    table = tuned(cells)
    assert [(row.head, row.state, row.axes) for row in table.rows][1:] == [("ga", "diverged", ("0.001",))]
    assert "NO SETTING without such a run: of head=ga heads=1, the first" in notes(table)


def test_a_choice_at_the_edge_of_three_or_more_values_is_flagged():
    table = tuned(learning_rates())
    assert [row.flags for row in table.rows] == [(), ("lr at the upper edge",)]
    assert "AT THE EDGE of the values that were tried: head=ga heads=1 (lr at the upper edge)" in notes(table)
    lowest = [with_val(cell, [0.9 - cell.value(LR)] * 5) for cell in learning_rates()]
    assert [row.flags for row in tuned(lowest).rows] == [("lr at the lower edge",)] * 2
    two = [cell for cell in learning_rates() if cell.value(LR) > 1e-3]
    assert all(not row.flags for row in tuned(two).rows)


def test_settings_without_an_order_have_no_edge():
    cells = [made_setting("ga", 0.8, 0.7, optimizer__name=name) for name in ("adamw", "sgd", "lamb")]
    assert [row.flags for row in tuned(cells, "optimizer.name").rows] == [()]


def test_without_validation_images_nothing_is_tuned():
    cells = learning_rates(val=False)
    with pytest.raises(UserError, match="NO VALIDATION IMAGES, NO TUNING: 6 of 6 cells have none"):
        tuned(cells)
    table = tuned(cells, mark=True)
    assert (len(table.rows), table.arms, table.tuned) == (6, (), ())
    assert not any(row.is_better for row in table.rows)


def test_a_metric_of_the_validation_images_is_not_reported_for_a_choice_by_them():
    with pytest.raises(UserError, match="SELECTED ON THE REPORTED IMAGES: val_top1 is of the images"):
        tuned(learning_rates(), metric="val_top1")


def test_several_keys_are_tuned_together():
    values = [(rate, decay) for rate in (1e-3, 1e-2) for decay in (0.0, 0.1)]
    cells = [
        made_setting(head, 0.8, 0.5 + rate - decay, optimizer__lr=rate, optimizer__weight_decay=decay, heads=heads)
        for head in ("seqpool", "ga")
        for heads in (1, 4)
        for rate, decay in values
    ]
    table = tuned(cells, LR, "optimizer.weight_decay")
    assert settings(table) == [("0.01", "0.0")] * 4
    assert [row.is_baseline for row in table.rows] == [True, True, False, False]
    assert "among 4 settings (0.001 0.0, 0.001 0.1, 0.01 0.0, 0.01 0.1)" in notes(table)
    only = tuned(cells, LR)
    assert len(only.rows) == 8 and "NOT TUNED: optimizer.weight_decay varies" in notes(only)


def test_a_pivot_needs_no_column_for_a_tuned_key():
    sheet = pivot(tuned([*learning_rates(), *learning_rates(heads=4)]), ("head",), ("heads",))
    assert [heading.group for heading in sheet.headings] == ["", "heads 1", "heads 4"]


def test_the_candidates_of_each_row_are_on_the_table():
    table = tuned(learning_rates())
    seqpool = table.arms[0]
    assert [setting.values for setting in seqpool.settings] == [("0.001",), ("0.003",), ("0.01",)]
    assert seqpool.chosen.val == dict.fromkeys(range(5), pytest.approx(0.8423))
    assert seqpool.chosen.test[1] == pytest.approx(0.8523 + 0.0165)
    assert len(table.cells) == 6


def test_csv_and_json_have_the_chosen_settings():
    table = tuned(learning_rates())
    assert [row[LR] for row in as_csv(table)] == ["0.003", "0.01"]
    content = json.loads(json_format.write(table, "headsweep table made"))
    assert content["tuned"] == [LR]
    assert [row[LR] for row in content["rows"]] == ["0.003", "0.01"]


# Hyper-parameters of one head, and what is compared on purpose.


def gram_dims(*dims: int):
    seqpool = made_setting("seqpool", 0.80)
    tops = [0.862, 0.861, 0.863, 0.859, 0.864]
    return [seqpool, *(made_setting("ga", [top + dim / 1e4 for top in tops], head__gram_dim=dim) for dim in dims)]


def test_an_option_of_one_head_is_a_hyper_parameter():
    assert compare(gram_dims(32), Question()).rows[1].is_better
    table = compare(gram_dims(32, 64), Question())
    assert [row.flags for row in table.rows] == [(), ("tuning 2 to 1",), ("tuning 2 to 1",)]
    cells = [with_val(cell, [0.7] * 5) for cell in gram_dims(32, 64)]
    assert "With as many settings for each row, `headsweep table --tune" in notes(compare(cells, Question()))
    assert not any(row.is_better for row in table.rows)
    assert "NOT TUNED: head.gram_dim varies" in notes(table)


def test_the_options_of_a_head_tell_tuned_arms_apart():
    """As in a study with a conditional axis: each option is an arm with as many settings as the baseline."""
    tops = [0.862, 0.861, 0.863, 0.859, 0.864]
    cells = [made_setting("seqpool", 0.80, 0.7 + rate, optimizer__lr=rate) for rate in (0.001, 0.01)]
    for dim in (32, 64):
        shifted = [top + dim / 1e4 for top in tops]
        cells += [
            made_setting("ga", shifted, 0.7 + rate, optimizer__lr=rate, head__gram_dim=dim) for rate in (0.001, 0.01)
        ]
    table = tuned(cells)
    assert "NOT TUNED" not in notes(table)
    assert [row.is_better for row in table.rows] == [False, True, True]
    ps = sorted(row.difference.p for row in table.rows[1:])
    assert sorted(row.p for row in table.rows[1:]) == pytest.approx([2 * ps[0], max(2 * ps[0], ps[1])])


def test_a_hyper_parameter_that_the_baseline_names_is_what_the_table_compares():
    cells = [made_setting("ga", 0.80, head__gram_dim=32)]
    cells.append(made_setting("ga", [0.862, 0.861, 0.863, 0.859, 0.864], head__gram_dim=64))
    cells.append(made_setting("seqpool", 0.85))
    table = compare(cells, Question(baseline={"head.gram_dim": "32"}))
    assert [row.is_better for row in table.rows] == [False, True, False]
    assert [row.is_baseline for row in table.rows] == [True, False, False]
    assert table.rows[2].difference is None  # another head
    assert "NOT TUNED" not in notes(table)


@pytest.mark.parametrize("baseline", [{"head": "ga"}, {}])
def test_the_note_names_which_of_several_settings_of_the_baseline_was_taken(baseline):
    cells = [made_setting("ga", 0.8 + dim / 1000, head__gram_dim=dim) for dim in (16, 64)]
    table = compare([*cells, made_setting("seqattn", 0.85)], Question(baseline=baseline))
    assert [row.is_baseline for row in table.rows] == [True, False, False]
    assert "from the baseline (head=ga head.gram_dim=16" in notes(table)
    both = {"head": "ga", "head.gram_dim": "64"}
    assert "(head=ga head.gram_dim=64, and" in notes(compare(cells, Question(baseline=both)))
    assert "(head=ga, and" in notes(compare([cells[0], made_setting("gap", 0.8)], Question(baseline={"head": "ga"})))


def test_only_the_chosen_settings_are_named_for_collapsed_seeds():
    collapsed = [0.80, 0.801, 0.802, 0.799, 0.1]
    cells = [made_setting("ga", collapsed, val, optimizer__lr=lr) for lr, val in ((0.001, 0.7), (0.01, 0.8))]
    assert "COLLAPSED SEEDS: head=ga heads=1 optimizer.lr=0.01 (seed 4 10.00, median 80.00)." in notes(tuned(cells))
    assert "COLLAPSED" not in notes(tuned([cells[0], made_setting("ga", 0.8, 0.8, optimizer__lr=0.01)]))


def test_one_rate_of_the_baseline_against_all_rates_of_another_head_is_not_bold():
    table = compare(learning_rates(), Question(baseline={"head": "seqpool", LR: "0.01"}))
    assert table.rows[5].difference.p < 0.001
    assert not any(row.is_better for row in table.rows)
    assert f"NOT TUNED: {LR} varies" in notes(table)


@pytest.mark.parametrize("key", ["model.name", "model.width", "dataset.name", "dataset.validation"])
def test_backbones_and_data_are_compared_on_purpose(key):
    tops = {"seqpool": 0.80, "ga": [0.862, 0.861, 0.863, 0.859, 0.864]}
    named = key.replace(".", "__")
    cells = [made_setting(head, top, **{named: value}) for head, top in tops.items() for value in (0.1, 0.2)]
    assert [row.is_better for row in compare(cells, Question()).rows] == [False, False, True, True]


def test_the_line_of_a_head_in_a_figure_has_one_name_whichever_setting_was_chosen():
    table = tuned(learning_rates())
    assert [series_label(table, row) for row in table.rows] == ["seqpool", "ga"]

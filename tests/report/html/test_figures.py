"""Figures draw the numbers of the table on axes that neither hide nor magnify a difference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from made import run, table_of
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure as Canvas

from headsweep.report.html import document, scales
from headsweep.report.html.captions import MOST_ROWS
from headsweep.report.html.curves import MOST_BANDS
from headsweep.report.html.drawing import PAPER, Figure, draw
from headsweep.report.html.figures.by_heads import by_heads
from headsweep.report.html.figures.differences import differences, is_significant
from headsweep.report.html.figures.ensembles import ensembles
from headsweep.report.html.figures.learning_curves import LEAST_EPOCHS
from headsweep.report.html.figures.tradeoff import tradeoff
from headsweep.report.html.quantities import accuracy, costs
from headsweep.report.html.ranking import rank
from headsweep.report.html.selection import MOST, select
from headsweep.report.read.cells import Run
from headsweep.report.stats.crossed import CrossedEstimate
from headsweep.report.table.model import Table
from headsweep.tracking.design import Margin

SEEDS = (0, 1, 2)
# The seeds move all heads by far more than the heads differ: bars overlap, paired differences do not.
SHIFTS = (0.0, 0.02, -0.03)
NOISE = {"seqpool": (0, 0, 0), "ga": (1e-3, -1e-3, 0), "se": (0.03, -0.03, 0.02)}
GAINS = {"seqpool": 0.0, "ga": 0.01, "se": 0.005}


def paired_runs(seeds: Sequence[int] = SEEDS, heads: Sequence[int] = (1, 4)) -> list[Run]:
    return [
        run(head, count, seed, 0.9 + gain + SHIFTS[seed] + NOISE[head][seed])
        for head, gain in GAINS.items()
        for count in heads
        for seed in seeds
    ]


@pytest.fixture(scope="module")
def paired() -> Table:
    return table_of(paired_runs())


def axes_of(figure: Figure | None) -> Axes:
    assert figure is not None
    axes = Canvas().add_subplot()
    figure.draw(axes)
    return axes


def curves_of(table: Table) -> list[Figure]:
    return document.by_epoch(table, select(table))


def line(axes: Axes, label: str):
    """The bars or the line of one entry of the legend; its markers."""
    handles, labels = axes.get_legend_handles_labels()
    found = handles[labels.index(label)]
    return getattr(found, "lines", [found])[0]


def test_the_paired_differences_are_those_of_the_table_with_a_line_at_zero(paired):
    figure = differences(paired, select(paired))
    axes = axes_of(figure)
    assert list(axes.lines[0].get_xdata()) == [0, 0]
    rows = [row for row in paired.rows if row.difference]
    names = ["ga, 1 head", "ga, 4 heads", "se, 1 head", "se, 4 heads"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    for row, bar in zip(rows, axes.containers, strict=True):
        mean, half = 100 * row.difference.mean, 100 * row.difference.half_width
        assert bar.lines[0].get_xdata()[0] == pytest.approx(mean)
        (ends,) = bar.lines[2][0].get_segments()
        assert ends[:, 0] == pytest.approx([mean - half, mean + half])
    low, high = axes.get_xlim()
    assert low < 0 < high and "(percentage points)" in axes.get_xlabel()
    assert "seqpool" in figure.caption and "95 % confidence intervals" in figure.caption


def test_the_difference_of_each_seed_is_a_dot_below_the_mean(paired):
    figure = differences(paired, select(paired))
    dots = [drawn for drawn in axes_of(figure).lines if drawn.get_marker() == "." and len(drawn.get_xdata())]
    gains = [[GAINS[head] + NOISE[head][seed] for seed in SEEDS] for head in ("ga", "ga", "se", "se")]
    for at, (drawn, expected) in enumerate(zip(dots, gains, strict=True)):
        assert drawn.get_xdata() == pytest.approx([100 * value for value in expected])
        assert all(at < place < at + 0.5 for place in drawn.get_ydata())
    assert [mark.text for mark in figure.marks][4:7] == [
        f"ga, 1 head, seed {seed}: +{gain} points" for seed, gain in enumerate(("1.10", "0.90", "1.00"))
    ]


def test_the_interval_over_seeds_and_images_is_a_thin_bar_around_the_other(paired):
    wide = CrossedEstimate(0.01, 0.012, 3, 360)
    rows = tuple(replace(row, difference_over_images=wide) if row.head == "ga" else row for row in paired.rows)
    table = replace(paired, rows=rows)
    figure = differences(table, select(table))
    bars = [drawn for drawn in axes_of(figure).lines if drawn.get_marker() == "|" and len(drawn.get_xdata())]
    assert [list(bar.get_xdata()) for bar in bars] == [pytest.approx([-0.2, 2.2])] * 2
    assert "also cover the draw of the test images" in figure.caption
    assert "points (± 1.20 over seeds and test images)" in figure.alt
    assert "test images" not in differences(paired, select(paired)).caption


def test_the_margin_is_a_band(paired):
    table = replace(paired, margin=Margin(0.3))
    (band,) = axes_of(differences(table, select(table))).patches
    assert (band.get_x(), band.get_width()) == (-0.3, 0.6) and band.get_label() == "margin, ±0.3 points"
    assert not axes_of(differences(paired, select(paired))).patches


def test_a_marker_is_filled_where_the_corrected_p_supports_the_difference(paired):
    bars = axes_of(differences(paired, select(paired))).containers
    filled = [not same_color(bar.lines[0].get_markerfacecolor(), PAPER) for bar in bars]
    assert filled == [is_significant(row) for row in paired.rows if row.difference] == [True, True, False, False]


def test_the_caption_of_overlapping_bars_points_to_the_paired_differences(paired):
    selection = select(paired)
    assert "compare two heads by their paired differences" in by_heads(paired, selection, accuracy(paired)).caption
    alone = table_of(paired_runs(seeds=(0,)))
    caption = by_heads(alone, select(alone), accuracy(alone)).caption
    assert caption == "No confidence intervals: one seed each."


def test_the_n_of_the_bars_is_of_the_cells_that_have_one():
    table = table_of([run("ga", 1, seed, 0.9 + SHIFTS[seed]) for seed in SEEDS] + [run("ga", 2, 0, 0.9)])
    caption = by_heads(table, select(table), accuracy(table)).caption
    assert "(n = 3). 1 of 2 have none: one seed each." in caption


def test_one_seed_gets_differences_without_intervals_and_without_claims():
    table = table_of(paired_runs(seeds=(0,)))
    figure = differences(table, select(table))
    axes = axes_of(figure)
    assert not any(bar.has_xerr for bar in axes.containers)
    assert all(same_color(bar.lines[0].get_markerfacecolor(), PAPER) for bar in axes.containers)
    assert "No confidence intervals (one seed each): no difference is significant." in figure.caption


def test_equal_differences_are_at_zero_on_an_axis_that_is_wide_enough_to_see_it():
    table = table_of([run(head, 1, seed, 0.9) for head in ("seqpool", "se") for seed in SEEDS])
    figure = differences(table, select(table))
    low, high = axes_of(figure).get_xlim()
    assert low < 0 < high and high - low >= scales.LEAST_POINTS
    assert "No confidence intervals (all seeds have the same value)" in figure.caption


def test_without_another_cell_there_are_no_differences():
    table = table_of([run("ga", 1, seed, 0.9) for seed in SEEDS])
    assert differences(table, select(table)) is None


def misleading(count: int, validation: bool = True) -> list[Run]:
    """Cells of which the best on test images is the worst on validation images."""
    runs = [run("ga", 2, 0, 0.5 + at / 100, lr=at, metrics={"val/top1": 0.9 - at / 100}) for at in range(count)]
    for one in runs if not validation else ():
        del one.result.metrics["val/top1"]
    return runs


def test_cells_are_selected_by_validation_accuracy_and_the_caption_has_that():
    table = table_of(misleading(30))
    selection = select(table)
    assert [one.label for one in selection.series] == [f"ga, lr {at}" for at in range(MOST)]
    assert "by validation top-1" in selection.sentence
    for figure in (by_heads(table, selection, accuracy(table)), ensembles(table, selection)):
        shown = [label.get_text() for label in axes_of(figure).get_yticklabels()]
        assert [label.removesuffix(", 2 heads") for label in shown] == [f"ga, lr {at}" for at in range(MOST_ROWS)]
        assert f"the {MOST_ROWS} best of 30 cells by validation top-1" in figure.caption


def test_a_selection_by_test_accuracy_is_in_the_caption():
    table = table_of(misleading(30, validation=False))
    selection = select(table)
    assert [one.label for one in selection.series] == [f"ga, lr {at}" for at in range(30 - MOST, 30)]
    assert "by test top-1 itself (an optimistically biased selection" in selection.sentence
    assert "optimistically biased" in by_heads(table, selection, accuracy(table)).caption


@pytest.mark.parametrize(("metric", "words"), [("val_top1", "by validation top-1"), ("top5", "by test top-5 itself")])
def test_cells_are_selected_by_the_compared_metric_only_if_there_is_no_other_validation_metric(metric, words):
    assert rank(table_of(misleading(3), metric=metric)).by.startswith(words)


def curve_runs(epochs: int, heads: Sequence[str] = ("seqpool", "se", "ga")) -> list[Run]:
    history = {epoch: 0.9 - 0.8 / epoch for epoch in range(1, epochs + 1)}
    return [run(head, 1, seed, 0.9, history={"val/top1": history}) for head in heads for seed in SEEDS]


@pytest.mark.parametrize("epochs", [2, 3, 4, 8, 100])
def test_epochs_are_whole_numbers(epochs):
    table = table_of(curve_runs(epochs))
    for figure in curves_of(table):
        ticks = axes_of(figure).get_xticks()
        assert all(tick == round(tick) for tick in ticks) and len(ticks) >= 2


def test_without_a_baseline_the_last_quarter_is_drawn_again_on_a_scale_of_its_own():
    table = table_of(curve_runs(40, ("ga",)))
    whole, end = curves_of(table)
    assert (whole.name, end.name) == ("learning-curves-1", "learning-curves-1-end")
    axes = axes_of(end)
    epochs = line(axes, "ga").get_xdata()
    assert (min(epochs), max(epochs)) == (30, 40)
    (low, high), (wide_low, wide_high) = axes.get_ylim(), axes_of(whole).get_ylim()
    assert wide_low < low < high <= wide_high and 1 <= high - low < (wide_high - wide_low) / 10
    short = table_of(curve_runs(3 * LEAST_EPOCHS - 1, ("ga",)))
    assert [figure.name for figure in curves_of(short)] == ["learning-curves-1"]


def test_a_curve_that_ends_early_is_named_in_the_figure_of_the_last_epochs():
    short = {"val/top1": dict.fromkeys(range(1, 11), 0.5)}
    table = table_of([*curve_runs(40, ("ga",)), *(run("se", 1, seed, 0.5, history=short) for seed in SEEDS)])
    whole, differences = curves_of(table)
    assert "No values" not in whole.caption and "No values there: se." in differences.caption
    alone = replace(table, rows=tuple(replace(row, baseline=()) for row in table.rows))
    assert "No values at these epochs: se." in curves_of(alone)[1].caption


def test_the_differences_by_epoch_are_paired_by_seed_and_end_with_those_of_the_table():
    runs = paired_runs()
    for one in runs:
        last = one.result.metrics["val/top1"]
        by_epoch = {1: 0.1, 2: last - SHIFTS[one.record.seed], 3: last}
        runs[runs.index(one)] = replace(one, history=lambda metric, found=by_epoch: {"val/top1": found}[metric])
    table = table_of(runs, metric="val_top1")
    figure = curves_of(table)[1]
    assert figure.name == "differences-by-epoch-1" and "Validation top-1 after each epoch" in figure.caption
    assert "No epoch and no head is selected by it." in figure.caption
    axes = axes_of(figure)
    for row in table.rows:
        if row.heads == 1 and row.difference:
            values = line(axes, row.head).get_ydata()
            assert values == pytest.approx([0, 100 * row.difference.mean, 100 * row.difference.mean])
            low, high = (100 * (row.difference.mean + sign * row.difference.half_width) for sign in (-1, 1))
            text = f"{row.head}, epoch 3: {values[-1]:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
            assert text.replace("-", "\N{MINUS SIGN}") in {mark.text for mark in figure.marks}


def test_the_axis_of_differences_by_epoch_fits_the_second_half():
    late = {"val/top1": {epoch: 0.9 if epoch > 4 else 0.1 for epoch in range(1, 9)}}
    table = table_of([*curve_runs(8, ("ga",)), *(run("se", 1, seed, 0.9, history=late) for seed in SEEDS)])
    low, high = axes_of(curves_of(table)[1]).get_ylim()
    assert -1 < low < high < 20  # at epoch 2 the difference is -40 points


@pytest.mark.parametrize("epochs", [4, 8, 100])
def test_no_marker_of_a_curve_lies_on_that_of_another(epochs):
    table = table_of(curve_runs(epochs))
    axes = axes_of(curves_of(table)[0])
    at = [
        set(line(axes, head).get_xdata()[slice(first, None, every)])
        for head in ("seqpool", "se", "ga")
        for first, every in [line(axes, head).get_markevery()]
    ]
    assert all(at) and not (at[0] & at[1] or at[0] & at[2] or at[1] & at[2])


def test_bands_are_in_the_caption_only_with_several_seeds():
    several = table_of(curve_runs(4))
    alone = table_of(curve_runs(4)[::3])
    assert "Bands: range over seeds." in curves_of(several)[0].caption
    assert curves_of(alone)[0].caption == "One seed each: no bands."
    many = table_of(curve_runs(4, [f"head_{at}" for at in range(MOST_BANDS + 1)]))
    figure = curves_of(many)[0]
    assert not axes_of(figure).collections and "Too many lines for bands." in figure.caption


def clocked(memory: str, *values: float) -> Table:
    runs = [run("ga", 2**at, 0, 0.9) for at in range(len(values))]
    for one, value in zip(runs, values, strict=True):
        one.result.clock[memory] = value
    return table_of(runs)


@pytest.mark.parametrize("heads", [(1, 2, 4), (2, 2, 2)])
def test_time_and_memory_begin_at_zero(heads):
    runs = [run(head, count, 0, 0.9) for head, count in zip(("ga", "se", "cls"), heads, strict=True)]
    for one, gib in zip(runs, (2.00, 2.02, 2.03), strict=True):
        one.result.clock["peak_memory_gib"] = gib
    table = table_of(runs)
    for quantity in costs(table):
        axes = axes_of(by_heads(table, select(table), quantity))
        low, high = axes.get_ylim() if len(set(heads)) > 1 else axes.get_xlim()
        assert low == 0 and high > 2.03


def test_memory_is_that_of_gpus_or_that_of_processes_but_never_both_in_one_figure():
    table = clocked("peak_gpu_memory_gib", 3.0, 4.0)
    mixed = replace(table, rows=(table.rows[0], replace(table.rows[1], costs={"peak_memory_gib": 0.5})))
    memory = costs(mixed)[1]
    assert "GPU" in memory.axis and memory.read(mixed.rows[0]) == (3.0, None) and memory.read(mixed.rows[1]) is None
    assert "process" in costs(clocked("peak_memory_gib", 0.5))[1].axis


@pytest.mark.parametrize(("seconds", "unit"), [(30, "seconds"), (600, "minutes"), (90_000, "hours")])
def test_time_is_in_a_unit_that_fits(seconds, unit):
    time = costs(clocked("train_seconds", seconds))[0]
    row = clocked("train_seconds", seconds).rows[0]
    assert time.axis == f"training time ({unit})" and time.spell(row).endswith(f".0 {unit}")


def test_the_caption_of_a_cost_axis_that_does_not_start_at_zero_has_the_range_of_costs():
    table = table_of(paired_runs())
    figure = tradeoff(table, select(table), "parameters")
    assert axes_of(figure).get_xlim()[0] > 0
    costs = [row.costs["parameters"] for row in table.rows]
    assert (
        f"does not start at 0: the most expensive cell costs {100 * (max(costs) / min(costs) - 1):.2g} % more"
        in figure.caption
    )
    wide = [run("ga", heads, 0, 0.9) for heads in (1, 4)]
    for one, count in zip(wide, (100, 900), strict=True):
        one.record.cost["parameters"] = count
    figure = tradeoff(table_of(wide), select(table_of(wide)), "parameters")
    assert axes_of(figure).get_xlim()[0] == 0 and "start at 0" not in figure.caption


def test_cells_that_cost_the_same_have_no_tradeoff():
    table = table_of([run("ga", 1, seed, 0.9, lr=lr) for lr in (1, 2) for seed in SEEDS])
    assert tradeoff(table, select(table), "parameters") is None


def growing(gain: float, seeds: Sequence[int] = SEEDS) -> Table:
    """Two heads cost more than one, and are better by `gain`."""
    return table_of(
        [
            run("ga", heads, seed, 0.9 + SHIFTS[seed] + (gain + NOISE["ga"][seed] if heads > 1 else 0))
            for heads in (1, 2)
            for seed in seeds
        ]
    )


@pytest.mark.parametrize(
    ("table", "is_supported", "words"),
    [
        (growing(0.02), True, "Ringed: significantly more accurate than every cell that costs no more (paired t-tests"),
        (growing(0.0005), False, "No cell on it is significantly more accurate"),
        (growing(0.02, seeds=(0,)), False, "with one seed each it may be noise"),
        (growing(-0.02), False, "the cheapest also has the best mean accuracy"),
    ],
    ids=["better", "noise", "one seed", "worse"],
)
def test_rings_are_drawn_only_around_significant_cells(table, is_supported, words):
    figure = tradeoff(table, select(table), "parameters")
    _, labels = axes_of(figure).get_legend_handles_labels()
    assert "Pareto front" in labels and ("significant" in labels) is is_supported
    assert words in figure.caption


def test_axes_of_accuracy_end_at_0_and_100_and_cut_bars_are_in_the_caption():
    table = table_of(
        [
            run("ga", heads, seed, top1)
            for heads, tops in ((1, (0.0, 0.1, 0.3)), (2, (0.9, 1.0, 0.99)))
            for seed, top1 in enumerate(tops)
        ]
    )
    figure = by_heads(table, select(table), accuracy(table))
    low, high = axes_of(figure).get_ylim()
    assert -5 < low <= 0 and 100 <= high < 105
    assert "Bars are cut off" in figure.caption


def test_small_differences_of_accuracy_are_not_magnified():
    table = table_of([run("ga", heads, 0, 0.9 + heads / 100_000) for heads in (1, 2)])
    low, high = axes_of(by_heads(table, select(table), accuracy(table))).get_ylim()
    assert high - low >= scales.LEAST_POINTS


def test_a_head_looks_the_same_in_all_figures(paired):
    selection = select(paired)
    styles = {one.label: one.style for one in selection.series}
    for figure in (by_heads(paired, selection, accuracy(paired)), tradeoff(paired, selection, "flops")):
        axes = axes_of(figure)
        for label, style in styles.items():
            assert (line(axes, label).get_color(), line(axes, label).get_marker()) == (style.color, style.marker)
    bars = axes_of(differences(paired, selection)).containers
    assert [bar.lines[0].get_marker() for bar in bars] == [styles[head].marker for head in ("ga", "ga", "se", "se")]


@pytest.mark.parametrize("counts", [(1,), (1, 8), (3, 4), (1, 2, 3, 4, 8, 16)])
@pytest.mark.parametrize("series", [1, 3, MOST])
def test_series_are_side_by_side_and_nearest_to_their_own_number_of_heads(counts, series):
    step = scales.offset(counts, series)
    gap = min(later / one for one, later in pairwise(counts)) if len(counts) > 1 else 2
    assert step > 0 and 2 ** (step * (series - 1)) < gap


@pytest.mark.slow
def test_a_long_legend_takes_nothing_from_the_axes():
    def height(heads: Sequence[str]) -> float:
        table = table_of([run(head, count, 0, 0.9) for head in heads for count in (1, 2)])
        svg = draw(by_heads(table, select(table), accuracy(table))).svg
        return float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])

    assert height([f"a_head_with_a_long_name_{at}" for at in range(8)]) - height(["ga"]) == pytest.approx(7 * 0.21 * 72)


def test_heads_are_sorted_within_a_run_before_the_mean_over_seeds():
    tops = ((0.8, 0.6), (0.5, 0.7))  # the best head is another one with each seed
    runs = [
        run("ga", 2, seed, 0.9, metrics={f"test/per_head/top1_{at + 1}": top for at, top in enumerate(alone)})
        for seed, alone in enumerate(tops)
    ]
    figure = ensembles(table_of(runs), select(table_of(runs)))
    assert sorted(line(axes_of(figure), "each head alone").get_xdata()) == pytest.approx([55, 75])
    assert "after sorting the heads" in figure.caption


def test_every_axis_has_a_label_with_its_unit(paired):
    selection = select(paired)
    figures = [by_heads(paired, selection, quantity) for quantity in (accuracy(paired), *costs(paired))]
    figures += [tradeoff(paired, selection, "flops"), *curves_of(paired)]
    for axes in map(axes_of, figures):
        assert axes.get_xlabel() and re.search(r"\(.+\)$", axes.get_ylabel()), axes.get_ylabel()


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_text_of_the_figure_without_a_warning():
    def label(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], label="変体")
        axes.set_xticks([0, 1], ["한국어", "العربية"])

    drawing = draw(Figure("made", "made", "", "", label))
    assert all(name in drawing.svg for name in ("変体", "한국어", "العربية"))

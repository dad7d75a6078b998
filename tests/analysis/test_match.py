"""`headsweep match` finds the settings nearest to a budget, and the commands that train them."""

import shlex
from dataclasses import replace

import pytest

import factories
from composing import compose_run, expand_grid
from headsweep.analysis.match import Target, match
from headsweep.config import RunConfig
from headsweep.config.study import expansion
from headsweep.config.study.expansion import composer
from headsweep.models import model_of
from headsweep.run.train_run import preflight
from overriding import compose_and_set
from test_cli import give

TINY = ["model.width=32", "model.depth=1", "model.attention_heads=1", "debug=quick"]


@pytest.fixture(autouse=True)
def counted_once(monkeypatch):
    """A setting is composed, and its sizes are counted, once for all tests."""
    monkeypatch.setattr("headsweep.analysis.match.preflight", factories.cost)
    monkeypatch.setattr(expansion, "compose", compose_and_set)


def rows_of(text) -> list[list[str]]:
    return [line.rsplit(maxsplit=5) for line in text.partition("\n\n")[0].splitlines()[1:]]


def trained_by(text) -> list[tuple[str, int, int | None]]:
    """Head, heads and gram_dim of every cell of the commands."""
    lines = [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("python src/train.py -m ")]
    with composer():
        runs = [run for line in lines for run in expand_grid(*(word for word in line if word[:4] != "seed"))]
    return [(run.head.name, run.heads, getattr(run.head, "gram_dim", None)) for run in runs]


def parameters(run: RunConfig) -> int:
    return sum(parameter.numel() for parameter in model_of(run).parameters())


@pytest.mark.slow
def test_no_other_width_is_nearer():
    run = compose_run("head=ga", "heads=2", *TINY)
    budget = 60_000
    run.dataset.num_classes = 10
    sizes = {
        width: parameters(replace(run, head=replace(run.head, gram_dim=width))) for width in run.head.widths["gram_dim"]
    }
    best = min(sizes, key=lambda width: abs(sizes[width] - budget))
    assert best not in (min(sizes), max(sizes))
    text, _ = match(["head=ga", "heads=2", *TINY, "seeds=3"], Target("params", budget, {}, "width", 0.1))
    (row,) = rows_of(text)
    assert row[0] == f"head=ga heads=2 head.gram_dim={best}"
    assert row[1] == f"{sizes[best]:,}" and row[4] == f"{sizes[best] / budget - 1:+.1%}".rstrip("%").replace(
        "-", "\N{MINUS SIGN}"
    )
    assert trained_by(text) == [("ga", 2, best)] and text.endswith(" seeds=3")


@pytest.mark.slow
def test_a_baseline_gives_each_number_of_heads_its_own_budget():
    target = Target("params", None, {"head": "seqattn"}, "width", 0.125)
    text, _ = match(["head=ga,seqattn,gap", "heads=1,4", *TINY], target)
    sizes = [preflight(compose_run("head=seqattn", f"heads={heads}", *TINY))["parameters"] for heads in (1, 4)]
    assert [row[3] for row in rows_of(text)] == [f"{sizes[0]:,}", f"{sizes[1]:,}"] * 3
    assert trained_by(text) == [("ga", 1, 16), ("ga", 4, 16), ("seqattn", 1, None), ("seqattn", 4, None)]
    assert "not within 12.5 % of the budget, left out of the commands:\n  head=gap heads=1: the head has no" in text


@pytest.mark.slow
def test_widths_of_several_heads_are_one_grid():
    target = Target("params", None, {"head.name": "seqattn"}, "width", 0.1)
    text, _ = match(["head=sg,ga", "heads=1,4", *TINY], target)
    assert text.count("python src/train.py") == 1
    (wide,) = {width for head, _, width in trained_by(text) if head == "sg"}
    assert trained_by(text) == [("sg", 1, wide), ("sg", 4, wide), ("ga", 1, 16), ("ga", 4, 16)]


@pytest.mark.slow
def test_the_number_of_heads_is_varied_where_that_is_asked_for():
    one, three = (preflight(compose_run("head=gap", f"heads={heads}", *TINY))["flops"] for heads in (1, 3))
    text, _ = match(["head=gap", "heads=1,2", *TINY], Target("flops", three, {}, "heads", 0.0))
    (row,) = rows_of(text)  # both cells end in the same
    assert one < three and row[0] == "head=gap heads=3" and row[1] == row[3] == f"{three:,}"
    assert trained_by(text) == [("gap", 3, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["params", "head=ga"], "expected either --budget, e.g. 4.2M, or --baseline"),
        (["params", "head=ga", "--budget", "1M", "--baseline", "head=gap"], "expected either --budget"),
        (["params", "head=ga", "--budget", "lots"], "--budget lots: expected a number > 0, e.g. 4.2M or 4200000"),
        (["params", "head=ga", "--budget", "0"], "--budget 0: expected a number > 0"),
        (["params", "head=nope", "--budget", "1M"], "head=nope: unknown head; known:"),
        (["params", "head=ga", "--budget", "1M", "--widths"], "--widths: unknown option of match"),
        (["time", "head=ga"], "'time' is not one of 'params', 'flops'"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert give("match", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_budget_that_nothing_comes_near_is_no_success(capsys):
    assert give("match", "params", "head=gap", "heads=1", *TINY, "--budget", "1") == 2
    assert "no setting is within the tolerance" in capsys.readouterr().err

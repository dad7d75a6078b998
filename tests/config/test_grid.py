"""The fast way from a grid's cells to their configurations is the slow way."""

import random
from functools import partial
from itertools import product

import pytest
from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from composing import compose_within, expand_grid
from headsweep.config import PROJECT_ROOT, parse
from headsweep.config.command_line import spell_out
from headsweep.config.composition import one_line
from headsweep.config.study import points
from headsweep.config.study.exclusions import Exclusions, left_out
from headsweep.config.study.grid import Grid
from headsweep.config.study.language import Block, Study
from headsweep.errors import UserError
from overriding import compose_and_set

pytestmark = pytest.mark.usefixtures("hydra_conf")

STUDIES = sorted(path.stem for path in (PROJECT_ROOT / "sweeps").glob("*.yaml"))

# What each key may be set to, on any cell: valid, of a wrong type, against a rule, unknown.
VALUES = {
    "heads": ["2", "0", "1.5", "null", "'4'", "true"],
    "optimizer.lr": ["1e-3", "2", "fast", "inf", "'0.01'"],
    "optimizer.betas": ["[0.9,0.95]", "null", "[1,0]", "[a,b]"],
    "duration": ["'30 epochs'", "20", "long"],
    "augmentation.crop_scale": ["null", "[.nan,1]"],
    "augmentation.randaugment": ["rand-m9-mstd0.5-inc1"],
    "dataset.name": ["digits", "mnist"],
    "dataset.download": ["true", "no", "3"],
    "model.drop_path": ["1.5"],
    "model.dropout": ["${model.drop_path}", "0.2"],
    "model.name": ["mine", "resnet18", "???"],
    "model.family": ["timm", "none_such"],
    "head.name": ["gap", "none_such"],
    "head.gram_dim": ["32", "17"],
    "head": ["ga", "none_such", "{name: gap}"],
    "debug": ["quick"],
    "paths.output": ["elsewhere", "'~/there'", "~/there"],
    "precision": ["float32", "half"],
    "schedule.warmup_lr": ["${optimizer.lr}"],
    "tracking.experiment": ["7e10", "true", "2024", "08", "'1e3'"],
    "haeds": ["2"],
    "+optimizer.extra": ["1"],
    "~clip_norm": ["null"],
    "++clip_norm": ["1.0"],
    "optimizer": ["{lr: 0.1}", "sgd"],
    "dataset@model": ["digits"],
}

COMPOSERS = (compose_within, compose_and_set)


def outcome(make):
    """Return the result of `make`, or its error."""
    try:
        return make()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return type(error), str(error)


def agree(grid, overrides):
    fast = outcome(lambda: grid.cell(overrides).parse())
    assert fast == outcome(lambda: parse(compose_within("train", overrides))), overrides
    return fast


def cells_of(study):
    """The overrides of each cell of a study."""
    hydra = compose("train", overrides=[f"+sweeps={study}"], return_hydra_config=True).hydra
    axes = [[f"{axis}={value}" for value in str(values).split(",")] for axis, values in hydra.sweeper.params.items()]
    exclusions = Exclusions(
        hydra.launcher.exclude, [f"{axis}={values}" for axis, values in hydra.sweeper.params.items()]
    )
    return [[f"+sweeps={study}", *point] for point in product(*axes)], exclusions


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES[::4])
def test_the_cells_of_a_study_are_those_that_hydra_composes(study):
    """A cell of each, with values drawn at random, on one grid, so that none may leave anything behind."""
    draw, grid = random.Random(study), Grid(lambda overrides: compose_within("train", overrides))
    cells, _ = cells_of(study)
    cell, keys = draw.choice(cells), draw.sample(sorted(VALUES), 2)
    agree(grid, cell)
    agree(grid, [*cell, *(f"{key}={draw.choice(VALUES[key])}" for key in keys)])
    agree(grid, cell)


@pytest.mark.slow
@pytest.mark.parametrize("key", VALUES)
def test_any_override_gives_what_hydra_gives_errors_included(key):
    grid = Grid(lambda overrides: compose_within("train", overrides))
    for value in VALUES[key]:
        agree(grid, [f"{key}={value}"])
        of_hydra, of_tests = (outcome(partial(make, "train", [f"{key}={value}"])) for make in COMPOSERS)
        assert of_hydra == of_tests
    agree(grid, [])  # nothing is left behind


def test_cells_that_differ_in_values_alone_are_composed_once():
    """Those with a wrong value, too, and those of a data set whose folder follows `paths.data`."""
    asked = []
    grid = Grid(lambda overrides: asked.append(overrides) or compose_within("train", overrides))
    axes = (("seqpool", "ga"), (0, 1, 2, "many"), (1e-3, 1e-4), ("'20 epochs'", "'30 epochs'"))
    cells = [
        grid.cell([f"head={head}", "dataset=cifar10", f"heads={heads}", f"optimizer.lr={rate}", f"duration={duration}"])
        for head, heads, rate, duration in product(*axes)
    ]
    results = [outcome(cell.parse) for cell in cells]
    other = grid.cell(["head=ga", "dataset=cifar10", "ema_decay=0.9"]).parse()
    assert (other.heads, other.duration, other.ema_decay) == (1, "20 epochs", 0.9)
    assert asked == [("head=seqpool", "dataset=cifar10"), ("head=ga", "dataset=cifar10")]
    runs = [run for run in results if not isinstance(run, tuple)]
    found = {(run.head.name, run.heads, run.optimizer.lr, run.duration) for run in runs}
    assert found == {
        (head, heads, rate, duration.strip("'")) for head, heads, rate, duration in product(*axes) if heads in (1, 2)
    }
    assert len({id(run.optimizer) for run in runs}) == len(runs)


@pytest.mark.slow
def test_a_value_that_others_follow_is_composed_with_them():
    """A configuration with `schedule.min_lr: ${optimizer.lr}` in it."""
    grid = Grid(lambda overrides: compose_within("train", overrides))
    for rate in ("0.1", "0.2"):
        run = agree(grid, ["schedule.min_lr=${optimizer.lr}", f"optimizer.lr={rate}"])
        assert run.schedule.min_lr == float(rate)


@pytest.mark.slow
@pytest.mark.parametrize("study", ["table1", "ga_table2"])
def test_exclusions_leave_out_the_same_cells_either_way(study):
    cells, exclusions = cells_of(study)
    cells = cells[:: max(1, len(cells) // 5)]
    grid = Grid(lambda overrides: compose_within("train", overrides))
    answers = left_out([grid.cell(cell) for cell in cells], exclusions)
    assert answers == left_out([compose_within("train", cell) for cell in cells], exclusions)
    assert len(set(answers)) == 2


def test_an_excluded_cell_need_not_be_valid():
    grid = Grid(lambda overrides: compose_within("train", overrides))
    cells = [grid.cell([f"head={head}", f"heads={heads}"]) for head in ("gap", "ga") for heads in (0, 4)]
    assert left_out(cells, Exclusions(["head=ga heads<1", "head=gap heads=0"])) == [True, False, True, False]


def test_seeds_are_spelled_out():
    assert spell_out(["-m", "seeds=3", "head=ga"]) == ["-m", "seed=0,1,2", "head=ga"]
    assert spell_out(["--multirun", "seeds=1"]) == ["--multirun", "seed=0"]
    assert spell_out(["heads=2", "seed=0,1"]) == ["heads=2", "seed=0,1"]
    assert spell_out(["head=ga", "-m", "seeds=2"]) == ["-m", "head=ga", "seed=0,1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "seeds=0"], "seeds=0: expected an integer in [1, 9999]"),
        (["-m", "seeds=0,1"], "seeds=0,1: expected an integer in [1, 9999]"),
        (["-m", "seeds=2", "seed=4"], "seeds=2: expected either seeds or seed, found both"),
    ],
)
def test_a_mistake_in_seeds_is_one_line(words, message):
    with pytest.raises(UserError) as caught:
        spell_out(words)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lr=sort(range(1.3,0,-0.5))"], "optimizer.lr=sort(range(1.3,0,-0.5)): expected a range in its own"),
        (["heads=sort(range(10,1,-4))"], "heads=sort(range(10,1,-4)): expected a range in its own order"),
        (["heads=1,2", "heads=4"], "heads: expected one override in a grid, found heads=1,2 and heads=4; leave one"),
        (["head=ga,gap", "head=seqpool"], "head: expected one override in a grid, found head=ga,gap and head=seqpool"),
        (["model=timm", "++model.options={a:1}", "++model.options={b:2},{b:3}"], "++model.options: expected one"),
    ],
)
def test_an_override_that_hydra_would_change_or_drop_in_a_grid_is_refused(arguments, message):
    with pytest.raises(UserError) as caught:
        expand_grid(*arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["heads=1", "heads=4"], [4]),  # as in a single run
        (["heads=1", "heads=4,8"], [4, 8]),
        (["heads=sort(4,1,2)"], [1, 2, 4]),
        (["heads=range(1,10,4)"], [1, 5, 9]),
    ],
)
def test_an_override_means_in_a_grid_what_hydra_documents(arguments, values):
    assert [run.heads for run in expand_grid(*arguments)] == values


def test_the_command_line_takes_the_place_of_a_study_s_axis():
    study = Study([Block({"heads": "1,2"})])
    assert [point.overrides for point in points.points(study, ["heads=4"]).points] == [("heads=4",)]


@pytest.mark.slow
def test_a_pattern_names_choices_outside_of_hydra_s_command_line_too():
    assert [run.head.name for run in expand_grid("head=glob(seq*)")] == ["seqattn", "seqpool"]


@pytest.mark.slow
def test_an_option_of_the_heads_of_an_axis_is_given_as_a_choice():
    """Hydra composes once without the axes, where the head is another, and refuses a plain value."""
    runs = expand_grid("head=ga,sg", "head.gram_dim=choice(32)")
    assert [(run.head.name, run.head.gram_dim) for run in runs] == [("ga", 32), ("sg", 32)]
    with pytest.raises(HydraException) as caught:
        expand_grid("head=ga,sg", "head.gram_dim=32")
    assert one_line(caught.value).endswith("in a grid of them give head.gram_dim='choice(VALUE)'")

"""A configuration is converted to overrides that compose it again."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from composing import compose_run, expand_grid
from headsweep.config.composition import composing
from headsweep.config.overrides import OverrideFinder, command, grid_words, hydra_value, words
from headsweep.config.study.expansion import composer
from headsweep.errors import ConfigError, UserError

RUNS = [
    [],
    ["head=ga", "heads=4", "head.gram_dim=32", "decorrelation=-0.8", "seed=3"],
    ["model=cct_7_3x1", "dataset=cifar100", "augmentation=paper", "optimizer=sgd", "optimizer.lr=0.05"],
    ["model=cct_7_3x1", "model.depth=2", "model.width=64", "duration='2 epochs'", "debug=quick", "tracking=none"],
    ["model=timm", "model.name=resnet50", "model.options={drop_path_rate: 0.1}", "dataset=cifar10", "ema_decay=0.99"],
    ["dataset=medmnist", "dataset.name=pathmnist", "dataset.validation=0.2"],
    ["augmentation.crop_scale=[0.5,1.0]", "augmentation.randaugment=rand-m9-mstd0.5-inc1", "clip_norm=1e-6"],
    ["paths.data=/else where", 'paths.output="/o\'clock"', "dataset=cifar10", "schedule=constant"],
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_the_overrides_compose_the_same_configuration(overrides):
    run = compose_run(*overrides)
    with composer() as compose:
        (spelled,) = OverrideFinder(compose).find([run])
    assert compose_run(*words(spelled)) == run
    assert len(spelled) <= len({"head", "heads", "seed"} | {word.partition("=")[0] for word in overrides})


def test_keys_that_the_plan_fills_in_are_left_out():
    run = compose_run()
    run.dataset.digest, run.dataset.num_classes, run.model.checkpoint_digest = "abc", 10, "def"
    with composer() as compose:
        assert OverrideFinder(compose).find([run]) == [{"head": "seqpool", "heads": "1", "seed": "0"}]


@pytest.mark.parametrize("value", [None, True, 3, 1e-06, "20 epochs", "it's", "a\\", "null", "7", "", "a,b", "_"])
def test_hydra_parses_a_value_back(value):
    assert OverridesParser.create().parse_override(f"key={hydra_value(value)}").value() == value


def spelled_cells(*cells):
    runs = [compose_run(*cell) for cell in cells]
    with composer() as compose:
        spelled = OverrideFinder(compose).find(runs)
    return [{key: value for key, value in cell.items() if key != "seed"} for cell in spelled]


@pytest.mark.slow
def test_a_full_product_is_one_grid_whose_axes_include_defaults():
    cells = spelled_cells(
        *([f"head={head}", lr] for head in ("seqpool", "gap") for lr in ("optimizer.lr=1e-3", "seed=0"))
    )
    assert grid_words(cells) == ["head=seqpool,gap", "heads=1", "optimizer.lr=0.001,0.0005"]


@pytest.mark.slow
def test_a_grid_excludes_other_cells_of_the_product():
    cells = spelled_cells(["heads=1"], ["head=ga", "heads=1"], ["head=ga", "heads=8"])
    grid = grid_words(cells)
    assert grid == ["head=seqpool,ga", "heads=1,8", 'hydra.launcher.exclude=["head=seqpool heads=8"]']
    with composer():
        found = expand_grid(*grid)
    assert [(run.head.name, run.heads) for run in found] == [("seqpool", 1), ("ga", 1), ("ga", 8)]


@pytest.mark.slow
def test_cells_with_an_option_of_one_head_are_blocks_of_a_union():
    cells = spelled_cells(
        ["head=gap", "heads=1"],
        ["head=gap", "heads=2", "duration='2 epochs'"],
        *(["head=ga", "head.gram_dim=32", f"heads={heads}", "duration='2 epochs'"] for heads in (1, 2)),
    )
    grid = grid_words(cells)
    with composer():
        runs = expand_grid(*grid)
    assert [(run.head.name, run.heads, run.duration) for run in runs] == [
        ("gap", 1, "20 epochs"),
        ("gap", 2, "2 epochs"),
        ("ga", 1, "2 epochs"),
        ("ga", 2, "2 epochs"),
    ]


@pytest.mark.slow
def test_a_study_is_expanded_as_the_command_does():
    with composer():
        runs = expand_grid("+sweeps=table1", "batch_size=64")
        with pytest.raises(ConfigError, match=r"leaves out all 2 cells of the grid"):
            expand_grid("heads=1,2", 'hydra.launcher.exclude=["heads>0"]')
    assert [(run.head.name, run.heads) for run in runs] == [
        ("seqpool", 1),
        ("ga", 1),
        ("ga", 8),
        ("seqattn", 1),
        ("seqattn", 8),
    ]
    assert {run.batch_size for run in runs} == {64}


def test_a_command_is_quoted_for_the_shell():
    assert command(["duration='2 epochs'"], grid=False) == """python src/train.py "duration='2 epochs'\""""
    assert command(["heads=1,2"], grid=True) == "python src/train.py -m heads=1,2"


@pytest.mark.slow
def test_a_study_can_be_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "sweeps").mkdir()
    study = "# @package _global_\nhydra:\n  sweeper:\n    params: {heads: '1,2'}\n"
    (tmp_path / "sweeps" / "mine.yaml").write_text(study)
    with composer(tmp_path):
        assert [run.heads for run in expand_grid("+sweeps=mine")] == [1, 2]
        assert len(expand_grid("+sweeps=ablation")) == 18
    with composer(), pytest.raises(HydraException):
        expand_grid("+sweeps=mine")


def test_an_error_of_another_package_is_not_taken_for_a_wrong_choice():
    """`batch_size` is a key, and no group whose choices are files."""
    with pytest.raises(UserError, match=r"expected a configuration that Hydra can compose, found KeyError: 'plugin'"):  # noqa: SIM117
        with composing(["batch_size=32", "heads=1,2"]):
            raise KeyError("plugin")

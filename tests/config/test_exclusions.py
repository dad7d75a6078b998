"""A grid can leave out cells of the product of its axes."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from headsweep.config import PROJECT_ROOT
from headsweep.config.study.exclusions import Exclusions, left_out
from headsweep.errors import ConfigError

CELLS = [
    OmegaConf.create(
        {"head": {"name": head} | ({"gram_dim": 64} if head == "ga" else {}), "heads": heads, "decorrelation": weight}
        | {"duration": "20 epochs", "clip_norm": None, "dataset": {"name": "digits", "download": False}}
    )
    for head in ("seqpool", "ga")
    for heads in (1, 2, 8)
    for weight in (0.0, -0.8)
]


def dropped(*exclusions):
    answers = left_out(CELLS, Exclusions(exclusions))
    return {(c.head.name, c.heads, c.decorrelation) for c, out in zip(CELLS, answers, strict=True) if out}


def cells(condition):
    return {key for c in CELLS if condition(*(key := (c.head.name, c.heads, c.decorrelation)))}


@pytest.mark.parametrize(
    ("exclusion", "condition"),
    [
        ("head=ga", lambda head, heads, weight: head == "ga"),
        ("head.name=ga", lambda head, heads, weight: head == "ga"),
        ("head!=ga", lambda head, heads, weight: head != "ga"),
        ("head=ga heads<2", lambda head, heads, weight: head == "ga" and heads < 2),
        ("head=ga,heads<2", lambda head, heads, weight: head == "ga" and heads < 2),
        ("duration=20 epochs head='ga'", lambda head, heads, weight: head == "ga"),
        ("heads<=2", lambda head, heads, weight: heads <= 2),
        ("heads>2", lambda head, heads, weight: heads > 2),
        ("heads>=2 decorrelation!=0", lambda head, heads, weight: heads >= 2 and weight != 0),
        ("decorrelation=-0.8 heads=1.0", lambda head, heads, weight: weight == -0.8 and heads == 1),
        ("head.gram_dim=64", lambda head, heads, weight: head == "ga"),  # a cell without the key stays
        ("head.gram_dim>32", lambda head, heads, weight: head == "ga"),
        ("clip_norm=null dataset.download=false heads=8", lambda head, heads, weight: heads == 8),
        ("clip_norm>1", lambda head, heads, weight: False),
        ("duration='20 epochs' head=ga", lambda head, heads, weight: head == "ga"),
        ("heads>8 head.no_such_option=1", lambda head, heads, weight: False),  # no cell meets the condition before it
        ("heads<2 heads=8", lambda head, heads, weight: False),
    ],
)
def test_a_cell_is_left_out_when_all_conditions_of_an_exclusion_hold(exclusion, condition):
    assert dropped(exclusion) == cells(condition)


def test_one_exclusion_is_enough():
    assert dropped("head=ga heads=1", "head=seqpool heads=8") == dropped("head=ga heads=1") | dropped(
        "head=seqpool heads=8"
    )
    assert dropped() == set()


@pytest.mark.parametrize(
    ("exclusions", "message"),
    [
        (["head"], "exclude=head: expected KEY OP VALUE, e.g. 'head=ga heads<2', found 'head'"),
        (
            ["head=ga heads==2"],
            "exclude=head=ga heads==2: expected KEY OP VALUE, e.g. 'head=ga heads<2', found 'heads==2'",
        ),
        (["heads ="], "exclude=heads =: expected KEY OP VALUE, e.g. 'head=ga heads<2', found 'heads ='"),
        (["duration='20"], "exclude=duration='20: no cell has duration='20; the grid has 20 epochs"),
        ([""], "exclude=: expected KEY OP VALUE, e.g. 'head=ga heads<2', found ''"),
        (["haeds=2"], "exclude=haeds=2: haeds: unknown key; did you mean heads or head?"),
        (["head=ga haeds=2"], "exclude=head=ga haeds=2: haeds: unknown key; did you mean heads or head?"),
        (["head=gaa heads<2"], "exclude=head=gaa heads<2: no cell has head=gaa; the grid has seqpool, ga"),
        (["head.name!=gaa"], "exclude=head.name!=gaa: no cell has head.name=gaa; the grid has seqpool, ga"),
        (["head=ga heads=3"], "exclude=head=ga heads=3: no cell has heads=3; the grid has 1, 2, 8"),
        (["head.gram_dim=46"], "exclude=head.gram_dim=46: no cell has head.gram_dim=46; the grid has 64"),
        (["clip_norm=nil"], "exclude=clip_norm=nil: no cell has clip_norm=nil; the grid has null"),
        (["head<2"], "exclude=head<2: expected a number, found the text 'seqpool'; use = or !="),
        (["heads<many"], "exclude=heads<many: expected a number, found the text 'many'"),
        (["heads<2", "heads>=2"], "exclude: leaves out all 12 cells of the grid; expected at least one to remain"),
        ("head=ga", "exclude=head=ga: expected a list"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_exclusion(exclusions, message):
    with pytest.raises(ConfigError) as caught:
        left_out(CELLS, Exclusions(exclusions))
    assert str(caught.value).startswith(f"hydra.launcher.{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("exclusion", ["head=cls heads<2", "head.name=cls", "heads=16", "duration='300 epochs'"])
def test_a_value_of_an_axis_that_the_command_line_narrowed_is_accepted(exclusion):
    """As `+sweeps=ga_table2 heads=1`: the study's exclusions name all its heads."""
    axes = [
        "head=seqpool,ga,cls",
        "heads=choice(1,2,8,16)",
        "duration='20 epochs','300 epochs'",
        "heads=1,2,8",
        "seed=0",
    ]
    left_out(CELLS, Exclusions([exclusion, "head=ga"], axes))
    with pytest.raises(ConfigError, match="no cell has"):
        left_out(CELLS, Exclusions([exclusion]))


def test_the_launcher_answers_for_every_cell_and_parses_only_what_is_kept(monkeypatch, capsys):
    """heads=0 is no valid run: it can be left out all the same. The command line has narrowed a study's heads."""
    from headsweep.launch import conclude, run_sweep
    from hydra_plugins.headsweep_launcher import HeadsweepLauncher

    monkeypatch.setattr(run_sweep, "run_sweep", lambda runs, *_: runs)
    monkeypatch.setattr(conclude, "objectives", lambda runs: [run.heads / 10 for run in runs])
    keys = OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "local.yaml")
    keys.exclude = ["heads<1", "head=ga heads>2", "head=cls"]
    launcher = HeadsweepLauncher(**keys)
    hydra = {"sweeper": {"params": {"head": "seqpool,ga,cls"}}, "launcher": keys}
    loader = SimpleNamespace(
        load_sweep_config=lambda _, words: OmegaConf.merge({"hydra": hydra}, compose("train", overrides=words))
    )
    config = OmegaConf.create({"hydra": {**hydra, "overrides": {"task": ["head=seqpool,ga"]}}})
    launcher.setup(hydra_context=SimpleNamespace(config_loader=loader), task_function=None, config=config)
    grid = [[f"head={head}", f"heads={heads}", "device=cpu"] for head in ("seqpool", "ga") for heads in (0, 2, 4)]
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        jobs = launcher.launch(grid, 0)
    assert [list(job.overrides) for job in jobs] == grid
    assert [job.return_value for job in jobs] == [None, 0.2, 0.4, None, 0.2, None]
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    assert capsys.readouterr().out == "3 of 6 cells left out (hydra.launcher.exclude)\n"

"""`headsweep plan` on a study: where each run comes from, and how a study reaches its sweep."""

import json

import pytest

from commands import enter, give
from headsweep.config.study import expansion
from headsweep.launch import run_sweep
from headsweep.plan.plan import make_plan
from overriding import compose_and_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hydra_state")]

S = "hydra.sweeper."
STUDY = [
    f"{S}variants={{paper:[],no mixup:[augmentation.mixup=0.2]}}",
    f'{S}conditional={{head=ga:{{head.gram_dim:"16,32"}}}}',
    f'{S}zipped=[{{batch_size:"32,64",optimizer.lr:"1e-3,2e-3"}}]',
]


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """Compositions that differ in values alone are one, for all tests."""
    monkeypatch.setattr(expansion, "compose", compose_and_set)


def planned(capsys, *words):
    """What `headsweep plan --list --json` prints."""
    assert give("plan", "--list", "--json", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_the_example_study_is_planned_with_the_origin_of_each_run(tmp_path, capsys):
    assert give("plan", "--list", "+sweeps=ablation", "seeds=3", f"paths.output={tmp_path}") == 0
    *runs, total = capsys.readouterr().out.splitlines()
    assert len(runs) == 54 and total.startswith("54 runs in digits-cct_2_3x2-")
    assert runs[0].endswith("  variant complete; tune optimizer.lr=0.001")
    assert runs[-1].endswith("  variant no crops; conditional head.gram_dim=64 (head=ga); tune optimizer.lr=0.003")


def test_an_origin_has_each_part_of_the_study(tmp_path, capsys):
    rows = planned(capsys, "head=gap,ga", *STUDY, f"paths.output={tmp_path}")["rows"]
    origins = [row["origin"] for row in rows]
    assert len(origins) == 12
    assert origins[0] == {"variant": ["paper"], "zipped": ["batch_size=32 optimizer.lr=0.001"]}
    assert origins[3]["variant"] == ["no mixup"]
    assert origins[3]["conditional"] == ["head.gram_dim=16 (head=ga)"]


def test_a_run_of_several_blocks_has_the_origins_of_all(tmp_path, capsys):
    union = f'{S}union=[{{params:{{heads:"1,2"}}}},{{params:{{heads:"2,4"}}}}]'
    shown = planned(capsys, union, f"paths.output={tmp_path}")
    assert [row["origin"] for row in shown["rows"]] == [{"union": ["0"]}, {"union": ["0", "1"]}, {"union": ["1"]}]


def test_cells_that_are_one_run_are_in_the_notes(tmp_path, capsys):
    variants = f"{S}variants={{eager:[],compiled:[compile=step]}}"
    shown = planned(capsys, "heads=1,2", variants, f"paths.output={tmp_path}")
    assert shown["notes"] == [
        "compile=auto,step: changes no result; 4 cells are 2 runs, each trained as its first cell"
    ]
    assert [row["origin"] for row in shown["rows"]] == [{"variant": ["eager", "compiled"]}] * 2


def test_a_plain_grid_has_no_origins(tmp_path, capsys):
    assert give("plan", "--list", "heads=1,2", f"paths.output={tmp_path}") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("  new  ?  ?  ?  ?")


def test_train_hands_the_design_over_with_the_runs(tmp_path, monkeypatch):
    plans = []

    def take(runs, launcher, lookup, declared, *_):
        plans.append(make_plan(runs, lookup, declared))
        raise SystemExit(0)

    monkeypatch.setattr(run_sweep, "run_sweep", take)
    assert enter("-m", "head=gap,ga", *STUDY, f"{S}margin=0.5", f"paths.output={tmp_path}") == 0
    (plan,) = plans
    assert plan.design.baseline == "paper" and plan.design.variant_keys == ["augmentation.mixup"]
    assert sorted(plan.design.variants.values()) == ["no mixup"] * 6 + ["paper"] * 6
    assert plan.design.margin is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["-m", "+sweeps=ablation", "hydra/launcher=basic"],
            "hydra.sweeper.variants: expected a launcher of headsweep, such as hydra/launcher=local; others can start",
        ),
        (["-m", "heads=1,2", f"{S}margin=1", "hydra/launcher=basic"], "hydra.sweeper.margin: expected a launcher of"),
        (["+sweeps=ablation"], "+sweeps=ablation: expected -m, as a study is a grid"),
        ([f"{S}margin=1"], "hydra.sweeper.margin: expected -m, as a study is a grid"),
        (["-m", f"{S}variants={{a:[],a:[heads=2]}}"], "hydra.sweeper.variants: expected each key once, found a twice"),
        (["-m", "head=${head},ga"], "head=${head}"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(words, message, tmp_path, capsys):
    assert enter(*words, f"paths.output={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "runs").exists()

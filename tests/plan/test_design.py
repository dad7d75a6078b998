"""What a study declares about its cells is kept with the plan of its sweep."""

import pytest

from composing import expand_study
from headsweep.errors import UserError
from headsweep.plan.fingerprint import group
from headsweep.plan.lookup import Lookup
from headsweep.plan.plan import Plan, freeze, make_plan, plan_of
from headsweep.tracking.design import Design, Margin
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.sweep_folder import SweepFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hydra_conf")]

COST = {"parameters": 1, "head_parameters": 1, "flops": 1, "head_flops": 1}
VARIANTS = "hydra.sweeper.variants={paper:[],no smoothing:[augmentation.label_smoothing=0],EMA:[ema_decay=0.999]}"
TUNE = 'hydra.sweeper.tune={optimizer.lr:"1e-3,3e-3"}'


def planned(*words: str) -> Plan:
    expansion = expand_study(*words)
    return plan_of(Lookup().resolved(expansion.runs()), expansion.declared)


def frozen(*words: str) -> Design:
    """The design in the folder of the sweep, after the command."""
    expansion = expand_study(*words)
    plan = make_plan(expansion.runs(), declared=expansion.declared)
    freeze(plan, {run.fingerprint: COST for run in plan.runs if not run.folder.config.exists()})
    return SweepFolder(plan.folder).design()


def by_variant(plan: Plan) -> dict[str, list[tuple[str, float, float | None]]]:
    found: dict[str, list[tuple[str, float, float | None]]] = {}
    for planned_run in plan.runs:
        run = planned_run.run
        cells = found.setdefault(plan.design.variants[group(run)], [])
        cells.append((run.head.name, run.augmentation.label_smoothing, run.ema_decay))
    return found


def test_cells_have_the_names_of_their_variants():
    plan = planned("head=gap,ga", VARIANTS, "seeds=2")
    assert by_variant(plan) == {
        "paper": [(head, 0.1, None) for head in ("gap", "gap", "ga", "ga")],
        "no smoothing": [(head, 0.0, None) for head in ("gap", "gap", "ga", "ga")],
        "EMA": [(head, 0.1, 0.999) for head in ("gap", "gap", "ga", "ga")],
    }
    assert plan.design.baseline == "paper"
    assert plan.design.variant_keys == ["augmentation.label_smoothing", "ema_decay"]
    assert plan.design.tune == [] and plan.design.margin is None


def test_variants_stand_beside_each_other_with_seeds_fastest():
    plan = planned("head=gap,ga", VARIANTS, TUNE, "seeds=2")
    runs = [it.run for it in plan.runs]
    assert [run.head.name for run in runs] == ["gap"] * 12 + ["ga"] * 12
    assert [(run.optimizer.lr, run.seed) for run in runs[:4]] == [(1e-3, 0), (1e-3, 1), (3e-3, 0), (3e-3, 1)]
    assert [run.ema_decay for run in runs[:12]] == [None] * 8 + [0.999] * 4


def test_a_key_of_a_group_that_a_variant_chooses_is_one_of_its_keys():
    plan = planned("augmentation.erasing=0,0.25", "hydra.sweeper.variants={light:[],none:[augmentation=none]}")
    assert plan.design.variant_keys == ["augmentation.crop_scale", "augmentation.label_smoothing"]


def test_tuned_keys_are_those_of_the_identity():
    assert planned("head=gap,ga", TUNE).design.tune == ["optimizer.lr"]
    tuned = planned("hydra.sweeper.tune={optimizer:'adamw,sgd'}").design.tune
    assert tuned[0] == "optimizer.name" and "optimizer.lr" in tuned and "head.name" not in tuned


def test_arms_with_fewer_settings_than_others_are_named():
    excluded = 'hydra.launcher.exclude=["head=ga optimizer.lr=0.003","head=gap seed=1"]'
    (line,) = planned("head=gap,ga", TUNE, excluded, "seeds=2").notes
    expected = "hydra.sweeper.tune: expected as many settings of optimizer.lr for each arm (2), found fewer for "
    assert line == f"{expected}head.name=ga: 1"
    assert planned("head=gap,ga", VARIANTS, TUNE).notes == ()
    assert planned("head=gap,ga", "hydra.sweeper.tune={optimizer:'adamw,sgd'}").notes == ()
    gram = 'hydra.sweeper.conditional={head=ga:{head.gram_dim:"16,32"}}'
    assert planned("head=gap,ga", TUNE, gram).notes == ()
    few = 'hydra.launcher.exclude=["head=ga head.gram_dim=16 optimizer.lr=0.001"]'
    assert planned("head=gap,ga", TUNE, gram, few).notes[0].endswith("head.name=ga head.gram_dim=16: 1")


def test_the_design_is_in_the_plan_of_the_sweep(tmp_path):
    where = f"paths.output={tmp_path}"
    found = frozen("head=gap,ga", VARIANTS, "hydra.sweeper.baseline=EMA", TUNE, "hydra.sweeper.margin=0.3", where)
    assert found.baseline == "EMA" and found.tune == ["optimizer.lr"]
    assert found.margin == Margin(0.3, finished=0)
    assert sorted(found.variants.values()) == sorted(["paper", "no smoothing", "EMA"] * 4)


def test_a_later_command_of_the_sweep_keeps_what_it_does_not_declare(tmp_path):
    words = ["head=gap", f"paths.output={tmp_path}"]
    before = frozen(*words, "hydra.sweeper.variants={none:[],EMA:[ema_decay=0.9]}", TUNE, "hydra.sweeper.margin=0.5")
    after = frozen(*words, "ema_decay=null,0.9", "optimizer.lr=1e-3,3e-3", "seeds=2")
    assert after == before and before.tune and before.variants and before.margin


def test_a_margin_has_the_number_of_runs_that_had_finished_when_it_was_declared(tmp_path):
    words = ["head=gap", "seeds=2", f"paths.output={tmp_path}"]
    assert frozen(*words).margin is None
    for run, number in zip(planned(*words).runs, (1, 2), strict=True):
        run.folder.finish(RunResult("finished", {"test/top1": 0.9}, 1, 1))
        assert frozen(*words, f"hydra.sweeper.margin=0.{number}").margin == Margin(number / 10, finished=number)
    assert frozen(*words).margin == frozen(*words, "hydra.sweeper.margin=0.2").margin == Margin(0.2, finished=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [TUNE, "dataset.validation=0"],
            "dataset.validation=0.0: expected images held out for validation, on which hydra.sweeper.tune chooses",
        ),
        (
            ["hydra.sweeper.variants={a:[],b:[ema_decay=0.9]}", 'hydra.launcher.exclude=["ema_decay=null"]'],
            "hydra.sweeper.baseline=a: expected a variant with a cell of its own, found none",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(words, message):
    with pytest.raises(UserError) as caught:
        planned(*words)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)

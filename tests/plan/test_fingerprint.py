import pytest

from composing import compose_run
from headsweep.plan.fingerprint import fingerprint, group, identity


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "device=cpu",
        "compile=step",
        "activation_checkpointing=true",
        "paths.output=/elsewhere",
        "paths.data=/elsewhere",
        "tracking=none",
        "tracking.uri=http://127.0.0.1:5000",
        "loader.workers=7",
        "loader.stage=/tmp",
        "dataset.root=/elsewhere",
        "dataset.download=true",
    ],
)
def test_where_a_run_happens_is_not_who_it_is(override):
    assert fingerprint(compose_run(override)) == fingerprint(compose_run())


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "heads=2",
        "head=gap",
        "model.depth=3",
        "dataset.image_size=32",
        "dataset.digest=abc",
        "augmentation.flip=0.5",
        "optimizer.lr=1e-3",
        "schedule.min_lr=0",
        "duration='21 epochs'",
        "batch_size=32",
        "accumulation=2",
        "clip_norm=1.0",
        "ema_decay=0.99",
        "precision=bfloat16",
        "loader.resident_gib=0",
        "debug.train_images=100",
    ],
)
def test_whatever_changes_a_number_is_a_new_run(override):
    assert fingerprint(compose_run(override)) != fingerprint(compose_run())


@pytest.mark.slow
def test_how_a_value_was_given_does_not_matter():
    assert fingerprint(compose_run("heads=1", "optimizer=adamw")) == fingerprint(compose_run())
    one, other = ("model.options={depth: 2, drop_rate: 0.1}", "model.options={drop_rate: 0.1, depth: 2}")
    assert fingerprint(compose_run("model=timm", one)) == fingerprint(compose_run("model=timm", other))


def test_options_of_a_timm_model_are_one_key():
    run = compose_run("model=timm", "model.options={depth: 2, drop_rate: 0.1}")
    assert identity(run)["model.options"] == '{"depth": 2, "drop_rate": 0.1}'
    assert identity(compose_run("model=timm"))["model.options"] is None


def test_a_group_is_the_runs_that_differ_in_seed_alone():
    assert group(compose_run("seed=1")) == group(compose_run("seed=2"))
    assert group(compose_run("seed=1", "heads=2")) != group(compose_run("seed=1"))

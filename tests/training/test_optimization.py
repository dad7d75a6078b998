import math

import pytest
import torch
from torch import nn

from composing import compose_run
from headsweep.errors import ConfigError
from headsweep.models.build import build_model
from headsweep.training.optimization import build_optimizer, build_schedule, run_steps


def rates(steps, warmup, *overrides):
    run = compose_run("optimizer.lr=0.1", *overrides)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=run.optimizer.lr)
    schedule = build_schedule(optimizer, run.schedule, steps, warmup)
    values = []
    for step in range(steps):
        schedule.step_update(step)
        values.append(optimizer.param_groups[0]["lr"])
    return values


def test_linear_warmup_then_cosine():
    ours = rates(100, 10, "schedule.warmup_lr=0.01", "schedule.min_lr=0.001")
    warm = [0.01 + (0.1 - 0.01) * step / 10 for step in range(10)]
    cosine = [0.001 + 0.5 * (0.1 - 0.001) * (1 + math.cos(math.pi * step / 90)) for step in range(90)]
    assert ours == pytest.approx(warm + cosine)


def test_constant_is_constant_after_its_warmup():
    assert rates(20, 0, "schedule=constant") == pytest.approx([0.1] * 20)
    assert rates(20, 5, "schedule=constant")[5:] == pytest.approx([0.1] * 15)


def test_warmup_is_a_share_of_the_run_or_a_duration():
    assert run_steps(compose_run("duration='20 epochs'"), steps_per_epoch=10) == (200, 20)
    run = compose_run("duration='20 epochs'", "schedule.warmup='2 epochs'")
    assert run_steps(run, steps_per_epoch=10) == (200, 20)
    assert run_steps(compose_run("duration='50 steps'"), steps_per_epoch=10) == (50, 5)


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match=r"duration=1 images: is less than one optimizer step"):
        run_steps(compose_run("duration='1 images'"), steps_per_epoch=10)


@pytest.mark.parametrize("head", ["gap", "seqpool", "ga", "seqattn"])
def test_what_is_one_dimensional_per_head_is_not_decayed(head):
    run = compose_run(f"head={head}", "heads=2", "optimizer.weight_decay=0.06")
    model = build_model(run.model, run.head, heads=2, num_classes=10, image_size=16, channels=1, seed=0)
    decay = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(model, run.optimizer).param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        per_head = parameter.ndim - name.startswith("head.")
        assert decay[id(parameter)] == (0.0 if per_head <= 1 else 0.06), name


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
def test_each_optimizer_takes_its_options_and_steps(optimizer):
    run = compose_run(f"optimizer={optimizer}")
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    built = build_optimizer(model, run.optimizer)
    model(torch.randn(2, 4)).sum().backward()
    built.step()
    assert not torch.equal(model.weight, before)


def test_unknown_optimizer_lists_those_known():
    run = compose_run("optimizer.name=adamq")
    with pytest.raises(ConfigError, match=r"optimizer.name=adamq: .*known: .*adamw"):
        build_optimizer(nn.Linear(2, 2), run.optimizer)


def test_an_option_that_the_optimizer_does_not_take_is_named():
    run = compose_run("optimizer=sgd", "optimizer.betas=[0.9,0.99]")
    with pytest.raises(ConfigError, match=r"optimizer.betas=\[0.9, 0.99\]: optimizer.name=sgd has no betas; want null"):
        build_optimizer(nn.Linear(2, 2), run.optimizer)


def test_a_value_that_the_optimizer_refuses_is_one_line():
    with pytest.raises(ConfigError, match=r"^optimizer=adamw: does not take .*Invalid beta"):
        build_optimizer(nn.Linear(2, 2), compose_run("optimizer.betas=[2.0,0.9]").optimizer)

import copy

import pytest
import torch
from timm.optim import get_optimizer_info
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, SequentialLR

from composing import compose_run
from headsweep.config import OptimizerConfig
from headsweep.errors import ConfigError
from headsweep.models.build import build_model
from headsweep.training.optimization import build_optimizer, build_schedule, run_steps, usable_optimizers


def rates(steps, warmup, *overrides):
    run = compose_run("optimizer.lr=0.1", *overrides)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=run.optimizer.lr)
    schedule = build_schedule(optimizer, run.schedule, steps, warmup)
    values = []
    for step in range(steps):
        schedule.step_update(step)
        values.append(optimizer.param_groups[0]["lr"])
    return values


def upstream_warmup(optimizer, steps, warmup_lr):
    lr = optimizer.param_groups[0]["lr"]
    return LambdaLR(optimizer, lambda step: (step * (lr - warmup_lr) / steps + warmup_lr) / lr)


def torch_warmup(optimizer, steps, warmup_lr):
    return LinearLR(optimizer, warmup_lr / optimizer.param_groups[0]["lr"], 1.0, steps)


@pytest.mark.parametrize("warmup_of", [upstream_warmup, torch_warmup])
@pytest.mark.parametrize(("steps", "warmup"), [(300, 10), (41, 40), (30, 29)])
def test_every_step_has_the_rate_of_torchs_schedulers(warmup_of, steps, warmup):
    """As upstream puts them together, were its warm-up `warmup` steps long."""
    actual = rates(steps, warmup, "schedule.warmup_lr=0.01", "schedule.min_lr=0.001")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    phases = [warmup_of(optimizer, warmup, 0.01), CosineAnnealingLR(optimizer, max(2, steps - warmup), 0.001)]
    schedule = SequentialLR(optimizer, phases, milestones=[warmup])
    torchs = []
    for _ in range(steps):
        torchs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert actual == pytest.approx(torchs, rel=1e-9)


@pytest.mark.slow
def test_the_rates_of_the_papers_recipe():
    """300 epochs of 195 steps: from 1e-6 up to 5e-4 in ten epochs, half-way at the middle of the rest, down to 1e-5."""
    run = compose_run("schedule.warmup='10 epochs'", "duration='300 epochs'", "batch_size=256", "optimizer=adamw")
    steps, warmup = run_steps(run, 195)
    actual = rates(steps, warmup, "optimizer.lr=5e-4")
    assert (steps, warmup, actual[0], max(actual), actual.index(max(actual))) == (58_500, 1950, 1e-6, 5e-4, 1950)
    assert actual[1950 + 56_550 // 2] == pytest.approx((5e-4 + 1e-5) / 2)
    assert actual[-1] == pytest.approx(1e-5, rel=1e-4)


def test_constant_is_constant_after_its_warmup():
    assert rates(20, 0, "schedule=constant") == pytest.approx([0.1] * 20)
    assert rates(20, 5, "schedule=constant")[5:] == pytest.approx([0.1] * 15)


@pytest.mark.slow
def test_warmup_is_a_share_of_the_run_or_a_duration():
    assert run_steps(compose_run("duration='20 epochs'"), steps_per_epoch=10) == (200, 20)
    run = compose_run("duration='20 epochs'", "schedule.warmup='2 epochs'")
    assert run_steps(run, steps_per_epoch=10) == (200, 20)
    assert run_steps(compose_run("duration='50 steps'"), steps_per_epoch=10) == (50, 5)


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(ConfigError, match=r"duration=1 images: expected at least one optimizer step"):
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


def test_twenty_steps_of_adamw_are_torchs():
    """Two groups of parameters, as upstream makes them, and a rate that changes with every step."""
    torch.manual_seed(0)
    run = compose_run("optimizer.weight_decay=0.06", "optimizer.lr=1e-3")
    actual = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm(8), nn.Linear(8, 5))
    torchs = copy.deepcopy(actual)
    optimizer = build_optimizer(actual, run.optimizer)
    schedule = build_schedule(optimizer, run.schedule, steps=20, warmup=5)
    groups = [
        {"params": [p for p in torchs.parameters() if p.ndim >= 2], "weight_decay": 0.06},
        {"params": [p for p in torchs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=run.optimizer.eps)
    phases = [torch_warmup(reference, 5, 1e-6), CosineAnnealingLR(reference, 15, 1e-5)]
    reference_schedule = SequentialLR(reference, phases, milestones=[5])
    for step in range(20):
        schedule.step_update(step)
        for one, other in zip(actual.parameters(), torchs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
        reference_schedule.step()
    for one, other in zip(actual.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("optimizer", "fused"), [("adamw", True), ("sgd", True), ("lamb", None)])
def test_parameters_are_updated_in_one_kernel_where_torch_has_one(optimizer, fused):
    config = compose_run(f"optimizer={optimizer}").optimizer
    assert build_optimizer(nn.Linear(4, 3), config).defaults.get("fused") is fused
    assert not build_optimizer(nn.Linear(4, 3, device="meta"), config).defaults.get("fused")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
def test_each_optimizer_takes_its_options_and_steps(optimizer):
    run = compose_run(f"optimizer={optimizer}")
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    built = build_optimizer(model, run.optimizer)
    model(torch.randn(2, 4)).sum().backward()
    built.step()
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("adahessian", "one that needs second ones"),
        ("bnbadamw8bit", r"one of another package \(bitsandbytes.optim.AdamW8bit\)"),
        ("fusedlamb", r"one of another package \(apex.optimizers.FusedLAMB\)"),
    ],
)
def test_an_optimizer_that_cannot_step_here_is_refused_in_one_line(name, found):
    config = compose_run("optimizer=lamb", f"optimizer.name={name}").optimizer
    with pytest.raises(ConfigError, match=rf"^optimizer.name={name}: expected .*, found {found}; choose another"):
        build_optimizer(nn.Linear(2, 2), config)
    assert name not in usable_optimizers()


@pytest.mark.parametrize("name", [name for name in usable_optimizers() if not name.startswith("kron")])  # it compiles
def test_every_optimizer_that_is_offered_steps(name):
    model = nn.Linear(4, 3)
    momentum = 0.9 if get_optimizer_info(name).has_momentum else None
    built = build_optimizer(model, OptimizerConfig(name, 0.001, 0.05, None, None, momentum, 1.0))
    model(torch.randn(2, 4)).square().sum().backward()
    built.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_unknown_optimizer_lists_those_known():
    run = compose_run("optimizer.name=adamq")
    with pytest.raises(ConfigError, match=r"optimizer.name=adamq: .*known: .*adamw"):
        build_optimizer(nn.Linear(2, 2), run.optimizer)


def test_an_option_that_the_optimizer_does_not_take_is_named():
    run = compose_run("optimizer=sgd", "optimizer.betas=[0.9,0.99]")
    with pytest.raises(
        ConfigError, match=r"optimizer.betas=\[0.9, 0.99\]: expected null: optimizer.name=sgd has no betas"
    ):
        build_optimizer(nn.Linear(2, 2), run.optimizer)


@pytest.mark.slow
def test_a_value_that_the_optimizer_refuses_is_one_line():
    with pytest.raises(ConfigError, match=r"^optimizer=adamw: does not accept .*Invalid beta"):
        build_optimizer(nn.Linear(2, 2), compose_run("optimizer.betas=[2.0,0.9]").optimizer)

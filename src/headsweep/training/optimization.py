"""Optimizer and learning rate, both from timm's factories."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from headsweep.config import Duration, OptimizerConfig, RunConfig, ScheduleConfig, ScheduleName
from headsweep.errors import ConfigError


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the named optimizer; parameters that are one-dimensional per head, and biases, have no weight decay.

    Raises:
        ConfigError: the optimizer is unknown, cannot be built here, needs second derivatives, or does not accept a
            given option or value.
    """
    options = {"lr": config.lr, "weight_decay": config.weight_decay, **_options(config)}
    scaled = {"param_group_fn": partial(_groups, config)} if config.backbone_lr_scale != 1 else {}
    fused = {"fused": True} if _has_fused_kernel(config.name, next(model.parameters()).device) else {}
    try:
        optimizer = create_optimizer_v2(model, opt=config.name, **options, **scaled, **fused)
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError("optimizer", config.name, f"does not accept {options} ({error})") from error
    if getattr(optimizer, "is_second_order", False):  # the backward pass keeps no graph for second derivatives
        found = "expected an optimizer that needs first derivatives alone, found one that needs second ones"
        raise ConfigError("optimizer.name", config.name, f"{found}; choose another, e.g. adamw")
    return optimizer


def _groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of head and backbone, with and without weight decay; the schedule reads `lr_scale`."""
    undecayed: set[str] = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_decayed = parameter.ndim > 1 and not name.endswith(".bias") and name not in undecayed
            groups.setdefault((name.startswith("backbone."), is_decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_decayed else 0.0,
            "lr_scale": config.backbone_lr_scale if is_of_backbone else 1.0,
        }
        for (is_of_backbone, is_decayed), parameters in groups.items()
    ]


def usable_optimizers() -> list[str]:
    """Return timm's optimizers, without those of other packages (bnb*, fused*) and second-order ones."""
    return list_optimizers(exclude_filters=["bnb*", "fused*", "adahessian"])


def _options(config: OptimizerConfig) -> dict[str, Any]:
    """Return the given options. timm would ignore one that does not apply, and add a default momentum."""
    try:
        known = get_optimizer_info(config.name)
    except ValueError:
        names = ", ".join(usable_optimizers())
        raise ConfigError("optimizer.name", config.name, f"unknown optimizer; known: {names}") from None
    if isinstance(known.opt_class, str):  # timm imports the class on demand
        found = f"expected an optimizer of timm or torch, found one of another package ({known.opt_class})"
        raise ConfigError("optimizer.name", config.name, f"{found}; choose another, e.g. adamw")
    takes = {"betas": known.has_betas, "eps": known.has_eps, "momentum": known.has_momentum}
    given = {key: getattr(config, key) for key in takes if getattr(config, key) is not None}
    for key, value in given.items():
        if not takes[key]:
            raise ConfigError(f"optimizer.{key}", value, f"expected null: optimizer.name={config.name} has no {key}")
    if known.has_momentum and "momentum" not in given:
        raise ConfigError("optimizer.momentum", "null", f"expected a number for {config.name}, e.g. 0.9")
    return given


def _has_fused_kernel(name: str, device: torch.device) -> bool:
    """Return whether torch can update all parameters in one kernel, instead of dozens of launches."""
    takes = inspect.signature(get_optimizer_info(name).opt_class).parameters
    return "fused" in takes and device.type in ("cuda", "cpu")


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps: int, warmup: int) -> Scheduler:
    """Return the learning rate by step: linear from warmup_lr over `warmup` of `steps`, then the shape."""
    cosine_steps = max(2, steps - warmup)  # timm warns about a cosine of one step
    constant = config.name is ScheduleName.constant
    return CosineLRScheduler(
        optimizer,
        t_initial=cosine_steps,
        lr_min=optimizer.param_groups[0]["lr"] if constant else config.min_lr,
        warmup_t=warmup,
        warmup_lr_init=config.warmup_lr,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def run_steps(run: RunConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Return (steps, warm-up steps) of a run.

    Raises:
        ConfigError: the durations leave nothing to train.
    """
    steps = Duration.parse("duration", run.duration).steps(steps_per_epoch, run.batch_size)
    warmup = Duration.parse("schedule.warmup", run.schedule.warmup).steps(steps_per_epoch, run.batch_size, steps)
    if steps < 1:
        raise ConfigError("duration", run.duration, "expected at least one optimizer step")
    if warmup >= steps:
        raise ConfigError("schedule.warmup", run.schedule.warmup, f"expected less than the run's {steps} steps")
    return steps, warmup

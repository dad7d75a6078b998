"""Optimizer and learning rate, both from timm's factories."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from headsweep.config import Duration, OptimizerConfig, RunConfig, ScheduleConfig, ScheduleName
from headsweep.errors import ConfigError


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The named optimizer; parameters that are one-dimensional per head, and biases, are not decayed.

    Raises:
        ConfigError: timm does not know the optimizer, or it does not take one of the options given.
    """
    given = {"betas": config.betas, "eps": config.eps}
    options = {key: value for key, value in given.items() if value is not None}
    if config.momentum is not None:
        options["momentum"] = config.momentum
    try:
        return create_optimizer_v2(model, opt=config.name, lr=config.lr, weight_decay=config.weight_decay, **options)
    except TypeError as error:
        raise ConfigError("optimizer", config.name, f"does not take one of {sorted(options)}: {error}") from error
    except (AssertionError, ValueError) as error:
        raise ConfigError("optimizer.name", config.name, _known_optimizers(error)) from error


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps: int, warmup: int) -> Scheduler:
    """Learning rate as a function of the step alone: linear from warmup_lr over `warmup` of `steps`, then the shape."""
    cosine_steps = max(1, steps - warmup)
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
    """(all steps, warm-up steps) of a run.

    Raises:
        ConfigError: the durations leave nothing to train.
    """
    steps = Duration.parse("duration", run.duration).steps(steps_per_epoch, run.batch_size)
    warmup = Duration.parse("schedule.warmup", run.schedule.warmup).steps(steps_per_epoch, run.batch_size, steps)
    if steps < 1:
        raise ConfigError("duration", run.duration, "is less than one optimizer step; want a longer one")
    if warmup >= steps:
        raise ConfigError("schedule.warmup", run.schedule.warmup, f"want less than the run's {steps} steps")
    return steps, warmup


def _known_optimizers(error: Exception) -> str:
    from timm.optim import list_optimizers

    return f"{error}; known: {', '.join(list_optimizers(exclude_filters=['bnb*']))}"

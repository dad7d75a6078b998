"""Loss and gradients of a micro-batch, compiled by torch.compile where that saves time.

Compiled or not, a run draws the same dropout masks and differs in rounding alone; checkpoints are interchangeable.
"""

# b images, c classes

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep import rng
from headsweep.config import Compilation, Precision, RunConfig
from headsweep.training.compile_errors import causes, is_out_of_memory, reason_of
from headsweep.training.compile_once import compiled_once, shape_key
from headsweep.training.device import allow_nondeterminism, autocast, lacks_deterministic_kernel
from headsweep.training.objective import objective
from headsweep.training.ranks import ALONE, Ranks

LOGGER = logging.getLogger("headsweep")
# Compiling a step takes about 68 s, or 6 s from torch's cache: over this many steps, 7 ms or 0.6 ms of each.
PAYS_FROM_STEPS = 10_000
TRIALS = 3  # micro-batches until all is compiled and recorded: a CUDA graph is recorded with the second
# For processes with several models, e.g. notebooks. Beyond its default of 8, torch silently stays in eager mode.
MOST_GRAPHS = 256
BACKEND = "inductor"
OPTIONS_ON_A_GPU = {
    "deterministic": True,  # do not choose kernels by their measured speed
    "combo_kernels": True,  # independent kernels are launched as one: most of a step's are small
    "combo_kernel_max_num_nodes": 64,
    # A layer norm's gradient, its sums over tokens included, is one kernel; with 10, the default, it is two.
    "triton.mix_order_reduction_max_reads": 12,
}

Loss = Callable[[Tensor, Tensor], Tensor]


class Gradients:
    """Adds the gradients of a micro-batch's loss to those of the model's parameters.

    If compiling fails, or an operation has no deterministic kernel, the run goes on without, with a warning.
    """

    def __init__(
        self, model: nn.Module, run: RunConfig, device: torch.device, steps: int, ranks: Ranks = ALONE
    ) -> None:
        """`model` is on `device`; `steps` are those of the whole run."""
        self._model, self._run, self._device, self._ranks = model, run, device, ranks
        self._eager: Loss = partial(_loss, model, run.precision, device, run.decorrelation, run.accumulation)
        self._loss: Loss = self._eager
        self._trials = TRIALS
        kind = choose(run, device, steps)
        self._compiles = kind is not Compilation.off
        self.used = kind.value  # for RunResult.environment: "off", "blocks", "step" or "off (why)"
        self._replays = kind is Compilation.step and device.type == "cuda"
        self._keeps_gradients = run.accumulation > 1
        if self._compiles:
            torch._dynamo.config.recompile_limit = MOST_GRAPHS
            torch._dynamo.config.fail_on_recompile_limit_hit = True
        if kind is Compilation.step:
            self._loss = torch.compile(self._eager, **compile_options(device, graphs=True))
        elif kind is Compilation.blocks:
            for block in repeated_blocks(model):
                block.compile(**compile_options(device, graphs=False))

    def __call__(
        self, images: Tensor, targets: Float[Tensor, "b c"], position: tuple[int, int, int]
    ) -> Float[Tensor, ""]:
        """Return the detached loss; images as in `TrainingBatch`, `position` are the arguments of `rng.enter_step`."""
        may_fail = self._compiles or torch.are_deterministic_algorithms_enabled()
        if self._trials == 0 or not may_fail:
            return self._differentiated(images, targets, position)
        self._trials -= 1
        before = _State(self._model)
        try:
            with self._turn(len(images)):
                loss = self._differentiated(images, targets, position)
                self._evaluated(images)
                return loss
        except Exception as error:
            undetermined = any(map(lacks_deterministic_kernel, causes(error)))
            if is_out_of_memory(error) or not (self._compiles or undetermined):
                raise
            before.restore()
            self._model.train()
            if undetermined:
                allow_nondeterminism(reason_of(error))
                self._trials += 1
                return self(images, targets, position)
            return self._eagerly(error, images, targets, position)

    def _eagerly(
        self, error: Exception, images: Tensor, targets: Tensor, position: tuple[int, int, int]
    ) -> Float[Tensor, ""]:
        """Repeat the micro-batch in eager mode, and stay in it."""
        self._give_up()
        loss = self(images, targets, position)  # raises if the compiler was not the cause
        self.used = f"off ({reason_of(error)})"
        LOGGER.warning("compile: compilation failed, the run continues in eager mode (%s)", reason_of(error))
        return loss

    def _differentiated(self, images: Tensor, targets: Tensor, position: tuple[int, int, int]) -> Tensor:
        rng.enter_step(*position)
        if not self._replays:
            loss = self._loss(images, targets)
            loss.backward()
            return loss.detach()
        torch.compiler.cudagraph_mark_step_begin()
        new = [parameter for parameter in self._model.parameters() if parameter.grad is None]
        loss = self._loss(images, targets)
        loss.backward()
        if self._keeps_gradients:  # those of the next micro-batch are written to the same memory
            for parameter in new:
                parameter.grad = None if parameter.grad is None else parameter.grad.clone()
        return loss.detach().clone()

    def _evaluated(self, images: Tensor) -> None:
        """Compile the blocks for evaluation as well: here, a failure can still fall back to eager mode."""
        if self.used == Compilation.blocks.value:
            self._model.eval()
            with torch.inference_mode(), autocast(self._run.precision, self._device):
                self._model(images, per_head=True)
            self._model.train()

    def _turn(self, images: int) -> AbstractContextManager[None]:
        """Compile with the first micro-batch; ranks do not wait for the lock, as it may hold collective operations."""
        first = self._compiles and self._trials == TRIALS - 1
        wait = first and self._ranks.count == 1
        return compiled_once(shape_key(self._run, images, self._device)) if wait else nullcontext()

    def _give_up(self) -> None:
        self._loss, self._replays, self._compiles, self.used = self._eager, False, False, Compilation.off.value
        for block in repeated_blocks(self._model):
            block.compile(disable=True)


def choose(run: RunConfig, device: torch.device, steps: int) -> Compilation:
    """Resolve `compile=auto` for a run of `steps`; any other value stays."""
    if run.compile is not Compilation.auto:
        return run.compile
    pays = device.type == "cuda" and steps >= PAYS_FROM_STEPS and not run.debug.detect_anomaly
    if not pays:
        return Compilation.off
    # Recomputed blocks draw their masks again; only eager mode restores the random state for it.
    return Compilation.blocks if run.activation_checkpointing else Compilation.step


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a model: innermost modules of a class of their own, in lists."""
    members = [
        child for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential)) for child in module
    ]
    own = [member for member in members if not type(member).__module__.startswith("torch.")]
    counts = Counter(map(type, own))
    blocks = {member for member in own if counts[type(member)] > 1}
    return [block for block in own if block in blocks and not blocks & set(_inside(block))]


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    modules = module.modules()
    next(modules)
    return modules


def _loss(
    model: nn.Module,
    precision: Precision,
    device: torch.device,
    decorrelation: float,
    accumulation: int,
    images: Tensor,
    targets: Tensor,
) -> Tensor:
    """Return a micro-batch's part of the loss of its step."""
    with autocast(precision, device):
        logits = model(images, per_head=True)
    return objective(logits, targets, decorrelation) / accumulation


def compile_options(device: torch.device, graphs: bool) -> dict[str, Any]:
    """Keywords of torch.compile."""
    options: dict[str, Any] = {"fallback_random": True}  # the masks of eager mode
    if device.type == "cuda":
        known = torch._inductor.list_options()  # older versions of torch lack some
        options["triton.cudagraphs"] = graphs
        options |= {name: value for name, value in OPTIONS_ON_A_GPU.items() if name in known}
    return {"backend": BACKEND, "dynamic": False} | ({"options": options} if BACKEND == "inductor" else {})


class _State:
    """The buffers and gradients that a failed step may have changed."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        gradients = ((parameter, parameter.grad) for parameter in model.parameters())
        self._gradients = [(parameter, None if grad is None else grad.clone()) for parameter, grad in gradients]

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient

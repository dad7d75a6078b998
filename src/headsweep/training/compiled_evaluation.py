"""The forward pass of evaluation, compiled and replayed as the training step is.

Its weights are a copy, made once per evaluation: those that autocast would cast for each batch are cast when copied.
"""

# b images, k heads, c classes

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.config import Compilation, Precision, RunConfig
from headsweep.training.cast_weights import cast_where_autocast_would
from headsweep.training.compile_errors import is_out_of_memory, reason_of
from headsweep.training.compile_once import compiled_once, shape_key
from headsweep.training.compiling import TRIALS, choose, compile_options
from headsweep.training.device import autocast
from headsweep.training.evaluation import Forward
from headsweep.training.ranks import ALONE, Ranks

LOGGER = logging.getLogger("headsweep")


class CompiledEvaluation:
    """Maps images to the logits of each head. If compiling fails, it goes on in eager mode, with a warning."""

    def __init__(self, model: nn.Module, run: RunConfig, device: torch.device, ranks: Ranks = ALONE) -> None:
        """`model` is on `device`, and not yet changed for several ranks; its weights change."""
        self._model = model.eval().requires_grad_(False)
        self._run, self._device, self._ranks = run, device, ranks
        self._eager: Forward = partial(_logits, self._model, run.precision, device)
        self._compiled: Forward | None = torch.compile(self._eager, **compile_options(device, graphs=True))
        self._trials, self._replays = TRIALS, device.type == "cuda"
        self._has_cast = False
        self.failure: str | None = None  # why it is eager

    @staticmethod
    def of(
        model: nn.Module, run: RunConfig, device: torch.device, steps: int, ranks: Ranks = ALONE
    ) -> CompiledEvaluation | None:
        """Return that of a copy of `model`, for a run of `steps`.

        Returns:
            None if its step is not compiled or, with a warning, if the model cannot be copied.
        """
        if choose(run, device, steps) is not Compilation.step:
            return None
        try:
            own = copy.deepcopy(model)
        except Exception as error:  # of code in the model
            LOGGER.warning("compile: the model cannot be copied, evaluation is not compiled (%s)", reason_of(error))
            return None
        return CompiledEvaluation(own, run, device, ranks)

    def update(self, model: nn.Module) -> None:
        """Take the weights of `model`."""
        for own, other in zip(_state(self._model), _state(model), strict=True):
            own.copy_(other)

    @torch.no_grad()  # inference mode would make tensors that a CUDA graph cannot be given later
    def __call__(self, images: Tensor) -> Float[Tensor, "b k c"]:
        """Images are as in `EvaluationBatch`, and at most a full batch of the run."""
        if not self._has_cast:
            cast_where_autocast_would(self._model, self._eager, images)
            self._has_cast = True
        return filled_up(self._computed, self._run.batch_size // self._ranks.count)(images)

    def _computed(self, images: Tensor) -> Tensor:
        if self._compiled is None:
            return self._eager(images)
        if not self._trials:
            return self._replayed(self._compiled, images)
        self._trials -= 1
        try:
            with self._turn(len(images)):
                return self._replayed(self._compiled, images)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            logits = self._eager(images)  # raises if the compiler was not the cause
            self._compiled, self.failure = None, reason_of(error)
            LOGGER.warning("compile: compilation failed, evaluation continues in eager mode (%s)", self.failure)
            return logits

    def _replayed(self, forward: Forward, images: Tensor) -> Tensor:
        if not self._replays:
            return forward(images)
        torch.compiler.cudagraph_mark_step_begin()
        return forward(images).clone()  # the next replay writes to the same memory

    def _turn(self, images: int) -> AbstractContextManager[None]:
        """Compile with the first batch; for ranks see `Gradients`."""
        wait = self._trials == TRIALS - 1 and self._ranks.count == 1
        key = f"{shape_key(self._run, images, self._device)}-evaluation"
        return compiled_once(key) if wait else nullcontext()


def filled_up(forward: Forward, images: int) -> Forward:
    """Return the same forward pass, given batches of one size: another size would be compiled again.

    A smaller batch is filled up with copies of its last image. An image's logits depend on no other in evaluation mode.
    """

    def call(batch: Tensor) -> Tensor:
        missing = images - len(batch)
        if not missing:
            return forward(batch)
        return forward(torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]))[: len(batch)]

    return call


def _state(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters and buffers, without their gradients."""
    yield from (parameter.data for parameter in model.parameters())
    yield from model.buffers()


def _logits(model: nn.Module, precision: Precision, device: torch.device, images: Tensor) -> Tensor:
    with autocast(precision, device):
        return model(images, per_head=True)

"""Record a function as a CUDA graph and replay it: one launch for all its kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from headsweep.text import first_line

_WARM_UPS = 3  # calls before recording, which initialize libraries, as torch's notes on CUDA graphs advise

Outputs = tuple[Tensor, ...]


class Recorded:
    """Calls `function` by replaying its recording; calls it directly without CUDA or if recording fails.

    `function` must not synchronise with the device; inputs of other shapes than the first are not replayed. Inputs are
    copied to the buffers of the recording and outputs from them, on the stream of the caller: outputs stay valid, and
    the caller may be any number of calls ahead of the device.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self.function = function
        self.replay: Callable[..., Outputs] | None = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Apply the function to inputs on one device."""
        if self.replay is None:
            self.replay = _recorded(self.function, inputs) if inputs[0].is_cuda else self.function
        return self.replay(*inputs)


def _recorded(function: Callable[..., Outputs], examples: tuple[Tensor, ...]) -> Callable[..., Outputs]:
    places = tuple(example.clone() for example in examples)
    try:
        with torch.cuda.device(places[0].device):
            graph = torch.cuda.CUDAGraph()
            _warm_up(function, places)
            # Other threads may pin memory meanwhile, which the global capture mode forbids.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = function(*places)
    except RuntimeError as error:
        reason = first_line(cause := _first(error)) or type(cause).__name__
        warnings.warn(f"batches are made without a CUDA graph, which is slower: {reason}", stacklevel=3)
        return function

    def replay(*inputs: Tensor) -> Outputs:
        if any(place.shape != given.shape for place, given in zip(places, inputs, strict=True)):
            return function(*inputs)
        for place, given in zip(places, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay


def _warm_up(function: Callable[..., Outputs], places: tuple[Tensor, ...]) -> None:
    """Call the function on a side stream, as for recording."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            function(*places)
    torch.cuda.current_stream().wait_stream(aside)


def _first(error: BaseException) -> BaseException:
    """Return the original error of a failed recording; a second one reports that the recording could not be ended."""
    return _first(error.__context__) if error.__context__ else error

"""A function on a GPU, recorded once as a CUDA graph and replayed: one launch, however many kernels it has."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UPS = 3  # calls before the recording, as torch's notes on CUDA graphs advise: libraries set themselves up in them

Outputs = tuple[Tensor, ...]


class Recorded:
    """Calls `function` by replaying its recording; where there is no CUDA, or recording fails, by calling it.

    It may not wait for the device, and a call with other shapes than the first one is no replay. Inputs are copied to
    where the recording reads them, and outputs from where it leaves them, on the stream of the caller: whatever is
    handed over stays valid, and the caller may be any number of calls ahead of the device.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self.function = function
        self.replay: Callable[..., Outputs] | None = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        """The function of these inputs, all on one device."""
        if self.replay is None:
            self.replay = _recorded(self.function, inputs) if inputs[0].is_cuda else self.function
        return self.replay(*inputs)


def _recorded(function: Callable[..., Outputs], examples: tuple[Tensor, ...]) -> Callable[..., Outputs]:
    places = tuple(example.clone() for example in examples)
    try:
        with torch.cuda.device(places[0].device):
            graph = torch.cuda.CUDAGraph()
            _warm_up(function, places)
            # Other threads may pin memory meanwhile, which a recording of all threads forbids.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = function(*places)
    except RuntimeError as error:
        said = str(_first(error)).strip().splitlines()[0]
        warnings.warn(f"batches are made without a CUDA graph, which is slower: {said}", stacklevel=3)
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
    """On a stream aside, as recording will be."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            function(*places)
    torch.cuda.current_stream().wait_stream(aside)


def _first(error: BaseException) -> BaseException:
    """What went wrong in a recording; that it then could not be ended is said on top of that."""
    return _first(error.__context__) if error.__context__ else error

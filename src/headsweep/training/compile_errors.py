"""Errors of compiled code, which the compiler wraps in its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from headsweep.text import typed_line


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out while it compiled or computed."""
    return any(isinstance(cause, (torch.OutOfMemoryError, MemoryError)) for cause in causes(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and, from the outside in, those that it wraps."""
    while error is not None:
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__


def reason_of(error: Exception) -> str:
    """Return the wrapped error in one line."""
    return typed_line(getattr(error, "inner_exception", error))

"""The invariants of a head, for any head: of headsweep, of a package, in a plain file.

A check takes a `Subject` and returns a detail in a few words, or raises `Violation` with what it found instead.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from headsweep.analysis.head_checks.branches import check_shapes, check_single_heads, check_stacking
from headsweep.analysis.head_checks.numerics import (
    check_bfloat16,
    check_determinism,
    check_flops,
    check_gradients,
    check_parameters,
    check_state_dict,
)
from headsweep.analysis.head_checks.subject import Subject, Violation
from headsweep.analysis.head_checks.tracing import check_compile, check_export, check_fx
from headsweep.config import HeadConfig
from headsweep.heads import head_class, head_options

CHECKS: Mapping[str, Callable[[Subject], str]] = {
    "shapes": check_shapes,
    "stacking": check_stacking,
    "single heads": check_single_heads,
    "gradients": check_gradients,
    "bfloat16": check_bfloat16,
    "state dict": check_state_dict,
    "determinism": check_determinism,
    "torch.compile": check_compile,
    "torch.export": check_export,
    "torch.fx": check_fx,
    "parameters": check_parameters,
    "FLOPs": check_flops,
}


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    check: str
    holds: bool
    detail: str


def subject_of(head: HeadConfig, width: int, tokens: int) -> Subject:
    """Return the head of a configuration for checks at width D and N tokens.

    Raises:
        UserError: its class does not implement the interface.
        ConfigError: its options do not fit that width.
    """
    head.check_width(width)
    return Subject(head.name, head_class(head), head_options(head), width, tokens)


def check_head(subject: Subject) -> Iterator[Outcome]:
    """Yield the outcome of each check; an exception of the head is a violation."""
    with torch.random.fork_rng(devices=[]):
        for check, function in CHECKS.items():
            try:
                yield Outcome(check, True, function(subject))
            except Violation as found:
                yield Outcome(check, False, str(found))
            except Exception as error:  # of the head's own code
                yield Outcome(check, False, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason'}")


__all__ = ["CHECKS", "Outcome", "Subject", "Violation", "check_head", "subject_of"]

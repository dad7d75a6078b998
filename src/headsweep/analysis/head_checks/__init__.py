"""The invariants of a head, for any head: of headsweep, of a package, in a plain file.

A check takes a `Subject` and returns a detail in a few words, or raises `Violation` with what it found instead.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO

import torch

from headsweep.analysis.head_checks.branches import check_pool, check_shapes, check_single_heads, check_stacking
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
from headsweep.config.records.head_file import shown
from headsweep.heads import head_class, head_options
from headsweep.loading import described

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
    """What a check found; `holds` is None where it was not made."""

    check: str
    holds: bool | None
    detail: str


def subject_of(head: HeadConfig, width: int, tokens: int) -> Subject:
    """Return the head of a configuration for checks at width D and N tokens.

    Raises:
        UserError: its class does not implement the interface.
        ConfigError: its options do not fit that width.
    """
    head.check_width(width)
    return Subject(shown(head), head_class(head), head_options(head), width, tokens)


def check_head(subject: Subject) -> Iterator[Outcome]:
    """Yield the outcome of each check; an exception of the head is a violation.

    If the constructor fails, that is the only outcome. If `pool` fails or its shape is wrong, checks that pool tokens
    are not made.
    """
    with torch.random.fork_rng(devices=[]):
        if not (built := _outcome("constructor", _build, subject)).holds:
            yield built
            return
        pools = _outcome("shapes", check_pool, subject)
        for check, function in CHECKS.items():
            if pools.holds or check == "parameters":
                yield _outcome(check, function, subject)
            else:
                yield pools if check == "shapes" else Outcome(check, None, "pool fails")


def _outcome(check: str, function: Callable[[Subject], str], subject: Subject) -> Outcome:
    try:
        with redirect_stderr(StringIO()):  # FX prints a traceback there beside its exception
            return Outcome(check, True, function(subject))
    except Violation as found:
        return Outcome(check, False, str(found))
    except (Exception, SystemExit) as error:  # of the head's own code
        return Outcome(check, False, described(error, subject.kind.__module__))


def _build(subject: Subject) -> str:
    subject.build(1)
    return ""


__all__ = ["CHECKS", "Outcome", "Subject", "Violation", "check_head", "subject_of"]

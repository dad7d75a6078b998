"""Checks of what torch makes of a head: compilation, export for any number of images, a trace of FX."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headsweep.analysis.head_checks.subject import Subject, expect, expect_close, gradients
from headsweep.heads import Head


def check_compile(subject: Subject) -> str:
    """torch.compile makes one graph of the head, with the same logits and gradients."""
    head, x = subject.build(2), subject.tokens(4, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    _expect_same(head, x, compiled, "of the compiled head")
    return "one graph, forward and backward"


def check_export(subject: Subject) -> str:
    """torch.export makes a program for any number of images, with the same logits."""
    head = subject.build(2)
    head(subject.tokens(4, torch.float32))  # moves running statistics away from 0 and 1
    sizes = ({0: torch.export.Dim("images")},)
    example = (subject.tokens(4, torch.float32),)
    program = torch.export.export(head.eval(), example, dynamic_shapes=sizes, strict=False)
    x = subject.tokens(7, torch.float32)
    expect_close(program.module()(x), head(x), "logits of the exported head for 7 images, exported with 4", 1e-4)
    return "any number of images"


def check_fx(subject: Subject) -> str:
    """torch.fx traces the head, in training and evaluation, with the same logits and gradients."""
    for training in (True, False):
        head, x = subject.build(2).train(training), subject.tokens(4, torch.float32)
        traced = torch.fx.symbolic_trace(head)
        _expect_same(head, x, traced, "of the trace")
        with torch.autocast("cpu", torch.bfloat16):
            expect_close(traced(x).float(), head(x).float(), "logits of the trace in bfloat16", 1e-2)
    return "in training and evaluation"


def _expect_same(head: Head, x: Float[Tensor, "b t d"], made: Callable[[Tensor], Tensor], what: str) -> None:
    """Raise Violation unless what is made of a head gives its logits and gradients, up to the rounding of float32."""
    (found, found_gradients), (logits, expected) = gradients(head, x, made), gradients(head, x)
    expect_close(found, logits, f"logits {what}", tolerance=1e-4)
    for one, other in zip(found_gradients, expected, strict=True):
        expect((one is None) == (other is None), f"gradients {what}: expected those of the same parameters")
        if one is not None and other is not None:
            expect_close(one, other, f"gradients {what}", tolerance=1e-4)

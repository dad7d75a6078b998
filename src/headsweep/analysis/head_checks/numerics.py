"""Checks of numbers: gradients, bfloat16, state dicts, random draws, and the head's costs."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from headsweep.analysis.head_checks.subject import Subject, Violation, expect, expect_close, gradients
from headsweep.heads import Head
from headsweep.text import plural

_BFLOAT16 = 0.05  # accepted error of logits, relative to float32


def check_gradients(subject: Subject) -> str:
    """The tokens and every parameter have a gradient, and it is finite."""
    head = subject.make(2)
    _, by = gradients(head, subject.tokens())
    for name, gradient in zip(["tokens", *dict(head.named_parameters())], by, strict=True):
        if gradient is None:
            raise Violation(f"{name}: expected a gradient, found none: no logit depends on it")
        expect(gradient.isfinite().all(), f"gradient of {name}: expected finite numbers, found others")
    return f"the tokens and {plural(len(by) - 1, 'parameter')}"


def check_bfloat16(subject: Subject) -> str:
    """Under autocast, logits are those of float32 up to rounding, and gradients are finite."""
    head, x = subject.make(2, torch.float32), subject.tokens(dtype=torch.float32)
    exact = head(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits, by = gradients(head, x)
    error = float((logits.float() - exact).norm() / exact.norm())
    expect(error < _BFLOAT16, f"expected logits within {_BFLOAT16:.0%} of float32, found {error:.1%}")
    expect(all(one is None or one.isfinite().all() for one in by), "expected finite gradients, found others")
    return f"logits within {error:.1%} of float32"


def check_state_dict(subject: Subject) -> str:
    """A head of other weights computes the same once it has loaded a state dict."""
    head, x = subject.make(2), subject.tokens()
    head(x)  # moves running statistics away from 0 and 1
    other = subject.build(2, seed=1).double()
    other.load_state_dict(head.state_dict())
    expect_close(other.eval()(x), head.eval()(x), "logits after loading a state dict", tolerance=0)
    return plural(len(head.state_dict()), "tensor")


def check_determinism(subject: Subject) -> str:
    """Initial weights depend on torch's global generator alone, branches differ, and evaluation draws nothing."""
    first, again, other = (subject.build(2, seed).state_dict() for seed in (0, 0, 1))
    for name, tensor in first.items():
        expect(torch.equal(tensor, again[name]), f"{name}: expected the same initial values for one seed, found others")
    differs = any(not torch.equal(first[name], other[name]) for name in first)
    expect(differs, "expected other initial weights for another seed, found the same")
    _check_evaluation(subject, subject.build(2).eval())
    return "one seed, the same weights and logits"


def _check_evaluation(subject: Subject, head: Head) -> None:
    x = subject.tokens(dtype=torch.float32)
    given, logits = x.clone(), head(x)
    expect(torch.equal(head(x), logits), "expected the same logits twice in evaluation, found others")
    expect(torch.equal(x, given), "expected the tokens as they were, found them changed by the head")
    alike = torch.allclose(logits[:, 0], logits[:, 1])
    expect(not alike, "expected branches that start different, found equal logits")


def check_parameters(subject: Subject) -> str:
    """Parameters grow with K by the same number for each branch."""
    one, two, eight = (_count(subject.build(heads)) for heads in (1, 2, 8))
    own, shared = two - one, one - (two - one)
    expect(eight == shared + 8 * own, f"expected {shared + 8 * own:,} parameters with heads=8, found {eight:,}")
    expect(shared >= 0, f"expected a number that grows by {one:,} at most for each branch, found {own:,}")
    return f"{own:,} of a branch, {shared:,} shared"


def check_flops(subject: Subject) -> str:
    """The head runs on the meta device, where its FLOPs are counted."""
    counts = [_flops(subject, heads) for heads in (1, 8)]
    return f"{counts[0]:,} per image with heads=1, {counts[1]:,} with heads=8"


def _flops(subject: Subject, heads: int) -> int:
    head = subject.build(heads).to("meta").eval().requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head(subject.tokens(1, torch.float32).to("meta"))
    return int(counter.get_total_flops())


def _count(head: Head) -> int:
    return sum(parameter.numel() for parameter in head.parameters())

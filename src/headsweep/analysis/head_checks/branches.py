"""Checks of K branches: shapes, a number of operators that does not depend on K, and equality with K single heads."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headsweep.analysis.head_checks.subject import (
    CLASSES,
    IMAGES,
    Subject,
    Violation,
    expect,
    expect_close,
    expect_shape,
    gradients,
)
from headsweep.heads import Head
from headsweep.models.user_code import wrong_shape

_COUNTS = (1, 2, 4, 8)  # K
BRANCHES = 3  # neither 1, the axis that branches share, nor a size of anything else


def check_pool(subject: Subject) -> str:
    """Pooled vectors are (b k e) for every K."""
    for heads in _COUNTS:
        head = subject.make(heads).eval()
        found = wrong_shape(head.pool(subject.tokens()), (IMAGES, heads, head.pooled_width))
        expect(found is None, found or "")
    return ""


def check_shapes(subject: Subject) -> str:
    """Logits (b k c), token weights (b k n) that are shares; for every K, and for any N."""
    for heads in _COUNTS:
        head, x = subject.make(heads).eval(), subject.tokens()
        expect_shape(head(x), (IMAGES, heads, CLASSES), f"logits with heads={heads}")
        _check_weights(head.token_weights(x), (IMAGES, heads, subject.count))
        head.reset_classifier(0)
        expect_close(head(x), head.pool(x), "the output without classes, compared with the pooled vectors")
    return f"K = 1, 2, 4, 8; {_check_another_count(subject)}"


def _check_weights(weights: Tensor | None, shape: tuple[int, ...]) -> None:
    if weights is None:
        return
    expect_shape(weights, shape, "token weights")
    expect((weights >= 0).all(), "token weights: expected numbers >= 0, found a negative one")
    expect_close(weights.sum(-1), torch.ones_like(weights[..., 0]), "sums of token weights, compared with 1")


def _check_another_count(subject: Subject) -> str:
    """Give other tokens than the head was built for."""
    count = subject.count + 9
    head, x = subject.make(2).eval(), subject.tokens(count=count)
    if not subject.kind.fixed_tokens:
        expect_shape(head(x), (IMAGES, 2, CLASSES), f"logits of N = {count} tokens, built for {subject.count}")
        return "any N"
    try:
        head.pool(x)
    except ValueError:
        return f"N = {subject.count} alone"
    raise Violation(f"fixed_tokens: expected ValueError for N = {count} tokens, found none; call check_tokens in pool")


class _Operators(TorchDispatchMode):
    """Counts the operators that are sent to the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def check_stacking(subject: Subject) -> str:
    """The number of operators, forward and backward, does not depend on K."""
    counts = {heads: _count_operators(subject, heads) for heads in (2, 4, 8)}
    found = ", ".join(f"{count} with heads={heads}" for heads, count in counts.items())
    expect(len(set(counts.values())) == 1, f"expected one number of operators, found {found}")
    one = _count_operators(subject, 1)
    expect(one <= counts[2], f"expected at most {counts[2]} operators with heads=1, found {one}")
    return f"{counts[2]} operators, forward and backward"


def _count_operators(subject: Subject, heads: int) -> int:
    head, x = subject.make(heads), subject.tokens()
    with _Operators() as operators:
        head(x).sum().backward()
    return operators.count


def check_single_heads(subject: Subject) -> str:
    """Each branch computes what a head of K = 1 with its weights does, gradients included."""
    is_random = _is_random(subject)
    for training in (False,) if is_random else (True, False):
        stacked = subject.make(BRANCHES).train(training)
        if not training:
            stacked(subject.tokens())  # in training mode would move running statistics
        _check_branches(subject, stacked)
    return "in evaluation; it draws random numbers in training" if is_random else "in training and evaluation"


def _is_random(subject: Subject) -> bool:
    head, x = subject.make(BRANCHES), subject.tokens()
    torch.manual_seed(0)
    first = head(x)
    torch.manual_seed(1)
    return not torch.equal(first, head(x))


def _check_branches(subject: Subject, stacked: Head) -> None:
    """Compare logits and gradients of a head with those of single heads that have the weights of its branches."""
    x, state = subject.tokens(), {name: tensor.clone() for name, tensor in stacked.state_dict().items()}
    for name, tensor in state.items():
        is_stacked = tensor.ndim > 0 and len(tensor) in (1, BRANCHES)
        expect(is_stacked, f"{name}: expected a first axis of K = {BRANCHES} or 1, found {tuple(tensor.shape)}")
    logits, by = _named_gradients(stacked, x)
    found = [_named_gradients(_single(subject, stacked, state, k), x) for k in range(BRANCHES)]
    for k, (own_logits, _) in enumerate(found):
        expect_close(logits[:, k : k + 1], own_logits, f"logits of branch {k}, compared with a single head")
    for name, gradient in by.items():
        own = [gradients_of[name] for _, gradients_of in found]
        is_shared = name == "tokens" or len(state[name]) == 1
        expected = torch.stack(own).sum(0) if is_shared else torch.cat(own)
        expect_close(gradient, expected, f"gradient of {name}, compared with single heads")


def _single(subject: Subject, stacked: Head, state: dict[str, Tensor], k: int) -> Head:
    """Return a head of K = 1 with the weights of branch `k`."""
    single = subject.make(1).train(stacked.training)
    single.load_state_dict({name: tensor if len(tensor) == 1 else tensor[k : k + 1] for name, tensor in state.items()})
    return single


def _named_gradients(head: Head, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits, and name -> gradient of the tokens and of each parameter; zeros of one that is not used."""
    logits, by = gradients(head, x)
    named = {"tokens": x, **dict(head.named_parameters())}
    return logits, {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(named.items(), by, strict=True)
    }

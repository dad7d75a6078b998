"""Every head has the invariants that `headsweep check-head` checks, and a head that lacks one fails there by name."""

import json
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from commands import give
from headsweep.analysis.head_checks import CHECKS, Subject, check_head
from headsweep.heads import HEADS, Head
from headsweep.heads.layers.gram import GramQuery

pytestmark = pytest.mark.slow

SLOW = ("torch.compile", "torch.export")  # seconds for each head
TRACED = (*SLOW, "torch.fx")


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in TRACED])
@pytest.mark.parametrize("name", HEADS)
def test_holds(name: str, check: str) -> None:
    CHECKS[check](Subject(name, HEADS[name]))


Operation = Callable[..., torch.Tensor]


def mixed(layer: nn.Module, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return query + tokens.mean(1, keepdim=True)


def averaged(layer: GramQuery, tokens: torch.Tensor) -> torch.Tensor:
    return tokens.mean(1, keepdim=True).expand(-1, layer.heads, -1)


def attended(query: torch.Tensor, tokens: torch.Tensor, *_: object, **options: object) -> torch.Tensor:
    return query + tokens.mean(1, keepdim=True)


# What takes a second to trace is traced with one head: class attention with `ga`, the gram query with `sg`, attention
# with `vjepa`. Other heads are traced with something of the same shape in its place.
ELSEWHERE: dict[str, tuple[str, Operation]] = {
    **dict.fromkeys(("cait", "at", "seqattn"), ("layers.class_attention.ClassAttention.forward", mixed)),
    "ga": ("layers.gram.GramQuery.forward", averaged),
    **{name: (f"{name}.attend", attended) for name in ("map", "cae")},
}


@pytest.mark.parametrize("check", TRACED)
@pytest.mark.parametrize("name", HEADS)
def test_is_traced(name: str, check: str, shapes_unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if check in SLOW and name in ELSEWHERE:
        operation, other = ELSEWHERE[name]
        monkeypatch.setattr(f"headsweep.heads.{operation}", other)
    CHECKS[check](Subject(name, HEADS[name]))


class Mean(Head):
    """A correct head, which the others here break in one respect each."""

    def pool(self, tokens):
        return tokens.mean(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens):
        return tokens.new_full((len(tokens), self.heads, tokens.shape[1]), 1 / tokens.shape[1])


class Loop(Mean):
    def pool(self, tokens):
        return torch.stack([tokens.mean(1) for _ in range(self.heads)], 1)


class OneBranch(Mean):
    def pool(self, tokens):
        return tokens.mean(1, keepdim=True)


class Mixed(Mean):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.gain = nn.Parameter(torch.ones(self.heads, 1))

    def pool(self, tokens):
        return super().pool(tokens) * self.gain.mean(0)


class Unused(Mean):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.left = nn.Parameter(torch.zeros(self.heads, 1))


class NotStacked(Mean):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.gain = nn.Parameter(torch.ones(self.width))

    def pool(self, tokens):
        return super().pool(tokens) * self.gain


class Infinite(Mean):
    def pool(self, tokens):
        return super().pool(tokens) + (tokens - tokens).sqrt().sum(1, keepdim=True)


class Rounded(Mean):
    def pool(self, tokens):
        pooled = super().pool(tokens)
        return (pooled + 100).bfloat16() - 100 if torch.is_autocast_enabled("cpu") else pooled


class Memory(Mean):
    last = 0.0

    def pool(self, tokens):
        self.last += 1.0
        return super().pool(tokens) * self.last


class Branching(Mean):
    def pool(self, tokens):
        return super().pool(tokens) if float(tokens.detach().sum()) > 0 else 2 * super().pool(tokens)


class SameNumbers(Mean):
    def __init__(self, *sizes, **options):
        torch.manual_seed(0)
        super().__init__(*sizes, **options)


class Hidden(Mean):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.shift = torch.randn(1)

    def pool(self, tokens):
        return super().pool(tokens) + self.shift.to(tokens)


class Quadratic(Mean):
    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.between = nn.Parameter(torch.zeros(self.heads, self.heads))

    def pool(self, tokens):
        return super().pool(tokens) + self.between.sum(1)[:, None]


class Negative(Mean):
    def token_weights(self, tokens):
        return -super().token_weights(tokens)


def found(kind: type[Head], check: str) -> str | None:
    """What a check finds against a head; None if it holds."""
    (outcome,) = [outcome for outcome in check_head(Subject("mean", kind)) if outcome.check == check]
    return None if outcome.holds else outcome.detail


def only(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    monkeypatch.setattr("headsweep.analysis.head_checks.CHECKS", {check: CHECKS[check] for check in checks})


@pytest.mark.parametrize(
    ("kind", "check", "expected"),
    [
        (OneBranch, "shapes", "pool: expected (b, k, d) = (6, 2, 64), found (6, 1, 64)"),
        (Negative, "shapes", "token weights: expected numbers >= 0, found a negative one"),
        (Loop, "stacking", "expected one number of operators, found"),
        (Mixed, "single heads", "logits of branch 0, compared with a single head: expected equal numbers, found a dif"),
        (NotStacked, "single heads", "gain: expected a first axis of K = 3 or 1, found (64,)"),
        (Unused, "gradients", "left: expected a gradient, found none: no logit depends on it"),
        (Infinite, "gradients", "gradient of tokens: expected finite numbers, found others"),
        (Rounded, "bfloat16", "expected logits within 5% of float32, found "),
        (Memory, "determinism", "expected the same logits twice in evaluation, found others"),
        (SameNumbers, "determinism", "expected other initial weights for another seed, found the same"),
        (Hidden, "state dict", "logits after loading a state dict: expected equal numbers, found a difference of"),
        (Quadratic, "parameters", "parameters with heads=8, found"),
        (Branching, "torch.fx", "TypeError: float() argument"),
        (Branching, "FLOPs", "RuntimeError"),
    ],
)
def test_what_a_head_lacks_is_found(kind, check, expected, monkeypatch, shapes_unchecked) -> None:
    only(monkeypatch, check)
    assert found(Mean, check) is None
    detail = found(kind, check)
    assert detail is not None and expected in detail and "\n" not in detail


class Exits(Mean):
    def pool(self, tokens):
        sys.exit(0)


class WrongSignature(Mean):
    def __init__(self, dim, classes):
        super().__init__(dim, classes, 1, 16)


class Verbose(Mean):
    def pool(self, tokens):
        if isinstance(tokens, torch.fx.Proxy):
            raise RuntimeError("long " * 1000 + "\nmore")
        return super().pool(tokens)


def test_checks_that_need_what_fails_are_not_made():
    shapes, *others = check_head(Subject("mean", Exits))
    assert (shapes.check, shapes.holds) == ("shapes", False) and shapes.detail.startswith("SystemExit: 0 (")
    assert {outcome.check for outcome in others if outcome.holds is not None} == {"parameters"}
    (constructor,) = check_head(Subject("mean", WrongSignature))
    assert (constructor.check, constructor.holds) == ("constructor", False)
    assert "unexpected keyword argument 'width'" in constructor.detail


def test_an_error_is_its_first_line_and_fx_prints_nothing(monkeypatch, capsys, shapes_unchecked):
    only(monkeypatch, "torch.fx")
    detail = found(Verbose, "torch.fx")
    assert detail is not None and "long" in detail and "more" not in detail
    assert len(detail.partition(" (")[0]) < 250
    assert capsys.readouterr().err == ""


def test_the_command_ends_with_1_if_pool_exits(capsys, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("from test_head_checks import Exits\n\n\nclass Mine(Exits):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert give("check-head", "./mine.py:Mine") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shapes        FAILS  SystemExit: 0")
    assert lines[1] == "stacking      not checked: pool fails" and lines[-1] == "./mine.py:Mine: 1 of 12 hold"


def test_the_command_prints_a_line_for_each_check(capsys, monkeypatch) -> None:
    monkeypatch.setattr(
        "headsweep.analysis.head_checks.CHECKS", {name: CHECKS[name] for name in ("shapes", "parameters")}
    )
    assert give("check-head", "ga", "head.gram_dim=32", "--width", "32") == 0
    shapes, parameters, last = capsys.readouterr().out.splitlines()
    assert shapes == "shapes        holds  K = 1, 2, 4, 8; any N"
    assert parameters.startswith("parameters    holds  ") and parameters.endswith(" of a branch, 0 shared")
    assert last == "ga: 2 of 2 hold"


def test_the_command_ends_with_1_if_something_does_not_hold(capsys, monkeypatch, tmp_path, shapes_unchecked) -> None:
    only(monkeypatch, "shapes")
    (tmp_path / "mine.py").write_text("from test_head_checks import OneBranch\n\n\nclass Mine(OneBranch):\n    pass\n")
    assert give("check-head", f"{tmp_path}/mine.py:Mine", "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    (check,) = answer.pop("checks")
    assert answer == {"head": "Mine", "width": 64, "tokens": 16, "holds": False}
    assert not check["holds"] and check["detail"].startswith("pool: expected (b, k, d) = (6, 2, 64)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "head=nope: unknown head; known: abmilp, "),
        (["ga", "heads=4"], "heads=4: expected an option of the head, head.NAME=VALUE"),
        (["ga", "head.gram_dim=7"], "head.gram_dim=7: expected a multiple of 16"),
        (["ga", "--width", "48"], "model.width=48: expected a multiple of 32 with head=ga"),
    ],
)
def test_a_mistake_of_the_command_is_one_line(words, message, capsys) -> None:
    assert give("check-head", *words) == 2
    assert capsys.readouterr().err.startswith(f"headsweep: {message}")

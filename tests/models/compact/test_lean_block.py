"""The block of a compiled step on a GPU has the numbers and gradients of the plain one, and keeps less."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from composing import compose_run
from headsweep.config import CompactConfig
from headsweep.models.compact import lean_block
from headsweep.models.compact.block import Block
from headsweep.models.compact.lean_block import linear_of_normalised, normalised

WIDTH = 32


every_kind = pytest.mark.parametrize("kind", ["pre_norm", "stream_norm", "no_attention"])


def block_of(kind: str = "pre_norm", dtype: torch.dtype = torch.float32) -> Block:
    """Away from its initial point, where gains are 1 and biases 0; tokens are dropped, attention weights are not."""
    options = (f"model.width={WIDTH}", "model.attention_heads=2", "model.attention_dropout=0", f"model.block={kind}")
    model = compose_run("model=cct_7_3x1", *options).model
    assert isinstance(model, CompactConfig)
    torch.manual_seed(0)
    block = Block(model, drop_path=0.5).to(dtype)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def tokens_of(dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(8, 16, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (3 * drawn + 1).to(dtype).requires_grad_()


def outcome(
    form: Callable[[Tensor], Tensor], block: Block, tokens: Tensor, autocast: bool = False
) -> dict[str, Tensor]:
    """The result, and all gradients, for the masks of one seed."""
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = form(tokens)
    names, parameters = zip(*block.named_parameters(), strict=True)
    by = torch.autograd.grad(result.double().square().sum(), [tokens, *parameters], allow_unused=True)
    used = {name: each for name, each in zip(("tokens", *names), by, strict=True) if each is not None}
    return {"result": result.detach(), **used}


@every_kind
def test_it_is_the_plain_block_with_the_same_masks(kind: str) -> None:
    block, tokens = block_of(kind, torch.float64), tokens_of(torch.float64)
    plain = outcome(block, block, tokens)
    for name, value in outcome(lambda tokens: block.lean(tokens, None), block, tokens).items():
        torch.testing.assert_close(value, plain[name], msg=name)


@every_kind
@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16])
def test_it_rounds_no_more_than_the_plain_block(kind: str, stream: torch.dtype) -> None:
    double = block_of(kind, torch.float64)
    exact = outcome(double, double, tokens_of(torch.float64))
    block, tokens = block_of(kind), tokens_of().detach().to(stream).requires_grad_()
    plain, lean = (
        outcome(block, block, tokens, True),
        outcome(lambda tokens: block.lean(tokens, None), block, tokens, True),
    )
    assert lean["result"].dtype is lean["tokens"].dtype is stream
    for name, value in exact.items():
        errors = [((other[name].double() - value).norm() / value.norm()).item() for other in (plain, lean)]
        assert lean[name].dtype == plain[name].dtype and errors[1] < max(1.5 * errors[0], 0.01), (name, errors)


@every_kind
def test_it_computes_in_a_model_of_bfloat16(kind: str) -> None:
    block, tokens = block_of(kind, torch.bfloat16), tokens_of(torch.bfloat16)
    plain, lean = outcome(block, block, tokens), outcome(lambda tokens: block.lean(tokens, None), block, tokens)
    for name, value in lean.items():
        error = (value.double() - plain[name].double()).norm() / plain[name].double().norm()
        assert value.dtype is torch.bfloat16 and error < 0.1, (name, error)


def layer_of(form: Callable[[nn.LayerNorm, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Of tokens, gain and bias."""

    def layer(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        norm = nn.LayerNorm(4).double()
        del norm.weight, norm.bias
        norm.weight, norm.bias = weight, bias
        return form(norm, tokens)

    return layer


@pytest.mark.parametrize("form", ["normalised", "linear_of_normalised"])
def test_gradients_are_those_of_numerical_differences(form: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3).double()
    forms = {"normalised": normalised, "linear_of_normalised": lambda norm, x: linear_of_normalised(norm, linear, x)}
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (4,), (4,))]
    assert torch.autograd.gradcheck(layer_of(forms[form]), given)


def test_eager_mode_and_a_cpu_use_the_plain_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "lean", None)
    block_of()(tokens_of())
    assert not lean_block.gains(tokens_of())

"""`model.residual_precision=bfloat16`: the tokens between blocks are rounded, under autocast alone."""

import pytest
import torch
from torch import Tensor

from composing import compose_run
from headsweep.config import Block, ResidualPrecision
from headsweep.errors import ConfigError
from headsweep.models import Classifier
from headsweep.plan.fingerprint import fingerprint
from making import SEQATTN, tiny

LOW, FULL = ResidualPrecision.bfloat16, ResidualPrecision.float32
every_kind = pytest.mark.parametrize("kind", list(Block))


def model_of(residual: ResidualPrecision, kind: Block = Block.pre_norm) -> Classifier:
    """Without dropout, whose draws depend on the dtype."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "drop_path": 0.0}
    return tiny(SEQATTN, residual_precision=residual, block=kind, depth=7, **rates)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def outcome(model: Classifier, dtype: torch.dtype = torch.float32, autocast: bool = True) -> dict[str, Tensor]:
    """Logits and gradients."""
    model = model.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(images(dtype), per_head=True)
    logits.double().square().mean().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"logits": logits.detach(), **gradients}


def errors(of: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Of each tensor, the norm of its difference, relative to its norm."""
    return {
        name: ((of[name].double() - value).norm() / value.norm()).item()
        for name, value in exact.items()
        if value.norm() > 1e-6
    }


@every_kind
def test_logits_and_gradients_are_those_of_a_float32_stream_but_for_rounding(kind: Block) -> None:
    exact = outcome(model_of(FULL, kind), torch.float64, autocast=False)
    full, low = (errors(outcome(model_of(residual, kind)), exact) for residual in (FULL, LOW))
    for name, error in low.items():
        assert error < 5 * full[name] and error < 0.03, (name, error, full[name])


@every_kind
def test_blocks_pass_on_bfloat16_and_heads_read_float32(kind: Block) -> None:
    model, found = model_of(LOW, kind), []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda block, given, result: found.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.forward_features(images())
    assert found == [torch.bfloat16] * 7 and tokens.dtype is torch.float32


def test_without_autocast_it_changes_nothing() -> None:
    full, low = (outcome(model_of(residual), autocast=False) for residual in (FULL, LOW))
    assert all(low[name].equal(value) for name, value in full.items())


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_it_is_refused_where_products_may_be_in_float32(precision: str) -> None:
    expected = f"expected precision=bfloat16 as well, found precision={precision}"
    with pytest.raises(ConfigError, match=f"^model.residual_precision=bfloat16: {expected}$"):
        compose_run("model.residual_precision=bfloat16", f"precision={precision}")


def test_it_is_part_of_what_names_a_run() -> None:
    low, full = (compose_run("precision=bfloat16", f"model.residual_precision={each.value}") for each in (LOW, FULL))
    assert fingerprint(low) != fingerprint(full) == fingerprint(compose_run("precision=bfloat16"))

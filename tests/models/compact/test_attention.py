"""Blocks attend by torch's fused kernel, dropout included; on a CPU, dropout has its own masks."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from composing import compose_run
from headsweep.models.build import model_of
from headsweep.models.compact import attention
from headsweep.models.compact.attention import attend

COMPACT = ["model=cct_7_3x1", "model.width=32", "model.depth=3", "model.attention_heads=1"]
OPTIONS = "model.options={depth: 3, embed_dim: 32, num_heads: 1, patch_size: 8, attn_drop_rate: 0.1}"
VIT = ["model=timm", "model.name=vit_tiny_patch16_224", OPTIONS]


class Fused(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.dropouts: list[float] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            self.dropouts.append(kwargs["dropout_p"])
        return func(*args, **(kwargs or {}))


def dropouts_of(options, device):
    run = compose_run(*options, "dataset=cifar100")
    run.dataset.num_classes = 10
    model, images = model_of(run).to(device), torch.zeros(2, 3, 32, 32, device=device)
    with Fused() as fused:
        model.train()(images)
        model.eval()(images)
    return fused.dropouts


@pytest.mark.parametrize(("options", "device"), [(COMPACT, "meta"), (VIT, "cpu")], ids=["compact", "timm"])
def test_every_block_attends_in_one_kernel_that_drops_in_training_alone(options, device):
    assert dropouts_of(options, device) == [0.1] * 3 + [0.0] * 3


def test_on_a_cpu_the_kernel_that_is_not_fused_with_dropout_is_not_called():
    assert dropouts_of(COMPACT, "cpu") == [0.0] * 3
    assert dropouts_of([*COMPACT, "model.attention_dropout=0"], "cpu") == [0.0] * 6


def drawn(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def dropped_weights(rate, images=2, tokens=512):
    """The weights of even attention, scaled by the number of keys: seen through values that are the unit vectors."""
    even = torch.zeros(images, 1, tokens, tokens)
    return attend(even, even, torch.eye(tokens).expand(images, 1, -1, -1), rate) * tokens


@pytest.mark.parametrize("rate", [0.1, 0.5, 2**-16, 0.999999])
def test_weights_are_dropped_at_the_rate_and_scaled_by_what_is_kept(rate):
    torch.manual_seed(0)
    weights = dropped_weights(rate)
    kept = weights[weights > 0]
    met = min(round(rate * 2**16) / 2**16, 1 - 2**-16)
    deviation = (met * (1 - met) / weights.numel()) ** 0.5
    assert abs((weights == 0).double().mean().item() - met) < 5 * deviation
    assert abs(met - rate) <= 2**-16
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - met)))


def test_weights_of_all_places_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropped_weights(0.5) > 0).double().flatten()
    for distance in [1, 2, 3, 4, 512]:  # four are of one draw, 512 in a row
        both = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(both - 0.25) < 5 * (3 / 16 / len(kept)) ** 0.5


def test_masks_are_a_function_of_the_generator():
    first, second, again = (torch.manual_seed(seed) and dropped_weights(0.5) for seed in (0, 1, 0))
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_the_mean_over_masks_is_attention_without_dropout():
    torch.manual_seed(0)
    query, key, value = (each.detach().expand(4000, -1, -1, -1) for each in drawn(1, 2, 5, 4))
    seen = attend(query, key, value, 0.3)
    deviation = seen.std(0) / len(seen) ** 0.5
    assert ((seen.mean(0) - attend(query, key, value, 0.0)[0]).abs() < 5 * deviation).all()


def test_numbers_and_gradients_are_those_of_attention_with_the_same_mask(monkeypatch):
    query, key, value = drawn(2, 3, 5, 4)  # 150 weights, which four do not divide
    mask = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.75
    monkeypatch.setattr(attention, "_kept", lambda weights, dropped: mask)
    weights = (query @ key.transpose(-2, -1) / 2).softmax(-1)
    torch.testing.assert_close(attend(query, key, value, 0.25), weights * mask / 0.75 @ value)
    assert torch.autograd.gradcheck(lambda *tensors: attend(*tensors, 0.25), (query, key, value))


def test_weights_whose_number_four_does_not_divide_have_a_mask():
    assert attend(*drawn(1, 1, 5, 4), 0.1).shape == (1, 1, 5, 4)


def test_bfloat16_is_attended_in_bfloat16():
    query, key, value = drawn(2, 2, 64, 16, dtype=torch.float32)
    torch.manual_seed(0)
    exact = attend(query, key, value, 0.1)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), 0.1)
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0.03)
    rounded.float().sum().backward()
    assert all(each.grad.isfinite().all() for each in (query, key, value))

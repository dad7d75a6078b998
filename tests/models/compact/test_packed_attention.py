"""The attention kernels, run by Triton's interpreter: numbers and gradients of attention, masks, refusals."""

import pytest
import torch

from composing import compose_run
from headsweep.config import AttentionKernel
from headsweep.errors import ConfigError
from headsweep.models.build import model_of
from headsweep.models.compact import packed_operators
from headsweep.models.compact.packed_attention import check_device, fits
from headsweep.models.compact.packed_operators import attend_packed
from headsweep.run.train_run import preflight

pytest.importorskip("triton")
OWN = ["model.attention_kernel=triton", "dataset=cifar100"]


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels are interpreted, on tensors of the CPU."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    from headsweep.kernels import attention

    def call(function, *args, **kwargs):
        return InterpretedFunction(function.fn)(*args, **kwargs)

    monkeypatch.setattr(JITFunction, "__call__", call)  # of Triton's own functions
    for name, kernel in list(vars(attention).items()):
        if isinstance(kernel, JITFunction):
            monkeypatch.setattr(attention, name, InterpretedFunction(kernel.fn))


def drawn(images, tokens, heads, width, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(images, tokens, 3, heads, width).to(dtype).requires_grad_()


def attended(packed, dropout=0.0):
    """The mixed tokens, always with the same draws."""
    torch.manual_seed(1)
    return attend_packed(packed, dropout)


def mask_of(packed, dropout):
    """What each weight of `attended` is multiplied by: seen through even attention and values that are unit vectors."""
    tokens, width = packed.shape[1], packed.shape[-1]
    seen = []
    for first in range(0, tokens, width):
        even = torch.zeros_like(packed)
        shown = min(width, tokens - first)
        even[:, first : first + shown, 2] = torch.eye(width).to(packed)[:shown, None]
        seen.append(attended(even, dropout)[..., :shown].transpose(1, 2) * tokens)
    return torch.cat(seen, -1)


def written_out(packed, mask):
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind()
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    return (weights * mask @ value).transpose(1, 2)


# Tokens that a power of two, the queries or the keys at a time do not divide; one tile and several.
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 20, 2, 16), (1, 33, 1, 64), (1, 64, 2, 32), (1, 4, 1, 16)], ids=str)
def test_numbers_and_gradients_are_those_of_attention_with_the_same_mask(interpreted, shape, dropout):
    packed = drawn(*shape)
    mask = mask_of(packed, dropout) if dropout else torch.ones(())
    exact = written_out(packed.detach().double().requires_grad_(), mask.double())
    mixed = attended(packed, dropout)
    torch.testing.assert_close(mixed, exact.float(), atol=1e-5, rtol=1e-5)
    by = torch.randn(mixed.shape)
    (gradient,) = torch.autograd.grad(mixed, packed, by)
    again = packed.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(written_out(again, mask.double()), again, by.double())
    torch.testing.assert_close(gradient, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [16, 33])
def test_the_gradient_of_what_was_added_is_the_sum_over_tokens(interpreted, tokens):
    packed, added = drawn(2, tokens, 2, 16), torch.zeros(96, requires_grad=True)
    torch.manual_seed(1)
    mixed = attend_packed(packed, 0.3, added)
    of_packed, of_added = torch.autograd.grad(mixed, (packed, added), torch.randn(mixed.shape))
    torch.testing.assert_close(of_added, of_packed.sum((0, 1)).flatten(), atol=1e-5, rtol=1e-5)
    assert torch.equal(mixed, attended(packed, 0.3))


def test_sixteen_bits_are_rounded_as_in_attention_by_products_of_sixteen_bits(interpreted):
    packed = drawn(1, 64, 1, 64, torch.float16)
    mixed = attended(packed)
    (gradient,) = torch.autograd.grad(mixed, packed, torch.ones_like(mixed))
    exact = packed.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(written_out(exact, 1.0), exact, torch.ones(mixed.shape))
    assert mixed.dtype is gradient.dtype is torch.float16
    torch.testing.assert_close(mixed.float(), written_out(exact, 1.0), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(gradient.float(), expected, atol=4e-3, rtol=4e-3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 2**-12])
def test_weights_are_dropped_at_the_rate_and_scaled_by_what_is_kept(interpreted, rate):
    mask = mask_of(drawn(4, 64, 1, 64), rate)
    deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert abs((mask == 0).double().mean().item() - rate) < 5 * deviation
    kept = mask[mask > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-4, atol=0)


def test_masks_of_images_heads_and_places_are_independent(interpreted):
    kept = (mask_of(drawn(2, 64, 2, 64), 0.5) > 0).double().flatten()
    for distance in [1, 2, 4, 8, 64, 64 * 64, 2 * 64 * 64]:  # keys of one number, queries, heads, images
        both = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(both - 0.25) < 5 * (3 / 16 / (len(kept) - distance)) ** 0.5


def test_masks_are_a_function_of_the_generator(interpreted):
    packed = drawn(1, 16, 1, 16)
    first, second, again = (torch.manual_seed(seed) and attend_packed(packed, 0.5) for seed in (0, 1, 0))
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_the_operator_is_traced_as_it_is_computed(interpreted):
    packed = drawn(1, 16, 1, 16)
    seed = torch.zeros(1, dtype=torch.int64)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    checked = torch.library.opcheck(packed_operators._forward, (packed, torch.zeros(48), seed, 0.1), test_utils=tests)
    assert checked == dict.fromkeys(tests, "SUCCESS")


def test_a_block_in_training_attends_by_the_kernels_and_in_evaluation_by_torch(interpreted, monkeypatch):
    run = compose_run("model=cct_7_3x1", "model.width=32", "model.depth=1", "model.attention_heads=2", *OWN)
    run.dataset.num_classes = 10
    attention = model_of(run).backbone.blocks[0].attention
    tokens = torch.randn(1, 16, 32)
    monkeypatch.setattr("headsweep.models.compact.block.fits", lambda tokens: True)
    calls = []
    own = packed_operators.attend_packed
    monkeypatch.setattr(
        "headsweep.models.compact.packed_operators.attend_packed", lambda *args: calls.append(args[1]) or own(*args)
    )
    attention.attention_dropout = 0.0
    torch.testing.assert_close(attention.train()(tokens), attention.eval()(tokens))
    assert calls == [0.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(3, 256, 2, 64), (3, 197, 2, 64), (3, 64, 2, 32), (3, 20, 1, 16)], ids=str)
def test_on_a_gpu_numbers_and_gradients_are_those_of_attention_twice(shape):
    packed = drawn(*shape).detach().cuda().bfloat16().requires_grad_()
    added, dropout = torch.zeros(packed[0, 0].numel(), device="cuda", requires_grad=True), 0.1
    mask = mask_of(packed, dropout)
    by = torch.randn(packed[:, :, 0].shape, device="cuda").bfloat16()
    exact = packed.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(written_out(exact, mask.double()), exact, by.double())
    seen = []
    for _ in range(2):
        torch.manual_seed(1)
        mixed = attend_packed(packed, dropout, added)
        seen.append((mixed.detach(), *torch.autograd.grad(mixed, (packed, added), by)))
    assert all(torch.equal(first, second) for first, second in zip(*seen, strict=True))
    mixed, gradient, of_added = seen[0]
    torch.testing.assert_close(mixed.double(), written_out(exact, mask.double()), atol=0.02, rtol=0.02)
    torch.testing.assert_close(gradient.double(), expected, atol=0.03, rtol=0.03)
    torch.testing.assert_close(of_added.double(), expected.sum((0, 1)).flatten(), atol=0.5, rtol=0.03)


def test_what_the_kernels_cannot_compute_is_left_to_torch():
    assert not fits(torch.zeros(1, 16, 64, dtype=torch.bfloat16))  # on a CPU


def test_a_lean_block_has_the_numbers_and_gradients_of_a_plain_one(interpreted, monkeypatch):
    run = compose_run("model=cct_7_3x1", "model.width=32", "model.depth=1", "model.attention_heads=2", *OWN)
    run.dataset.num_classes, run.model.attention_dropout = 10, 0.0
    block = model_of(run).backbone.blocks[0].train()
    torch.nn.init.normal_(block.norm1.weight)
    torch.nn.init.normal_(block.norm1.bias)
    tokens = torch.randn(2, 16, 32, requires_grad=True)
    by = torch.randn(2, 16, 32)
    inputs = [tokens, *block.parameters()]
    plain = block(tokens)
    expected = torch.autograd.grad(plain, inputs, by)
    monkeypatch.setattr("headsweep.models.compact.block.fits", lambda tokens: True)
    for module in ("block", "transformer"):
        monkeypatch.setattr(f"headsweep.models.compact.{module}.gains", lambda tokens: True)
    lean = block(tokens)
    torch.testing.assert_close(lean, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(lean, inputs, by), expected, atol=1e-4, rtol=1e-4)


REFUSED = {
    "model.attention_heads=1": "an attention head has 256 channels, and the kernels are for 16, 32 or 64",
    "model.block=no_attention": "model.block=no_attention has none",
    "precision=float32": "precision=float32: the kernels multiply in bfloat16",
    "backbone=random": "backbone=random: no block is trained",
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_run_whose_steps_could_not_use_the_kernels_is_refused(word):
    with pytest.raises(ConfigError, match=f"model.attention_kernel=triton: expected torch.*{REFUSED[word]}"):
        compose_run("model=cct_7_3x1", *OWN, "augmentation=none", word)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["model=cct_7_3x1", "device=cpu"], "the kernels are for a GPU, and the device is cpu"),
        (["model=cct_7_3x1", "dataset.image_size=34"], "289 tokens, and the kernels are for at most 256"),
        (["model=vit_7_4", "head=cls", "dataset.image_size=64"], "257 tokens, and the kernels are for at most 256"),
    ],
    ids=["device", "tokens", "class token"],
)
def test_a_run_that_the_kernels_do_not_fit_is_refused_when_it_is_planned(words, why):
    run = compose_run(*OWN, *words)
    run.dataset.num_classes = 10
    with pytest.raises(ConfigError, match=f"model.attention_kernel=triton: expected torch.*{why}"):
        preflight(run)


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigError, match=r"compute capability 8\.0 and above, and cuda:0 has 7\.5"):
        check_device(AttentionKernel.triton, torch.device("cuda:0"))

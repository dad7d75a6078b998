"""Determinism on a GPU, as far as it can be tested without one."""

import logging

import pytest
import torch
from small_model import SmallModel, assert_equal_state
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from composing import compose_run
from factories import default_head
from headsweep.heads import HEADS
from headsweep.models.build import build_model
from headsweep.training import compiling
from headsweep.training.compiling import Gradients
from headsweep.training.device import make_deterministic

CPU = torch.device("cpu")
SMALL = ["model.width=32", "model.attention_heads=1", "model.depth=1"]
# Parts of names of what has no deterministic kernel on a GPU, as torch.use_deterministic_algorithms lists it.
UNDETERMINED = (
    "adaptive_avg_pool", "adaptive_max_pool", "avg_pool3d", "bincount", "ctc_loss", "cumsum", "embedding_bag",
    "fractional_max_pool", "grid_sampler", "histc", "kthvalue", "max_pool3d", "max_unpool", "median", "nll_loss2d",
    "put_", "put.", "reflection_pad", "resize_", "scatter_reduce", "upsample",
)  # fmt: skip


@pytest.fixture(autouse=True)
def as_torch_comes():
    torch.compiler.reset()
    cudnn, fill = torch.backends.cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory = cudnn, fill


def batch():
    return torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((4, 10), 0.1)


def test_deterministic_gradients_of_attention_are_required_not_only_warned_about(monkeypatch):
    """With `warn_only` torch takes cuDNN's kernel on Hopper, else flash attention's that adds up in any order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with FakeTensorMode():
        make_deterministic(torch.device("cuda"))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


class OldProducts(TorchDispatchMode):
    """As torch before 2.15, if a product on the GPU ran before cuBLAS was configured."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default and not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError("enabled with `torch.use_deterministic_algorithms(True)`, but it uses CuBLAS\nTo ...")
        return func(*args, **(kwargs or {}))


def test_products_before_the_setting_of_cublas_are_no_failure(monkeypatch, caplog):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with FakeTensorMode(), OldProducts(), caplog.at_level(logging.WARNING, "headsweep"):
        make_deterministic(torch.device("cuda"))
        torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")
    (record,) = caplog.records
    assert record.getMessage().endswith("(enabled with `torch.use_deterministic_algorithms(True)`, but it uses CuBLAS)")
    assert torch.is_deterministic_algorithms_warn_only_enabled()


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_step_has_deterministic_kernels(head):
    run = compose_run(*SMALL, "heads=2", "compile=off", "decorrelation=-0.8", "model.drop_path=0.1")
    sizes = {"heads": run.heads, "num_classes": 10, "image_size": 16, "channels": 1, "seed": 0}
    model = build_model(run.model, default_head(head), **sizes, classifier_norm=True)
    with Seen() as seen:
        Gradients(model, run, CPU, steps=2)(*batch(), (0, 0, 0))
    assert "max_pool2d_with_indices_backward.default" in seen.names, "the backward pass is seen"
    assert [name for name in seen.names if name.startswith(UNDETERMINED)] == []


class Putting(torch.autograd.Function):
    """Its backward pass overwrites, in no order: torch has no deterministic kernel for that, on a CPU neither."""

    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient.clone().put_(torch.tensor([0]), torch.zeros(1))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["off", "step", "broken"])
def test_without_a_deterministic_kernel_a_run_continues_with_a_warning(monkeypatch, caplog, how):
    monkeypatch.setattr(compiling, "BACKEND", "eager" if how == "step" else lambda graph, inputs: 1 / 0)
    run = compose_run(f"compile={'off' if how == 'off' else 'step'}")
    model, other = SmallModel(Putting.apply), SmallModel(Putting.apply)
    Gradients(other, compose_run("compile=off"), CPU, 2)(*batch(), (0, 0, 0))
    torch.use_deterministic_algorithms(True)
    gradients = Gradients(model, run, CPU, steps=2)
    with caplog.at_level(logging.WARNING, "headsweep"):
        gradients(*batch(), (0, 0, 0))
    messages = [record.getMessage() for record in caplog.records if record.name == "headsweep"]
    assert [line.startswith("not deterministic on this device") for line in messages][:1] == [True]
    assert len(messages) == (2 if how == "broken" else 1)
    assert gradients.used.startswith({"broken": "off (ZeroDivisionError"}.get(how, how))
    assert_equal_state(model, other)
    model.zero_grad()
    with caplog.at_level(logging.WARNING, "headsweep"):
        gradients(*batch(), (0, 1, 0))
    assert len(caplog.records) == len(messages), "one warning"

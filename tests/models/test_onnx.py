"""The older of torch's ONNX exporters, by TorchScript, exports every head; the newer one is `torch.export`'s."""

import io
import warnings

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from headsweep.config import HeadConfig
from headsweep.heads import build_head, head_options
from headsweep.heads.layers.gram import GramTriangle
from headsweep.heads.layers.softmax_pool import SoftmaxPool
from making import CLS, every_head, tiny

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


@every_head
def test_an_exporter_is_given_plain_operations(head: HeadConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes those of an autograd function with shapes that ONNX Runtime refuses."""
    model, images = tiny(head, depth=1).eval(), torch.randn(2, 3, 16, 16)
    expected = model(images)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    for function in (SoftmaxPool, GramTriangle):
        monkeypatch.setattr(function, "apply", None)
    assert torch.equal(model(images), expected)


def check_in_onnx_runtime(module: nn.Module, given: Tensor) -> None:
    """Compare results for another number of images than the module is exported with."""
    file, options = io.BytesIO(), {"dynamo": False, "input_names": ["given"], "dynamic_axes": {"given": {0: "count"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (given[:2],), file, **options)
    (got,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"given": given.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), module(given).detach())


@pytest.mark.slow
@every_head
def test_onnx_runtime_computes_the_logits_of_a_head(head: HeadConfig) -> None:
    torch.manual_seed(0)
    built = build_head(head.name, width=32, num_classes=10, heads=2, tokens=16, **head_options(head)).eval()
    check_in_onnx_runtime(built, torch.randn(5, 16 + built.class_token, 32))


@pytest.mark.slow
def test_onnx_runtime_computes_the_logits_of_a_model() -> None:
    check_in_onnx_runtime(tiny(CLS, depth=1).eval(), torch.randn(5, 3, 16, 16))

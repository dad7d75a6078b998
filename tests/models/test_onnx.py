"""The older of torch's ONNX exporters, by TorchScript, exports every model; the newer one is `torch.export`'s."""

import io
import warnings

import onnxruntime
import pytest
import torch
from making import every_head, tiny

from headsweep.config import HeadConfig
from headsweep.heads.layers.gram import GramTriangle
from headsweep.heads.layers.softmax_pool import SoftmaxPool

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


@pytest.mark.slow
@every_head
def test_onnx_runtime_computes_the_same(head: HeadConfig) -> None:
    images, file = torch.randn(5, 3, 16, 16), io.BytesIO()
    model = tiny(head, depth=1).eval()
    options = {"dynamo": False, "input_names": ["images"], "dynamic_axes": {"images": {0: "count"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images[:2],), file, **options)
    (got,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), model(images).detach())

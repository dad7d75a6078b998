"""The model of a run as a program of another runtime: ONNX, or a program of torch.export (pt2).

Its input is pixels, as of `Predictor`; the number of images is dynamic. Each program is run again before it is written.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from headsweep.errors import UserError
from headsweep.text import first_line

BATCHES = (1, 7)  # images with which a program is compared with the model
TOLERANCE = 1e-4  # of the largest logit, or of 1 if all are smaller
_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}

Run = Callable[[Tensor], Tensor]


def check_packages(layout: str) -> None:
    """Raise UserError for a format whose packages are not installed."""
    missing = [package for package in _NEEDED[layout] if find_spec(package) is None]
    if missing:
        raise UserError(f"--format {layout} needs {', '.join(missing)}: pip install 'headsweep[onnx]'")


def program(model: nn.Module, layout: str, shape: tuple[int, ...]) -> tuple[bytes, dict[int, float]]:
    """Return the content of a program file, and number of images -> largest difference of its logits from the model's.

    Args:
        model: pixels (b c h w) from 0 to 255 to logits, on the CPU and in evaluation mode.
        layout: onnx or pt2.
        shape: (c, h, w).

    Raises:
        UserError: the model cannot be exported, or the program computes something else.
    """
    export, load = _FORMATS[layout]
    generator = torch.Generator().manual_seed(0)
    batches = {count: _pixels(count, shape, generator) for count in BATCHES}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = export(model, _pixels(2, shape, generator))
            run = load(content)
            pairs = {count: (run(images), model(images)) for count, images in batches.items()}
        except Exception as error:  # exporters raise whatever the operations of a model lead to
            raise UserError(f"--format {layout}: the model cannot be exported: {_cause(error)}") from error
    return content, {count: _difference(layout, *pair) for count, pair in pairs.items()}


def _cause(error: BaseException) -> str:
    """Return the first error of a chain: later ones only name the exporter's stages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error) or type(error).__name__


def _pixels(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(256, (count, *shape), generator=generator).float()


def _difference(layout: str, found: Tensor, expected: Tensor) -> float:
    """Return the largest difference. Raises UserError beyond the tolerance, and for NaN."""
    largest = float((found - expected).abs().max())
    if not largest <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"--format {layout}: expected the logits of the model within {TOLERANCE:g} of the largest, found a "
            f"difference of {largest:.3g} for {len(expected)} images; nothing was written"
        )
    return largest


def _export_pt2(model: nn.Module, images: Tensor) -> bytes:
    memory = io.BytesIO()
    exported = torch.export.export(model, (images,), dynamic_shapes=_dynamic())
    for part in exported.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(exported, memory)
    return memory.getvalue()


def _load_pt2(content: bytes) -> Run:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda images: module(images)


def _export_onnx(model: nn.Module, images: Tensor) -> bytes:
    for logger in ("onnxscript", "onnx_ir"):  # they warn of each operation that is left as it is
        logging.getLogger(logger).setLevel(logging.ERROR)
    exported = torch.onnx.export(
        nn.Sequential(model),  # a prefix for its buffers, whose names an operation may have, too
        (images,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_dynamic(),
    )
    assert exported is not None
    stored = exported.model_proto
    for node in (*stored.graph.node, *(node for function in stored.functions for node in function.node)):
        del node.metadata_props[:]  # paths of this machine
    content: bytes = stored.SerializeToString(deterministic=True)
    return content


def _load_onnx(content: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _dynamic() -> tuple[dict[int, object]]:
    return ({0: torch.export.Dim("batch", min=1)},)


_FORMATS: dict[str, tuple[Callable[[nn.Module, Tensor], bytes], Callable[[bytes], Run]]] = {
    "onnx": (_export_onnx, _load_onnx),
    "pt2": (_export_pt2, _load_pt2),
}

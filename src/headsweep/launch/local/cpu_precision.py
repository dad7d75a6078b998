"""Where bfloat16 was measured to train faster than float32 on a CPU (docs/models.md); nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headsweep.config import AttentionKernel, CompactConfig, Precision, RunConfig, Tokenizer
from headsweep.launch.local.gpus import gpus_for

CPU = Path("/proc/cpuinfo")
LEAST_WIDTH = 128  # of the models that were measured
_TIMES = {16: "1.2 to 1.4", 32: "1.4 to 2.0"}  # pixels of the images' side -> speed relative to float32
UNITS, UNMEASURED = "avx512_bf16", "amx_bf16"  # flags of a CPU; torch uses other kernels with the second


def faster_precision(runs: Sequence[RunConfig]) -> str | None:
    """Return a line for runs that `precision=auto` trains in float32 although bfloat16 is faster; None: there are none.

    Raises:
        UserError: as `gpus_for`.
    """
    slower = [run for run in runs if _is_measured(run)]
    flags = _flags()
    if not slower or UNITS not in flags or UNMEASURED in flags or gpus_for(slower):
        return None
    times = _TIMES[min(run.dataset.image_size for run in slower)]
    return (
        "precision=auto is float32 on this CPU; CCTs trained "
        f"{times} times as fast with precision=bfloat16 on a CPU with {UNITS} (these are other runs)"
    )


def _is_measured(run: RunConfig) -> bool:
    """Return whether `auto` decides the precision of a model that was measured: a CCT that is trained as a whole."""
    if run.precision is not Precision.auto or run.backbone.is_frozen or not isinstance(run.model, CompactConfig):
        return False
    model = run.model
    is_cct = model.tokenizer is Tokenizer.convolution and model.width >= LEAST_WIDTH
    return is_cct and model.attention_kernel is AttentionKernel.torch and run.dataset.image_size in _TIMES


def _flags() -> frozenset[str]:
    """Return the flags of the first CPU, as `lscpu` lists them; none where the system does not list them."""
    try:
        with CPU.open() as lines:
            return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())
    except OSError:
        return frozenset()

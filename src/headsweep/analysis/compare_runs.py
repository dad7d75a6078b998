"""Compare two trainings of one run: metric history, result, weights, environment."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headsweep.errors import UserError
from headsweep.text import plural
from headsweep.tracking.metric_names import ADDED, TEST_TOP1, TEST_TOP5
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.typed_files import Damaged

_ACCURACIES = (TEST_TOP1, TEST_TOP5)
# Keys of a result's environment; one missing in an older result is not compared.
_ENVIRONMENT = ("device", "threads", "ranks", "precision", "python", "platform", "torch", "cuda", "compile")


@dataclass(frozen=True)
class Part:
    """One comparison; `equal` is None if one of the two lacks the data."""

    name: str
    equal: bool | None
    words: str


@dataclass(frozen=True)
class Comparison:
    """The comparison of a run with its reproduction."""

    parts: tuple[Part, ...]
    points: float  # largest difference in test accuracy; infinite if one of the two, or neither, has it
    environment: tuple[str, ...]  # differences of machine and software

    @property
    def is_exact(self) -> bool:
        """Whether everything that was compared is equal, bit for bit."""
        return all(part.equal is not False for part in self.parts)


def compare(original: RunFolder, again: RunFolder) -> Comparison:
    """Compare two finished runs.

    Raises:
        UserError: one of them is unfinished.
    """
    first, second = original.result(), again.result()
    if first is None or second is None:
        raise UserError(f"{(again if first else original).path} has no result; expected a finished run")
    parts = (_history(original, again), _ends(first, second), _weights(original, again))
    return Comparison(parts, _points(first, second), tuple(_environment(first, second)))


def _history(original: RunFolder, again: RunFolder) -> Part:
    first, second = (
        [(entry.epoch, entry.step, entry.metrics) for entry in folder.entries()] for folder in (original, again)
    )
    if not first:
        return Part("history", None, f"not compared: no {original.metrics_log.path.name} in the original")
    known = {name for _, _, metrics in first for name in metrics}
    second = [(epoch, step, _without_added(metrics, known)) for epoch, step, metrics in second]
    # As JSON, in which NaN equals NaN.
    different = [at for at, pair in enumerate(zip(first, second, strict=False)) if len({*map(json.dumps, pair)}) > 1]
    if not different and len(first) == len(second):
        return Part("history", True, f"equal: {plural(len(first), 'line')} to epoch {first[-1][0]}")
    if not different:
        return Part("history", False, f"differs: {plural(len(second), 'line')}, originally {len(first)}")
    epoch, _, metrics = first[different[0]]
    name, gap = _largest(metrics, second[different[0]][2])
    lines = f"{len(different)} of {len(first)} lines"
    return Part("history", False, f"differs from epoch {epoch} on, most in {name} ({gap:.3g}); {lines}")


def _ends(first: RunResult, second: RunResult) -> Part:
    ends = [(result.state, result.epochs, result.steps, result.note) for result in (first, second)]
    if ends[0] != ends[1]:
        was, now = (f"{state} after {steps} steps {note}".strip() for state, _, steps, note in ends)
        return Part("result", False, f"differs: {now}, originally {was}")
    second = replace(second, metrics=_without_added(second.metrics, first.metrics))
    shown = ", ".join(f"{name} {100 * second.metrics[name]:.2f} %" for name in _ACCURACIES if name in second.metrics)
    if json.dumps(first.metrics, sort_keys=True) == json.dumps(second.metrics, sort_keys=True):
        return Part("result", True, f"equal: {second.state}, {shown or 'no accuracy'}")
    name, gap = _largest(first.metrics, second.metrics)
    return Part("result", False, f"differs most in {name}: {second.metrics.get(name)}, by {gap:.3g}; {shown}")


def _without_added(metrics: Mapping[str, float], known: Container[str]) -> dict[str, float]:
    """Return the metrics without those that only later versions log."""
    return {name: value for name, value in metrics.items() if name in known or name.rpartition("/")[2] not in ADDED}


def _weights(original: RunFolder, again: RunFolder) -> Part:
    for folder in (original, again):
        if not folder.checkpoint.exists():
            return Part("weights", None, f"not compared: no {folder.checkpoint}")
    first, second = _tensors(original), _tensors(again)
    if first.keys() != second.keys():
        return Part("weights", False, f"differ in their names, e.g. {min(first.keys() ^ second.keys())}")
    unequal = [name for name in first if not _same_bytes(first[name], second[name])]
    if not unequal:
        return Part("weights", True, f"equal: {plural(len(first), 'tensor')}, byte for byte")
    name, gap = _worst({name: _gap(first[name], second[name]) for name in unequal})
    return Part("weights", False, f"differ in {len(unequal)} of {len(first)} tensors, most in {name} ({gap:.3g})")


def _tensors(folder: RunFolder) -> dict[str, Any]:
    """The weights of a run's checkpoint, and their moving average if it has one."""
    import torch

    try:
        content = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
        parts = {part: content[part] or {} for part in ("model", "state_dict_ema")}
        found = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        if not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
            raise TypeError("expected tensors, found something else")
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # torch's text advises weights_only=False, which executes arbitrary code
        fix = "remove it to compare the rest"
        raise Damaged(folder.checkpoint, "expected a run's checkpoint, found something else", fix) from error
    return found


def _same_bytes(first: Any, second: Any) -> bool:
    """Return whether two CPU tensors are bitwise equal."""
    import torch

    alike = first.shape == second.shape and first.dtype == second.dtype
    return alike and torch.equal(
        first.contiguous().view(-1).view(torch.uint8), second.contiguous().view(-1).view(torch.uint8)
    )


def _gap(first: Any, second: Any) -> float:
    """Return the largest difference of two tensors; infinite if their shapes differ."""
    return float((first.double() - second.double()).abs().max()) if first.shape == second.shape else math.inf


def _largest(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[str, float]:
    """Return the metric that differs most and its difference; infinite if only one of the two has it."""
    gaps = {
        name: abs(first[name] - second[name]) if name in first and name in second else math.inf
        for name in sorted(first.keys() | second.keys())
    }
    return _worst(gaps)


def _worst(gaps: Mapping[str, float]) -> tuple[str, float]:
    name = max(gaps, key=lambda name: math.inf if math.isnan(gaps[name]) else gaps[name])
    return name, gaps[name]


def _points(first: RunResult, second: RunResult) -> float:
    if first.state != second.state:
        return math.inf
    accuracies = [
        {name: result.metrics[name] for name in _ACCURACIES if name in result.metrics} for result in (first, second)
    ]
    return 100 * _largest(*accuracies)[1] if any(accuracies) else math.inf


def _environment(first: RunResult, second: RunResult) -> list[str]:
    was, now = first.environment, second.environment
    differ = [key for key in _ENVIRONMENT if key in was and was[key] != now.get(key)]
    return [f"{key} {now.get(key)}, originally {was[key]}" for key in differ]

"""Compare what must be equal, bit for bit, between two runs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from headsweep.tracking.run_folder import RunFolder


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """Return where two finished runs differ: weights, average, optimizer, steps, history, result or files."""
    first, second = _bits(one), _bits(other)
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def assert_equal(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare two checkpoints, bit for bit."""
    torch.testing.assert_close(dict(weights), dict(expected), rtol=0, atol=0)


def _bits(folder: RunFolder) -> dict[str, object]:
    result = folder.result()
    assert result is not None
    checkpoint = torch.load(folder.checkpoint, weights_only=True)
    checkpoint.pop("train_seconds", None)  # a time, like Entry.clock and RunResult.clock
    assert checkpoint.pop("fingerprint") == folder.record().fingerprint
    history = [(entry.epoch, entry.step, entry.metrics) for entry in folder.metrics_log.entries()]
    ended = (result.state, result.metrics, result.epochs, result.steps, result.note)
    correct = {folder.correct.name: folder.correct.read_bytes()}
    best = torch.load(folder.best, weights_only=True) if folder.best.exists() else {}
    assert best.pop("fingerprint", folder.record().fingerprint) == folder.record().fingerprint
    return (
        _flat("checkpoint", checkpoint)
        | _flat("metrics", history)
        | _flat("result", ended)
        | correct
        | _flat("best", best)
    )


def _flat(key: str, value: object) -> dict[str, object]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for at, item in items for name, leaf in _flat(f"{key}.{at}", item).items()}
    return {key: value.numpy().tobytes() if isinstance(value, torch.Tensor) else value}

"""The digits, resized once a process: that takes as long as a tiny run's training."""

from headsweep.config import DatasetConfig
from headsweep.data import datasets

_load = datasets.load_digits
_loaded: dict[str, datasets.Loaded] = {}


def read_digits_once() -> None:
    """Let the runs of this process and of its forks share them."""
    datasets.load_digits = _load_once


def _load_once(dataset: DatasetConfig) -> datasets.Loaded:
    key = repr((dataset.image_size, dataset.channels, dataset.crop_ratio))
    if key not in _loaded:
        _loaded[key] = _load(dataset)
    return _loaded[key]

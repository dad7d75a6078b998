"""What planning looks up outside the configuration: the data of a run, and its file of pretrained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headsweep.config import DatasetConfig, ModelConfig, RunConfig
from headsweep.config.records.head import KnnConfig
from headsweep.data import locate
from headsweep.errors import ConfigError, UserError
from headsweep.plan.run_names import run_names
from headsweep.text import shortened


class Lookup:
    """Reads each data set and each checkpoint once, however many runs of a command share it."""

    def __init__(self) -> None:
        self._located: list[tuple[DatasetConfig, DatasetConfig | UserError]] = []
        self._digests: dict[str | None, str | None] = {}
        self._pretrained: dict[str, str | ConfigError | None] = {}  # model -> file of timm's weights

    def resolve(self, configs: Sequence[RunConfig]) -> list[RunConfig | UserError]:
        """Return each run with what its data and its checkpoint fill in, or why they cannot."""
        return [_resolve(self._with_file(config), self._located, self._digests) for config in configs]

    def _with_file(self, config: RunConfig) -> RunConfig | ConfigError:
        """Fill in the file of pretrained weights."""
        model = config.model
        if not model.pretrained or model.checkpoint is not None:
            return config
        if model.name not in self._pretrained:
            self._pretrained[model.name] = _pretrained_file(model.name)
        file = self._pretrained[model.name]
        return file if isinstance(file, ConfigError) else replace(config, model=replace(model, checkpoint=file))

    def resolved(self, configs: Sequence[RunConfig]) -> list[RunConfig]:
        """Return the same for runs that all must be valid. Raises UserError, which names those that are not."""
        found = self.resolve(configs)
        names = run_names(configs)
        bad = [(name, str(run)) for name, run in zip(names, found, strict=True) if isinstance(run, UserError)]
        if bad:
            raise refusal(bad, len(configs))
        return [run for run in found if isinstance(run, RunConfig)]


def refusal(bad: Sequence[tuple[str, str]], cells: int) -> UserError:
    """Return the error for a sweep with invalid cells: up to ten (name, message) pairs, then how many more."""
    mistakes = {mistake for _, mistake in bad}
    if len(mistakes) == 1 and len(bad) in (1, cells):
        (mistake,) = mistakes
        return UserError(mistake if len(bad) == cells else f"{mistake} (1 of {cells} cells: {bad[0][0]})")
    lines = [f"{name}: {mistake}" for name, mistake in bad]
    return UserError(f"{len(bad)} of {cells} cells are not valid, nothing was started\n  {indented(lines)}")


def indented(lines: Sequence[str]) -> str:
    """Return the first ten lines, indented but for the first, and how many more there are."""
    return shortened(lines, 10, "\n  ")


def _pretrained_file(name: str) -> str | ConfigError | None:
    from headsweep.models.pretrained import pretrained_file  # imports timm, which takes seconds

    try:
        file = pretrained_file(name)
    except ConfigError as error:
        return error
    return None if file is None else str(file)


def _resolve(
    config: RunConfig | ConfigError,
    located: list[tuple[DatasetConfig, DatasetConfig | UserError]],
    digests: dict[str | None, str | None],
) -> RunConfig | UserError:
    if isinstance(config, ConfigError):
        return config
    try:
        dataset = _locate(config.dataset, located)
        if isinstance(dataset, UserError):
            return dataset
        _check_images(config, locate.most_training_images(dataset))
        return replace(config, dataset=dataset, model=_with_digest(config.model, digests))
    except UserError as error:
        return error


def _check_images(config: RunConfig, most: int | None) -> None:
    """Raise ConfigError for a batch, or a number of neighbours, that is larger than the training split."""
    sizes = {"batch_size": config.batch_size}
    sizes |= {"head.k": config.head.k} if isinstance(config.head, KnnConfig) else {}
    for key, size in sizes.items():
        if most is not None and size > most:
            raise ConfigError(key, size, f"expected at most {most}, the number of training images")


def _locate(
    dataset: DatasetConfig, known: list[tuple[DatasetConfig, DatasetConfig | UserError]]
) -> DatasetConfig | UserError:
    """Resolve each data set once, however many runs share it."""
    for given, answer in known:
        if given == dataset:
            return answer
    try:
        known.append((dataset, locate.resolve(dataset)))
    except UserError as error:
        known.append((dataset, error))
    return known[-1][1]


def _with_digest(model: ModelConfig, known: dict[str | None, str | None]) -> ModelConfig:
    """Return the model with the digest of its checkpoint: the content is part of the identity, the path is not."""
    if model.checkpoint is None:
        return model
    if model.checkpoint not in known:
        known[model.checkpoint] = checkpoint_digest(model.checkpoint)
    return replace(model, checkpoint_digest=known[model.checkpoint])


def checkpoint_digest(checkpoint: str) -> str:
    """Return the SHA-256 of a file of weights. Raises ConfigError if it cannot be read."""
    try:
        return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            "model.checkpoint", checkpoint, f"expected a readable file, found: {error.strerror or error}"
        ) from error

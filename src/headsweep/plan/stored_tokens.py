"""Preview the tokens of frozen backbones that the runs of a plan share; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headsweep.config import RunConfig
from headsweep.data.locate import count_images
from headsweep.data.token_folder import TokenFolder, TokenRecord, cache_of, folders_in, of_earlier_images
from headsweep.plan.fingerprint import fingerprint
from headsweep.text import size_of, span
from headsweep.tracking.cost import RunCost


@dataclass(frozen=True)
class StoredTokens:
    """A folder of stored tokens that runs of the plan read."""

    folder: str
    bytes: int | None  # of all tokens; None: not known
    missing_bytes: int | None  # that are computed first
    seconds: float | None  # for that, at the speed of earlier computations; None: not known, as is 0 where none miss
    changed_since: str | None = None  # the folder with the tokens of earlier images

    @property
    def line(self) -> str:
        """The folder, its size, and how long what is missing takes."""
        what = f"tokens in {self.folder}:"
        if self.bytes is None or self.missing_bytes is None:
            return f"{what} size unknown"
        if not self.missing_bytes:
            return f"{what} {size_of(self.bytes)}, stored already"
        known = self.seconds is not None
        time = f"about {span(self.seconds)}" if known else "time unknown: none of this backbone were computed yet"
        changed = f"; the images have changed since {self.changed_since}" if self.changed_since else ""
        return f"{what} {size_of(self.bytes)}, of which {size_of(self.missing_bytes)} to compute once, {time}{changed}"


def token_folders(runs: Sequence[RunConfig], costs: Mapping[str, RunCost | None]) -> list[StoredTokens]:
    """Return each folder of stored tokens of some runs.

    Args:
        runs: resolved.
        costs: by fingerprint; None where they were not counted.
    """
    stored = {TokenFolder.of(run).path: run for run in runs if run.has_stored_tokens}
    return [_stored(TokenFolder(path), run, costs.get(fingerprint(run))) for path, run in stored.items()]


def _stored(folder: TokenFolder, run: RunConfig, cost: RunCost | None) -> StoredTokens:
    record = folder.record()
    row = record.row_bytes if record else (cost or {}).get("token_bytes")
    if row is None:
        return StoredTokens(str(folder.path), None, None, None)
    images = _count(run, record)
    missing = max(0, images - folder.held() // row)
    if not missing:
        return StoredTokens(str(folder.path), images * row, 0, 0.0)
    speeds = [speed for it in folders_in(cache_of(run)) if _is_alike(it, run) and (speed := it.speed())]
    seconds = missing * min(it.seconds / it.images for it in speeds) if speeds else None
    earlier = of_earlier_images(run) if record is None else None
    changed_since = earlier.path.name if earlier else None
    return StoredTokens(str(folder.path), images * row, missing * row, seconds, changed_since)


def _count(run: RunConfig, record: TokenRecord | None) -> int:
    """Return the number of images and views whose tokens the runs of a plan read, at most."""
    if record is None or not run.tokens.views:
        return count_images(run.dataset) * (1 + run.tokens.views)
    is_drawn = run.dataset.validation > 0 and "validation" not in record.splits  # from the training images themselves
    return sum(record.splits.values()) + (run.tokens.views - (not is_drawn)) * record.splits["train"]


def _is_alike(folder: TokenFolder, run: RunConfig) -> bool:
    source = record.source if (record := folder.record()) else {}
    size = source.get("dataset.image_size")
    return source.get("model.name") == run.model.name and size == run.dataset.image_size

"""Preview the tokens of frozen backbones that the runs of a plan share; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config import RunConfig
from headsweep.data.locate import count_images
from headsweep.data.token_folder import TokenFolder, TokenRecord, cache_of, folders_in, of_earlier_images
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.plan import Cost
from headsweep.plan.preview import span


def token_lines(runs: Sequence[RunConfig], costs: Mapping[str, Cost | None]) -> list[str]:
    """Return a line about each folder of stored tokens: its size, and how long what is missing takes.

    Args:
        runs: resolved.
        costs: by fingerprint; None where they were not counted.
    """
    stored = {TokenFolder.of(run).path: run for run in runs if run.has_stored_tokens}
    return [_line(TokenFolder(path), run, costs.get(fingerprint(run))) for path, run in stored.items()]


def _line(folder: TokenFolder, run: RunConfig, cost: Cost | None) -> str:
    what, record = f"tokens in {folder.path}:", folder.record()
    row = record.row_bytes if record else (cost or {}).get("token_bytes")
    if row is None:
        return f"{what} size unknown"
    images = _count(run, record)
    missing = max(0, images - folder.held() // row)
    if not missing:
        return f"{what} {size(images * row)}, stored already"
    speeds = [speed for it in folders_in(cache_of(run)) if _is_alike(it, run) and (speed := it.speed())]
    seconds = missing * min(it.seconds / it.images for it in speeds) if speeds else None
    time = f"about {span(seconds)}" if seconds else "time unknown: none of this backbone were computed yet"
    earlier = of_earlier_images(run) if record is None else None
    changed = f"; the images have changed since {earlier.path.name}" if earlier else ""
    return f"{what} {size(images * row)}, of which {size(missing * row)} to compute once, {time}{changed}"


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


def size(count: int) -> str:
    """Format bytes in the largest unit of which there is at least one."""
    units = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
    unit, name = next((it for it in units if count >= it[0]), (1, "bytes"))
    return f"{count / unit:.1f} {name}" if unit > 1 else f"{count} bytes"

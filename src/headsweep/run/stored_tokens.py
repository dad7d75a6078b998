"""The head of a run and the stored tokens that it is trained on; what is missing of them is computed first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from headsweep.config import Precision, RunConfig
from headsweep.data.datasets import Splits, load, split
from headsweep.data.token_cache import Images, TokenCache, TokenSource, labels_of, locked, write_labels
from headsweep.data.token_folder import TOKENS_LOGGER, TokenFolder, TokenRecord, of_earlier_images, source_of
from headsweep.data.token_staging import complete_copy, place_of_copy
from headsweep.models import Classifier, model_of
from headsweep.models.backbone import Backbone
from headsweep.models.frozen import FrozenBackbone
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.typed_files import Damaged
from headsweep.training.device import autocast

LOGGER = logging.getLogger(TOKENS_LOGGER)


def stored_tokens(
    run: RunConfig, model: Classifier, device: torch.device, precision: Precision, heartbeat: Callable[[], None]
) -> Splits:
    """Return the splits of a run as stored tokens.

    Args:
        run: with `tokens.cache`.
        model: its head; the backbone may be on the meta device.
        device: where missing tokens are computed.
        precision: in which they are, unless others of the folder were computed in another one.
        heartbeat: called often while tokens are computed or waited for; may raise to stop.

    Raises:
        UserError: data or weights are missing or damaged, or the disk is too small.
    """
    folder = TokenFolder.of(run)
    loaded: dict[str, Images] = {}  # images are read at most once, and only if tokens are missing

    def images() -> Images:
        if not loaded:
            loaded["all"] = _images(run)
        return loaded["all"]

    record = folder.whole_record() or _begin(run, folder, model, precision, images, heartbeat)
    computed_in = Precision(record.precision) if record.precision else precision
    labels = _labels(folder, record, images, heartbeat)
    backbone: list[FrozenBackbone] = []

    def build() -> FrozenBackbone:
        backbone.append(FrozenBackbone(model_of(run).backbone, device, partial(autocast, computed_in, device)))
        return backbone[0]

    def cache_in(place: TokenFolder, **repair: str) -> TokenCache:
        return TokenCache(
            place, record, run.dataset, run.augmentation, images, build, device, run.loader.workers, heartbeat, **repair
        )

    stored = cache_in(folder)
    copy = None if run.loader.stage is None else place_of_copy(folder, run.loader.stage)
    cache = stored if copy is None else cache_in(copy, repair="it is copied again")
    splits = _splits(run, cache, labels)
    if copy is None:
        stored.complete(_rows(splits))
    else:
        complete_copy(copy, cache, folder, stored, _rows(splits), heartbeat)
    for used in backbone:
        used.check_unchanged()
    backbone.clear()  # the cache exists as long as the run; images and backbone are no longer needed
    loaded.clear()
    return splits


def _images(run: RunConfig) -> Images:
    named = zip(("train", "validation", "test"), load(run.dataset), strict=True)
    return {name: source for name, source in named if source is not None}


def _splits(run: RunConfig, cache: TokenCache, labels: Mapping[str, Tensor]) -> Splits:
    sources = {name: TokenSource(cache, [name], torch.arange(len(its)), its) for name, its in labels.items()}
    splits = split((sources["train"], sources.get("validation"), sources["test"]), run.dataset, run.seed, run.debug)
    assert isinstance(splits.train, TokenSource), "as its source"
    return splits._replace(train=splits.train.viewed(run.tokens.views))


def _rows(splits: Splits) -> dict[str, Tensor]:
    """Return the numbers of the images that are read, by the name under which their tokens are stored."""
    needed = [source for source in splits if isinstance(source, TokenSource)]
    names = dict.fromkeys(name for source in needed for name in source.names)
    return {name: torch.cat([it.rows for it in needed if name in it.names]) for name in names}


def with_token_costs(run: RunConfig, result: RunResult) -> RunResult:
    """Return the result with what its stored tokens cost, and the time that a live backbone would have taken."""
    folder = TokenFolder.of(run)
    record, made = folder.record(), folder.speed()
    if record is None or made is None:
        return result
    bytes_held = folder.held()
    costs = {
        "token_seconds": bytes_held // record.row_bytes * made.seconds / made.images,
        "token_bytes": float(bytes_held),
        # The same backbone, on the images of each step, at the speed at which the tokens were computed.
        "live_seconds": result.steps * run.batch_size * made.seconds / made.images,
    }
    environment = {**result.environment, "tokens": folder.path.name}
    return replace(result, clock={**result.clock, **costs}, environment=environment)


def _begin(
    run: RunConfig,
    folder: TokenFolder,
    model: Classifier,
    precision: Precision,
    images: Callable[[], Images],
    heartbeat: Callable[[], None],
) -> TokenRecord:
    """Write labels and record of a new folder, unless another process does so first."""
    with locked(folder, heartbeat):
        if (record := folder.record()) is not None:
            return record
        if (earlier := of_earlier_images(run)) is not None:
            name = run.dataset.name
            LOGGER.warning("the images of %s have changed since %s: their tokens are computed", name, earlier.path.name)
        record = new_record(run, model.backbone, {name: len(source) for name, source in images().items()})
        record = replace(record, precision=precision.value)
        write_labels(folder, images())
        folder.write_record(record)
        return record


def _labels(
    folder: TokenFolder, record: TokenRecord, images: Callable[[], Images], heartbeat: Callable[[], None]
) -> dict[str, Tensor]:
    """Read the labels of each split; a damaged file is written again."""
    try:
        return labels_of(folder, record)
    except Damaged as error:
        LOGGER.warning("damaged: %s, %s; it is written again", error.path, error.reason)
        with locked(folder, heartbeat):
            write_labels(folder, images())
        return labels_of(folder, record)


def new_record(run: RunConfig, backbone: Backbone, splits: dict[str, int]) -> TokenRecord:
    """Return what is stored for a run; `splits` are the images of each."""
    tokens = backbone.prefix + backbone.tokens
    dtype, views = run.tokens.cache.value, run.tokens.views
    return TokenRecord(dict(source_of(run)), splits, tokens, backbone.width, dtype, views)

"""Tokens of a frozen backbone, computed once, stored in files and read by every run that trains a head on them.

Letters: n images of a split, b images of a batch, t tokens of an image, d width.
"""

from __future__ import annotations

import io
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor

from headsweep.config import AugmentationConfig, DatasetConfig
from headsweep.data.augment import Normaliser
from headsweep.data.crop import Crop
from headsweep.data.sources import Reader, Source
from headsweep.data.token_folder import TOKENS_LOGGER, Speed, TokenFolder, TokenRecord, check_room, view_name
from headsweep.data.views import Views
from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged

LOGGER = logging.getLogger(TOKENS_LOGGER)
# Of a file of tokens, which is computed again after an interruption; another size needs another LAYOUT.
SHARD_BYTES = 2**26
_LARGE_BATCH = 2**19  # bytes of a batch's tokens below which a thread takes longer to begin than to read them
_LARGE_ROW = 2**13  # bytes of an image's tokens above which a call for each image takes less time than its copy
_AT_ONCE = 128  # images that are computed between two looks at a request to stop
_CHECKSUM_BYTES = 4
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

Backbone = Callable[[Tensor], Tensor]  # (b c h w) float32, normalised, to (b t d)
Images = Mapping[str, Source]  # by split
Read = Callable[[Sequence[Tensor]], Iterator[Tensor]]  # places of each batch to its normalised images


class TokenCache:
    """The stored tokens of all images of a data set.

    Args:
        folder: where they are.
        record: what is stored there.
        dataset: for its mean and deviation.
        augmentation: of the views.
        load: returns the images; called if tokens are missing.
        build: returns the backbone; likewise.
        device: of the backbone.
        workers: decoding processes.
        heartbeat: called often while tokens are computed or waited for; may raise to stop.
        repair: what happens to a damaged file, for the warning.
    """

    def __init__(
        self,
        folder: TokenFolder,
        record: TokenRecord,
        dataset: DatasetConfig,
        augmentation: AugmentationConfig,
        load: Callable[[], Images],
        build: Callable[[], Backbone],
        device: torch.device,
        workers: int,
        heartbeat: Callable[[], None],
        repair: str = "its tokens are computed again",
    ) -> None:
        self._repair = repair
        self._folder, self._record, self._dataset, self._load, self._build = folder, record, dataset, load, build
        self._device, self._workers, self._heartbeat, self._augmentation = device, workers, heartbeat, augmentation
        self.row_bytes = record.row_bytes
        self._per_shard = max(1, SHARD_BYTES // record.row_bytes)
        self._shards: dict[tuple[str, int], Tensor] = {}  # (n t d) each, of the files that were checked

    def complete(self, rows: Mapping[str, Tensor]) -> None:
        """Compute what is missing of the tokens of the images at `rows` of each split.

        Raises:
            ConfigError: the disk is too small.
        """
        if not self.missing(rows):
            return
        with locked(self._folder, self._heartbeat):
            if missing := self.missing(rows):
                self._compute(missing)

    def missing(self, rows: Mapping[str, Tensor]) -> list[tuple[str, int]]:
        """Return split and number of the files of these rows that are absent, or damaged and now removed."""
        needed = [(split, int(n)) for split, its in rows.items() for n in (its // self._per_shard).unique()]
        return [shard for shard in needed if not self._is_whole(*shard)]

    def room(self, images: int, device: torch.device) -> Tensor:
        """Return memory for the tokens (b t d) of some images: in float32, or as they are stored and pinned for a GPU.

        A GPU converts them faster than they could be copied to it in float32.
        """
        shape, on_gpu = (images, self._record.tokens, self._record.width), device.type == "cuda"
        return torch.empty(shape, dtype=_DTYPES[self._record.dtype] if on_gpu else torch.float32, pin_memory=on_gpu)

    def read(self, split: str, rows: Tensor, out: Tensor) -> None:
        """Copy the tokens of the images at `rows` (b,) of a split to `out` (b t d)."""
        if self._record.row_bytes >= _LARGE_ROW:  # one pass over memory
            for place, row in zip(out.unbind(), rows.tolist(), strict=True):
                number, within = divmod(row, self._per_shard)
                place.copy_(self._shards[split, number][within])
            return
        numbers = rows // self._per_shard
        for number in numbers.unique().tolist():
            chosen = (numbers == number).nonzero()[:, 0]
            found = self._shards[split, number].index_select(0, rows[chosen] - number * self._per_shard)
            out.index_copy_(0, chosen, found.to(out.dtype))

    def _is_whole(self, split: str, number: int) -> bool:
        """Map a file of tokens; return False if it is absent, or damaged and now removed."""
        if (split, number) in self._shards:
            return True
        path = self._folder.shard(split, number)
        if not path.exists():
            return False
        size = self._count(split, number) * self._record.row_bytes
        content = np.memmap(path, np.uint8, "c")  # copy on write: torch warns of tensors that cannot be written
        data, checksum = content[:size], content[size:]
        self._heartbeat()
        if len(checksum) != _CHECKSUM_BYTES or zlib.crc32(data.data) != int.from_bytes(checksum.tobytes(), "big"):
            LOGGER.warning("%s is damaged: %s", path, self._repair)
            path.unlink(missing_ok=True)
            return False
        tokens = torch.from_numpy(data).view(_DTYPES[self._record.dtype])
        self._shards[split, number] = tokens.view(-1, self._record.tokens, self._record.width)
        return True

    def _count(self, split: str, number: int) -> int:
        """Return the number of images in a file."""
        return min(self._per_shard, self._record.count(split) - number * self._per_shard)

    def _compute(self, missing: Sequence[tuple[str, int]]) -> None:
        atomic_files.remove_partial(self._folder.path)
        check_room(self._folder.path, sum(self._count(*shard) for shard in missing) * self._record.row_bytes)
        started = time.perf_counter()
        images, backbone = self._load(), self._build()
        readers = self._readers(images, {split for split, _ in missing})
        for split, number in missing:
            first = number * self._per_shard
            rows = torch.arange(first, first + self._count(split, number)).split(_AT_ONCE)

            def write(file: BinaryIO, split: str = split, rows: Sequence[Tensor] = rows) -> None:
                checksum = 0
                for batch in readers[split](rows):
                    tokens = backbone(batch).to(_DTYPES[self._record.dtype]).cpu().contiguous()
                    content = tokens.view(-1).view(torch.uint8).numpy().data
                    checksum = zlib.crc32(content, checksum)
                    file.write(content)
                    self._heartbeat()
                file.write(checksum.to_bytes(_CHECKSUM_BYTES, "big"))

            atomic_files.write_with(self._folder.shard(split, number), write)
            self._is_whole(split, number)
        images_computed = sum(self._count(*shard) for shard in missing)
        self._folder.record_speed(Speed(images_computed, time.perf_counter() - started))

    def _readers(self, images: Images, splits: set[str]) -> dict[str, Read]:
        """Return for each split, or view of the training images, what reads its images at some places."""
        normalise, found = Normaliser(self._dataset, self._device), dict[str, Read]()

        def read(reader: Reader, rows: Sequence[Tensor]) -> Iterator[Tensor]:
            return map(normalise, reader.read(0, rows))

        for split in splits & images.keys():
            found[split] = partial(read, images[split].open(self._device, self._workers, None))
        names = {view_name(view): view for view in range(self._record.views)}
        if chosen := splits & names.keys():
            views = Views(images["train"], self._dataset, self._augmentation, self._device, self._workers)
            found |= {name: partial(views.read, names[name]) for name in chosen}
        return found


@contextmanager
def locked(folder: TokenFolder, heartbeat: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a folder; `heartbeat` is called while another process computes."""
    lock = folder.lock()
    while True:
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            heartbeat()
    try:
        yield
    finally:
        lock.release()


def labels_of(folder: TokenFolder, record: TokenRecord) -> dict[str, Tensor]:
    """Return the labels of each split. Raises Damaged."""
    try:
        with np.load(folder.labels, allow_pickle=False) as content:
            labels = {split: torch.from_numpy(content[split]) for split in record.splits}
        if {split: len(its) for split, its in labels.items()} != record.splits:
            raise ValueError("their number differs")
    except Exception as error:  # damaged archives raise many kinds
        raise Damaged(folder.labels, "expected labels, found something else", f"remove {folder.path}") from error
    return labels


def write_labels(folder: TokenFolder, images: Images) -> None:
    memory = io.BytesIO()
    np.savez(memory, **{split: source.labels.numpy() for split, source in images.items()})  # type: ignore[arg-type]
    atomic_files.write_with(folder.labels, lambda file: file.write(memory.getbuffer()))


class TokenSource(Source):
    """Images of a split as their stored tokens, or as those of augmented views, another one in each epoch."""

    is_final = True

    def __init__(self, cache: TokenCache, names: Sequence[str], rows: Tensor, labels: Tensor) -> None:
        """`names` are the split or its views, `rows` (n,) the places of the images in the split, `labels` theirs."""
        self.cache, self.names, self.rows, self.labels = cache, names, rows, labels

    def subset(self, rows: Tensor) -> TokenSource:
        return TokenSource(self.cache, self.names, self.rows[rows], self.labels[rows])

    def viewed(self, views: int) -> TokenSource:
        """Return the views of the same images, if there are any."""
        names = [view_name(view) for view in range(views)] or self.names
        return TokenSource(self.cache, names, self.rows, self.labels)

    def open(self, device: torch.device, workers: int, crop: Crop | None) -> TokenReader:
        return TokenReader(self, device)


class TokenReader:
    """Reads tokens of batches (b t d) in float32, on the device."""

    def __init__(self, source: TokenSource, device: torch.device) -> None:
        self.source, self.device = source, device
        self._rooms: list[Tensor | None] = [None, None]

    def read(self, key: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Reader.read`; `key` is the epoch.

        A thread reads the next batch while a large one is used. On a CPU a batch is valid until the next one is asked
        for: to get new memory from the system takes five times as long as to read the tokens.
        """
        name = self.source.names[key % len(self.source.names)]
        fill = partial(self._fill, name, batches)
        if not any(self._is_large(indices) for indices in batches[1:]):
            yield from map(self._moved, map(fill, range(len(batches))))
            return
        with ThreadPoolExecutor(1, "tokens") as thread:  # an iterator that is dropped waits for it
            ahead = thread.submit(fill, 0)
            for number in range(1, len(batches)):
                tokens, ahead = ahead.result(), thread.submit(fill, number)
                yield self._moved(tokens)
            yield self._moved(ahead.result())

    def _is_large(self, indices: Tensor) -> bool:
        return len(indices) * self.source.cache.row_bytes >= _LARGE_BATCH

    def _moved(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device, non_blocking=True).float()

    def _fill(self, name: str, batches: Sequence[Tensor], number: int) -> Tensor:
        """Read a batch into the room that the one before it does not use."""
        indices = batches[number]
        tokens = self._room_for(len(indices), number % 2)
        self.source.cache.read(name, self.source.rows[indices], tokens)
        return tokens

    def _room_for(self, images: int, which: int) -> Tensor:
        if self.device.type == "cuda":  # torch reuses pinned memory only after copies from it have ended
            return self.source.cache.room(images, self.device)
        room = self._rooms[which]
        if room is None or len(room) < images:
            room = self._rooms[which] = self.source.cache.room(images, self.device)
        return room[:images]

"""Stored tokens are read one batch ahead, by a thread, and no further."""

import threading
from collections.abc import Iterator

import pytest
import torch

from headsweep.data import token_cache
from headsweep.data.token_cache import TokenReader, TokenSource

CPU = torch.device("cpu")
PLACES = [torch.arange(4 * number, 4 * number + 4) for number in range(5)]


class Cache:
    """Of images whose tokens are their places."""

    row_bytes = 8

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.has_read = threading.Condition()
        self.damaged: int | None = None  # place

    def room(self, images: int, device: torch.device) -> torch.Tensor:
        return torch.empty(images, 1, 2)

    def read(self, split: str, rows: torch.Tensor, out: torch.Tensor) -> None:
        if self.damaged in rows.tolist():
            raise OSError("damaged")
        out.copy_(rows[:, None, None])
        with self.has_read:
            self.reads.append(int(rows[0]) // 4)
            self.has_read.notify_all()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(token_cache, "_LARGE_BATCH", 0)
    return Cache()


def batches(cache: Cache) -> Iterator[torch.Tensor]:
    source = TokenSource(cache, ["train"], torch.arange(20), torch.zeros(20))  # type: ignore[arg-type]
    return TokenReader(source, CPU).read(0, PLACES)


def test_while_a_batch_is_used_the_next_one_is_read_and_no_other(cache):
    for number, (tokens, places) in enumerate(zip(batches(cache), PLACES, strict=True)):
        expected = min(number + 2, len(PLACES))
        with cache.has_read:
            assert cache.has_read.wait_for(lambda expected=expected: len(cache.reads) >= expected, 60)
        assert cache.reads == list(range(expected))
        assert torch.equal(tokens[:, 0, 0], places.float()), "a batch is unchanged until the next one is asked for"
        tokens.zero_()
    assert not threads()


def test_small_batches_are_read_without_a_thread(cache, monkeypatch):
    monkeypatch.setattr(token_cache, "_LARGE_BATCH", 4 * cache.row_bytes + 1)
    found = batches(cache)
    assert torch.equal(next(found)[:, 0, 0], PLACES[0].float())
    assert cache.reads == [0] and not threads()


def test_an_iterator_that_is_dropped_leaves_no_thread(cache):
    found = batches(cache)
    next(found)
    assert threads()
    del found
    assert not threads()


def test_what_a_read_raises_is_raised_when_its_batch_is_asked_for(cache):
    cache.damaged = 9
    found = batches(cache)
    assert [int(next(found)[0, 0, 0]) for _ in range(2)] == [0, 4]
    with pytest.raises(OSError, match="damaged"):
        next(found)
    assert not threads()


def threads() -> list[str]:
    return [it.name for it in threading.enumerate() if it.name.startswith("tokens")]

"""Runs that train in lock step in one process: each ends with the bits that it has by itself, whatever happens."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import factories
from comparing import differences
from headsweep.data import token_cache
from headsweep.data.token_cache import TokenCache
from headsweep.heads import HEADS
from headsweep.run.lock_step import in_lock_step
from headsweep.run.token_streams import TokenStreams
from headsweep.run.train_run import train_folder, train_in_steps
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.training.progress import Busy, Stop, Stopped

pytestmark = pytest.mark.slow

KEYS = ["backbone=random", "augmentation=none", "duration='2 epochs'", "schedule.warmup='0 epochs'"]
DIFFERENT = {
    "gap": ["head=gap"],  # with dropout, see `odd_heads`
    "seqpool": ["head=seqpool", "heads=2", "ema_decay=0.9", "clip_norm=1"],
    "max": ["head=max", "duration='1 epochs'", "optimizer.lr=0.01"],  # changes its tokens in place
}


@pytest.fixture(autouse=True, scope="module")
def odd_heads():
    """One head draws dropout masks, another one writes into the tokens that it is given."""
    gap, largest = HEADS["gap"].forward, HEADS["max"].forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HEADS["gap"], "forward", lambda self, x: gap(self, F.dropout(x, 0.3, self.training)))
        patch.setattr(HEADS["max"], "forward", lambda self, x: largest(self, x.mul_(2)))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The output folders of this file, which share stored tokens."""
    return tmp_path_factory.mktemp("lock_step")


@pytest.fixture
def place(home, request) -> Path:
    """The output folder of a test."""
    return home / request.node.name


@pytest.fixture(scope="module")
def ones(home, odd_heads) -> list[RunFolder]:
    """Runs that were trained by themselves; no test may change them."""
    folders = planned(home / "alone")
    alone(folders)
    return folders


def planned(output: Path, names: Sequence[str] = tuple(DIFFERENT)) -> list[RunFolder]:
    given = [*KEYS, f"paths.cache={output.parent / 'cache'}"]
    return [factories.planned(output, *given, *DIFFERENT[name]) for name in names]


def alone(folders: Sequence[RunFolder]) -> None:
    for folder in folders:
        train_folder(folder, lambda progress: None)


def together(folders: Sequence[RunFolder], stop: Stop = lambda: False) -> dict[str, Exception | None]:
    """Train them; how each has ended, by its name, in the order of the ends."""
    streams = TokenStreams()
    runs = [train_in_steps(folder, lambda progress: None, stop, streams=streams) for folder in folders]
    return {folders[number].record().name.split("-")[0]: error for number, error in in_lock_step(runs)}


def assert_equal(ones: Sequence[RunFolder], others: Sequence[RunFolder]) -> None:
    assert [differences(one, other) for one, other in zip(ones, others, strict=True)] == [[]] * len(ones)


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """The sizes of the batches of tokens that were read."""
    sizes, call = [], TokenCache.read

    def counted(self, split, rows, out):
        sizes.append(len(rows))
        return call(self, split, rows, out)

    monkeypatch.setattr(TokenCache, "read", counted)
    return sizes


def test_each_run_has_the_bits_that_it_has_by_itself_and_each_batch_is_read_once(home, place, ones, read):
    alone(planned(home / "one", ["gap"]))
    by_itself = len(read)
    read.clear()
    others = planned(place, ["gap", "seqpool"])
    assert together(others) == {"gap1": None, "seqpool2": None}
    assert_equal(ones[:2], others)
    assert len(read) == by_itself


def test_a_head_that_changes_its_tokens_in_place_changes_those_of_no_other(place, ones, monkeypatch):
    """Nor does it change the next batch, which a thread reads meanwhile."""
    monkeypatch.setattr(token_cache, "_LARGE_BATCH", 0)
    others = planned(place)
    together(others)
    assert_equal(ones, others)


def test_runs_that_are_stopped_together_continue_alone_and_those_at_other_steps_together(place, ones):
    others = planned(place)
    asked = iter([False] * 12)  # three of them before the first step
    ends = together(others, lambda: next(asked, True))
    assert len(ends) == 3 and all(isinstance(error, Stopped) for error in ends.values())
    assert {folder.state() for folder in others} == {RunState.partial}
    alone(others[1:2])
    steps = [torch.load(folder.checkpoint, weights_only=True)["step"] for folder in others]
    assert len(set(steps)) > 1
    together(others)
    assert_equal(ones, others)


def test_a_run_that_fails_diverges_or_is_busy_does_so_alone(home, place, ones, monkeypatch):
    run, fails, busy = planned(place)
    keys = [*KEYS, f"paths.cache={home / 'cache'}"]
    diverges = factories.planned(place, *keys, "head=gap", "optimizer.lr=1e30", "clip_norm=null")
    call = HEADS["seqpool"].forward
    calls = iter(range(3))
    monkeypatch.setattr(HEADS["seqpool"], "forward", lambda self, x: call(self, x) if next(calls) < 2 else 1 / 0)
    with busy.lock():
        ends = together([fails, run, diverges, busy])
    assert isinstance(ends["seqpool2"], ZeroDivisionError) and isinstance(ends["max1"], Busy)
    assert [folder.state().value for folder in (fails, diverges, busy)] == ["failed", "diverged", "new"]
    assert "ZeroDivisionError" in (fails.failure() or "")
    assert_equal(ones[:1], [run])


def test_each_run_has_the_threads_of_its_checkpoint(place, ones):
    """The tokens have been computed before."""
    before, runs = torch.get_num_threads(), planned(place, ["gap", "seqpool"])
    try:
        torch.set_num_threads(2)
        asked = iter([False] * 6)
        with pytest.raises(Stopped):
            train_folder(runs[0], lambda progress: None, lambda: next(asked, True))
        torch.set_num_threads(1)
        together(runs)
        assert [torch.load(folder.checkpoint, weights_only=True)["threads"] for folder in runs] == [2, 1]
    finally:
        torch.set_num_threads(before)

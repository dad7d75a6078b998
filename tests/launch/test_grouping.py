"""Which runs share a process: those of one stream of tokens, in groups that fill the slots and fit into memory."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

import factories
import ranks  # noqa: F401 - before a test has a GPU: it lets forks compute gradients
from commands import give, wait_for
from comparing import differences
from composing import compose_run
from headsweep.data.token_folder import TOKENS_LOGGER
from headsweep.launch.local import grouping, worker
from headsweep.launch.local.grouping import Candidate, grouped, shared_line
from headsweep.plan.past_costs import plain
from headsweep.plan.token_streams import stream_of
from headsweep.run.train_run import train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.training.progress import Notice, Progress
from headsweep.training.ranks import Ranks

FROZEN = ["backbone=random", "augmentation=none"]


def sizes(streams: str, slots: int) -> list[int]:
    """Of the groups of runs whose streams are letters; `-` has none."""
    groups = grouped([Candidate(None if letter == "-" else letter) for letter in streams], slots)
    assert sorted(index for group in groups for index in group) == list(range(len(streams)))
    assert all(len({streams[index] for index in group}) == 1 for group in groups)
    return [len(group) for group in groups]


@pytest.mark.parametrize(
    ("streams", "slots", "expected"),
    [
        ("aaaaaaaa", 1, [8]),
        ("aaaaaaaa", 2, [4, 4]),
        ("aaa", 8, [1, 1, 1]),
        ("aaaabbbb", 2, [4, 4]),
        ("aaaabbbbcccc", 2, [4, 4, 2, 2]),
        ("aaaabbbb", 3, [2, 2, 4]),
        ("abab", 2, [2, 2]),
        ("--a-a", 1, [1, 1, 2, 1]),
        ("a" * 70, 1, [32, 32, 6]),
    ],
)
def test_groups_fill_the_slots(streams, slots, expected):
    assert sizes(streams, slots) == expected


def test_the_heads_of_a_group_fit_into_memory(monkeypatch):
    monkeypatch.setattr(grouping, "MOST_BYTES", 100)
    assert grouped([Candidate("a", bytes) for bytes in (60, 40, 1, 200, 30, 30)], 1) == [[0, 1], [2], [3], [4, 5]]
    assert Candidate.of({}, {"head_parameters": 3}) == Candidate(None, 60)


def test_a_line_says_how_runs_are_grouped():
    assert shared_line([[0], [1]]) is None
    together = "stored tokens: 2 runs train in 1 process, 2 at a time on the same batches"
    assert shared_line([[0, 1]]) == together
    assert shared_line([[0, 1], [2]]) == f"{together}; 1 run by itself"
    assert shared_line([[0, 1], [2], [3]]) == f"{together}; 2 runs by themselves"
    assert shared_line([[0, 1], [2, 3, 4]]) == (
        "stored tokens: 5 runs train in 2 processes, 2 to 3 at a time on the same batches"
    )


@pytest.mark.slow
def test_runs_share_a_stream_if_their_batches_are_the_same():
    def stream(*overrides: str) -> str | None:
        return stream_of(plain(compose_run(*FROZEN, "head=gap", *overrides)))

    same = [["head=ga"], ["heads=4"], ["optimizer.lr=0.1"], ["duration='5 epochs'"], ["ema_decay=0.9"], ["clip_norm=1"]]
    other = [["head=cls"], ["seed=1"], ["batch_size=7"], ["dataset.validation=0"], ["tokens.cache=float32"]]
    other += [["augmentation.label_smoothing=0.3"], ["debug=quick"], ["precision=bfloat16"], ["paths.cache=elsewhere"]]
    assert {stream(*overrides) for overrides in same} == {stream()}
    assert len({stream(*overrides) for overrides in (*other, [])}) == len(other) + 1
    assert stream("tokens.cache=off") is None
    assert stream_of(plain(compose_run("head=gap"))) is None


@pytest.mark.slow
def test_a_plan_says_how_runs_are_grouped(tmp_path, capsys):
    grid = ["head=gap,seqpool", "seeds=3", "hydra.launcher.slots=2", *FROZEN, f"paths.output={tmp_path}"]
    assert give("plan", "--list", *grid) == 0
    shared, *_ = reversed(capsys.readouterr().out.splitlines())
    together = "stored tokens: 4 runs train in 2 processes, 2 at a time on the same batches"
    assert shared == f"{together}; 2 runs by themselves"
    assert give("plan", "--list", *grid, "tokens.cache=off") == 0
    assert "stored tokens" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> list[str]:
    """Of runs whose tokens are computed already."""
    cache = f"paths.cache={tmp_path_factory.mktemp('tokens')}"
    given = [*FROZEN, cache, "duration='16 steps'", "schedule.warmup='0 epochs'", "dataset.validation=0"]
    folder = factories.planned(tmp_path_factory.mktemp("runs"), *given, "duration='1 steps'")
    train_folder(folder, lambda progress: None)
    return given


def planned(output: Path, keys: list[str]) -> list[RunFolder]:
    return [factories.planned(output, *keys, f"head={head}") for head in ("gap", "seqpool")]


def printing(*arguments) -> None:
    """Train; what is printed goes to the true outputs, not to pytest."""
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        worker.train(*arguments)


class Worker:
    """A process of the local launcher."""

    def __init__(self, folders: list[RunFolder]) -> None:
        context = get_context("fork")
        self.near, far = context.Pipe(duplex=False)
        paths = [folder.path for folder in folders]
        self.process = context.Process(target=printing, args=(paths, 1, None, None, far))
        self.process.start()
        far.close()

    def messages(self) -> Iterator[tuple[int, object]]:
        try:
            while True:
                yield self.near.recv()
        except EOFError:
            self.process.join(60)

    def until_step(self, step: int) -> None:
        next(it for _, it in self.messages() if isinstance(it, Progress) and it.step >= step)


@pytest.mark.slow
def test_a_group_that_is_stopped_or_killed_continues_exactly(tmp_path, keys, monkeypatch):
    ones, others = planned(tmp_path / "one", keys), planned(tmp_path / "other", keys)
    for folder in ones:
        train_folder(folder, lambda progress: None)
    average = Ranks.average
    monkeypatch.setattr(Ranks, "average", lambda *given: time.sleep(0.1) or average(*given))
    stopped = Worker(others)
    stopped.until_step(3)
    os.kill(stopped.process.pid, signal.SIGTERM)
    assert sorted(it for it in stopped.messages() if isinstance(it[1], int)) == [(0, 0), (1, 0)]
    assert stopped.process.exitcode == 0
    assert {folder.state() for folder in others} == {RunState.partial}
    killed = Worker(others)
    killed.until_step(9)
    killed.process.kill()
    killed.process.join()
    wait_for(lambda: {folder.state() for folder in others} == {RunState.partial})
    monkeypatch.undo()
    assert sorted(it for it in Worker(others).messages() if isinstance(it[1], int)) == [(0, 0), (1, 0)]
    assert [differences(*pair) for pair in zip(ones, others, strict=True)] == [[], []]
    assert "Traceback" not in "".join(folder.log.read_text() for folder in others)


@pytest.fixture
def unlucky(monkeypatch) -> Callable[[str], None]:
    """Lets each step of gap fail."""

    def fail_with(reason: str) -> None:
        def average(self, tensors) -> None:
            if len(tensors) == 3:  # gradients of weight and bias, and the loss
                raise RuntimeError(reason)

        monkeypatch.setattr(Ranks, "average", average)

    return fail_with


def test_what_is_logged_about_tokens_is_sent_to_the_launcher_and_in_the_log(tmp_path, capfd):
    near, far = get_context("fork").Pipe(duplex=False)
    logs = SimpleNamespace(current=1)
    record = logging.LogRecord(TOKENS_LOGGER, logging.WARNING, "", 0, "%s is damaged", ("a.bin",), None)
    worker.Forwarder(far, logs).emit(record)
    assert near.recv() == (1, Notice("a.bin is damaged"))
    assert capfd.readouterr().err == "a.bin is damaged\n"


@pytest.mark.slow
def test_what_a_run_of_a_group_prints_and_why_it_fails_is_in_its_own_log(tmp_path, keys, unlucky):
    bad, good = planned(tmp_path, [*keys, "duration='2 steps'"])
    unlucky("bad luck")
    ends = [it for it in Worker([bad, good]).messages() if isinstance(it[1], int)]
    assert ends == [(0, 1), (1, 0)]
    assert "RuntimeError: bad luck" in bad.log.read_text() and "RuntimeError: bad luck" in (bad.failure() or "")
    assert (good.log.read_text(), good.failure(), good.state()) == ("", None, RunState.finished)


def test_a_log_that_cannot_be_opened_is_one_line_for_the_launcher_which_then_separates_the_runs(tmp_path, capfd):
    """A disk without inodes, or a file of another user."""
    bad, good = RunFolder(tmp_path / "runs" / "bad"), RunFolder(tmp_path / "runs" / "good")
    bad.log.mkdir(parents=True)
    good.path.mkdir()
    process = Worker([bad, good])
    reason = f"{bad.log}: Is a directory; fix this and give the command again"
    assert list(process.messages()) == [(0, reason), (1, reason)]
    assert (process.process.exitcode, capfd.readouterr().err) == (1, "")


@pytest.mark.slow
def test_a_process_that_has_lost_its_gpu_ends_before_other_runs_fail_for_it(tmp_path, keys, unlucky):
    bad, good = planned(tmp_path, keys)
    unlucky("CUDA error: device-side assert triggered")
    process = Worker([bad, good])
    assert [it for it in process.messages() if isinstance(it[1], int)] == [(0, 1)]
    assert process.process.exitcode == 1
    assert (bad.state(), good.failure()) == (RunState.failed, None)

"""Invariant 5: killed at any instant and started again, a run ends with the same bits as if never stopped."""

import multiprocessing
import os
import random
import signal
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

import factories
from comparing import differences
from headsweep.launch.local import worker
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState

EVERYTHING = [
    *("head=seqattn", "heads=2", "augmentation=paper", "accumulation=2", "ema_decay=0.9"),
    *("model.depth=2", "model.drop_path=0.3", "model.dropout=0.1"),
    *("duration='10 epochs'", "debug.train_images=64"),
]


class Writing(NamedTuple):
    """The instant at which a file is synced for the so-many-th time, with that share of the new bytes on the disk."""

    file: str  # how its name starts
    number: int
    share: float


def moments(folder: str, draw: random.Random) -> list[Writing | float]:
    """Within and between all writes, and where chance puts them (so many seconds after the start)."""
    within = [
        Writing("checkpoint.pt", draw.randint(1, 2), 0.5),
        Writing("checkpoint.pt", draw.randint(1, 2), 1.0),  # behind the metrics log's line, ahead of the rename
        Writing("metrics.jsonl", draw.randint(2, 3), 0.5),  # the first time may be the cut that a resumed run makes
        Writing("metrics.jsonl", draw.randint(1, 2), 1.0),
        Writing(folder, draw.randint(1, 2), 1.0),  # behind the checkpoint's rename
    ]
    somewhen = [draw.uniform(0, 0.1) for _ in range(2)]
    middle: list[Writing | float] = [*within, *somewhen]
    draw.shuffle(middle)
    first = [Writing("best.pt", 1, 0.5), Writing("best.pt", 1, 1.0)]  # of the first epoch, which is the best so far
    last = [Writing("test_correct", 1, 1.0), Writing("result.json", 1, 0.5), Writing("result.json", 1, 1.0)]
    return [*first, *middle, *last]


@pytest.mark.slow
def test_killed_at_many_moments_it_ends_with_the_same_bits(tmp_path, streamed):
    """Streamed by worker processes, with average, accumulation, mixing and stochastic depth."""
    undisturbed = planned(tmp_path / "undisturbed", *streamed)
    disturbed = planned(tmp_path / "disturbed", *streamed, "loader.workers=1")  # whose start takes time
    whole = start(undisturbed)
    for moment in moments(disturbed.path.name, random.Random(0)):
        process = start(disturbed, moment)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{moment}: {process.exitcode}\n{disturbed.log.read_text()}"
        assert disturbed.result() is None
        wait_until_free(disturbed)
    last = start(disturbed)
    for process in (whole, last):
        process.join(120)
        assert process.exitcode == 0
    assert len(undisturbed.metrics_log.entries()) == 11
    assert differences(undisturbed, disturbed) == []


def planned(output: Path, *overrides: str) -> RunFolder:
    return factories.planned(output, *EVERYTHING, *overrides)


def start(folder: RunFolder, moment: Writing | float | None = None):
    """The process of the local launcher that trains the run, to be killed at `moment`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headsweep.launch.local.worker", "hydra", "pytest"])
    near, far = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(folder.path, moment, far))
    process.start()
    far.close()
    if isinstance(moment, float):
        assert near.poll(60)  # it reports where it starts
        time.sleep(moment)
        process.kill()
    process.connection = near  # or the pipe is closed
    return process


def train(path: Path, moment: Writing | float | None, connection) -> None:
    if isinstance(moment, Writing):
        os.fsync = killed_at(moment, RunFolder(path).metrics_log.path)
    worker.train([path], 1, None, None, connection)


def killed_at(moment: Writing, log: Path):
    """An `os.fsync` that kills this process; what is not yet synced is on the disk to a part, as after a crash."""
    sync, calls = os.fsync, count(1)
    sizes = {log: log.stat().st_size} if log.exists() else {}

    def fsync(handle: int) -> None:
        path, size = Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle).st_size
        if path.name.startswith(moment.file) and next(calls) == moment.number:
            time.sleep(0.1)  # training goes on meanwhile, unless it ends with this file
            if path.is_file():
                new = max(0, size - sizes.get(path, 0))
                os.truncate(path, size - int(new * (1 - moment.share)))
            os.kill(os.getpid(), signal.SIGKILL)
        sizes[path] = size
        sync(handle)

    return fsync


def wait_until_free(folder: RunFolder) -> None:
    """Until the workers of a killed run have seen that it is gone: they hold its lock."""
    for _ in range(400):
        if folder.state() is not RunState.running:
            return
        time.sleep(0.05)
    raise TimeoutError("workers outlived their run")

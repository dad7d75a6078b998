"""A run's folder: everything that is known of one run, and the one place that knows how it is laid out.

run.json       who the run is (RunRecord), written when it is planned
config.yaml    its full frozen configuration
metrics.jsonl  the spool
checkpoint.pt  the last whole epoch, or the step at which it was asked to stop
best.pt        the weights of the epoch with the best top-1 on held-out images; none where none are held out
test_correct.npy  of each test image, in order, whether the last weights that were tested get it right
result.json    how it ended (RunResult); its presence means that the run is over
failure.txt    how many tries have failed and the traceback of the last, until a try succeeds
log.txt        what it printed
lock           held by the process that trains it; the system frees it when that process dies
claim          a word of the process that writes here, for file systems whose locks do not reach other machines
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from headsweep.tracking import durable
from headsweep.tracking.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    from filelock import FileLock
    from numpy.typing import NDArray


_NOT_DATA = ("root", "download", "detect_anomaly", "mean", "std")  # where images lie, and what is done to them later


class TakenOver(Exception):  # noqa: N818 - it is no error
    """Another process has claimed the run's folder since this one did."""


class RunState(Enum):
    """What is to be done about a run."""

    new = "new"
    partial = "partial"  # interrupted: its checkpoint can be continued
    running = "running"
    finished = "finished"
    diverged = "diverged"  # the loss became NaN or infinite: a result, not a failure of the program
    failed = "failed"


@dataclass(frozen=True)
class RunRecord:
    """Who a run is."""

    fingerprint: str  # of the full resolved configuration, minus what only says where it runs
    group: str  # the same without the seed
    name: str  # for people, e.g. seqattn4-cct_2_3x2-digits-seed0
    sweep: str  # name of the sweep that planned it first
    seed: int
    config: dict[str, Any]  # nested, resolved
    parameters: dict[str, Any]  # dotted key -> value: the identity keys and those that a sweep varies
    code: dict[str, Any]  # {"commit": str | None, "dirty": bool}
    cost: dict[str, int]  # parameters, head_parameters, flops, head_flops (of one image's forward pass)

    @property
    def data(self) -> str:
        """What the run is trained and tested on: a name and a digest, the same for the same images."""
        sections = [self.config.get(name, {}) for name in ("dataset", "debug")]
        images = [{key: value for key, value in section.items() if key not in _NOT_DATA} for section in sections]
        digest = hashlib.sha256(json.dumps(images, sort_keys=True).encode()).hexdigest()[:8]
        return f"{images[0].get('name')}-{digest}"


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    state: str  # finished or diverged
    metrics: dict[str, float]  # the last value of every metric
    epochs: int
    steps: int
    clock: dict[str, float] = field(default_factory=dict)  # train_seconds, images_per_second, peak_memory_gib, ...
    environment: dict[str, Any] = field(default_factory=dict)  # device, threads, versions
    note: str = ""  # e.g. at which step the loss became NaN


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path / "metrics.jsonl")
        self.checkpoint = path / "checkpoint.pt"
        self.best = path / "best.pt"
        self.correct = path / "test_correct.npy"
        self.log = path / "log.txt"
        self.config = path / "config.yaml"
        self._record = path / "run.json"
        self._result = path / "result.json"
        self._failure = path / "failure.txt"
        self._claim = path / "claim"
        self._word: str | None = None

    def lock(self) -> FileLock:
        """The lock that the training process holds; acquire it before writing anything here."""
        from filelock import FileLock  # takes longer than all else here: who only looks does without

        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    def claim(self) -> None:
        """Be the one writer: whoever claimed the folder before learns it from `check_claim`."""
        self._word = uuid4().hex
        durable.write_text(self._claim, self._word)
        for written in (self.checkpoint, self.best, self.correct):
            for half in self.path.glob(f"{written.name}.*.part"):  # of a process that was killed as it wrote
                half.unlink(missing_ok=True)

    def check_claim(self) -> None:
        """Look whether this object's claim still stands, before anything is written.

        Raises:
            TakenOver: another process has claimed the folder. It goes on from what was written until then.
        """
        if self._claim.read_text() != self._word:
            raise TakenOver

    def create(self, record: RunRecord, config_yaml: str) -> None:
        """Write who the run is, once; a run that is known keeps its first record."""
        if not self._record.exists():
            durable.write_text(self.config, config_yaml)
            durable.write_json(self._record, asdict(record))

    def record(self) -> RunRecord:
        """Who the run is."""
        return RunRecord(**json.loads(self._record.read_text()))

    def count(self, cost: dict[str, int]) -> None:
        """State what the run costs, which was not known when it was planned."""
        durable.write_json(self._record, asdict(replace(self.record(), cost=cost)))

    def write_test_correct(self, correct: NDArray[np.bool_]) -> None:
        """State of each test image, in the order of the test set, whether it is classified correctly."""
        import numpy as np

        memory = io.BytesIO()
        np.save(memory, correct)
        durable.write_with(self.correct, lambda file: file.write(memory.getbuffer()))

    def test_correct(self) -> NDArray[np.bool_] | None:
        """What `write_test_correct` stated last; None for a run that was never tested, or tested before this was kept.

        Of a finished run it is said of the weights that metrics `test/*` are of.
        """
        import numpy as np

        return np.load(self.correct) if self.correct.exists() else None

    def finish(self, result: RunResult) -> None:
        """State how the run ended."""
        self.spool.sync()
        durable.write_json(self._result, asdict(result))
        self._failure.unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """How the run ended; None while it has not."""
        return RunResult(**json.loads(self._result.read_text())) if self._result.exists() else None

    def fail(self, reason: str) -> None:
        """Count a try that failed and keep its traceback, or its one line."""
        durable.write_text(self._failure, f"failed tries: {self.failed_tries() + 1}\n{reason.rstrip()}\n")

    def failure(self) -> str | None:
        """Why the last try failed; None if it did not."""
        return self._failure.read_text(encoding="utf-8").partition("\n")[2] if self._failure.exists() else None

    def failed_tries(self) -> int:
        """How many tries have failed since the last `forget_failure`."""
        if not self._failure.exists():
            return 0
        return int(self._failure.read_text(encoding="utf-8").partition("\n")[0].rpartition(":")[2])

    def forget_failure(self) -> None:
        """Let the run be tried again as if it had never failed; it goes on from its checkpoint."""
        self._failure.unlink(missing_ok=True)

    def state(self) -> RunState:
        """What is to be done about the run, from its files alone."""
        result = self.result()
        if result is not None:
            return RunState(result.state)
        if not self._record.exists():
            return RunState.new
        if self._is_locked():
            return RunState.running
        if self._failure.exists():
            return RunState.failed
        return RunState.partial if self.checkpoint.exists() else RunState.new

    def _is_locked(self) -> bool:
        """Look, and leave no trace: nothing is written, and a process that takes the lock meanwhile tries again."""
        try:
            with (self.path / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

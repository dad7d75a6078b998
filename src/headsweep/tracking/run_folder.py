"""A run's folder: everything that is known of one run, and the one place that knows how it is laid out.

run.json       who the run is (RunRecord), written when it is planned
config.yaml    its full frozen configuration
metrics.jsonl  the metrics log
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
import os
import re
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from headsweep.config.keys import has_trait
from headsweep.config.traits import DATA
from headsweep.credentials import hidden
from headsweep.tracking import atomic_files
from headsweep.tracking.metrics_log import MOST, MetricsLog
from headsweep.tracking.typed_files import Damaged, check_shares, is_name, read_bytes, read_json, read_text, require

if TYPE_CHECKING:
    import numpy as np
    from filelock import FileLock
    from numpy.typing import NDArray


MOST_COUNTED = 10**18  # parameters or FLOPs of a model: beyond what any computer holds
TAIL = 4096  # bytes at the end of a metrics log, which hold its last epochs
_TRIES = "failed tries: "
_COMMIT = re.compile(r"[0-9a-f]{4,64}")


class TakenOver(Exception):  # noqa: N818 - it is no error
    """Another process has claimed the run's folder since this one did."""


class RunState(Enum):
    """Where a run stands; `label` is how messages, tables and pages name it."""

    new = "new"
    partial = "partial"  # interrupted: its checkpoint can be continued
    running = "running"
    finished = "finished"
    diverged = "diverged"  # the loss became NaN or infinite: a result, not a failure of the program
    failed = "failed"

    @property
    def label(self) -> str:
        """The state in words."""
        return {"new": "not started", "partial": "unfinished"}.get(self.value, self.value)


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

    def check(self) -> None:
        """Raise ValueError for what no run can be; a commit is digits, so that git takes it for nothing else."""
        require("fingerprint", self.fingerprint, is_name(self.fingerprint), "the name of a folder")
        for key in ("group", "name", "sweep"):
            require(key, getattr(self, key), getattr(self, key).isprintable(), "a text of printable characters")
        require("seed", self.seed, self.seed >= 0, "an integer of at least 0")  # any: a hash or a date is one, too
        commit, dirty = self.code.get("commit"), self.code.get("dirty", False)
        is_commit = commit is None or (isinstance(commit, str) and _COMMIT.fullmatch(commit) is not None)
        require("code.commit", commit, is_commit, "a hash in hexadecimal digits")
        require("code.dirty", dirty, isinstance(dirty, bool), "true or false")
        for key, count in self.cost.items():
            require(f"cost.{key}", count, 0 <= count <= MOST_COUNTED, f"an integer in [0, {MOST_COUNTED}]")

    @property
    def data(self) -> str:
        """What the run is trained and tested on: a name and a digest, the same for the same images."""
        images = [
            {key: value for key, value in self.config.get(section, {}).items() if has_trait(f"{section}.{key}", DATA)}
            for section in ("dataset", "debug")
        ]
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

    def check(self) -> None:
        """Raise ValueError for an end that no run can have."""
        ends = (RunState.finished.value, RunState.diverged.value)
        require("state", self.state, self.state in ends, " or ".join(ends))
        for key in ("epochs", "steps"):
            require(key, getattr(self, key), 0 <= getattr(self, key) <= MOST, f"an integer in [0, {MOST}]")
        for key, value in self.clock.items():
            require(f"clock.{key}", value, not value < 0, "a number of at least 0")
        require("note", self.note, self.note.isprintable(), "a text of printable characters")
        check_shares(self.metrics)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_log = MetricsLog(path / "metrics.jsonl")
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
        self._fix = f"remove {path} and give the sweep's command again"

    def lock(self) -> FileLock:
        """The lock that the training process holds; acquire it before writing anything here."""
        from filelock import FileLock  # takes longer than all else here: who only looks does without

        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    def claim(self) -> None:
        """Be the one writer: whoever claimed the folder before learns it from `check_claim`."""
        self._word = uuid4().hex
        atomic_files.write_text(self._claim, self._word)
        atomic_files.sweep_up(self.path)

    def check_claim(self) -> None:
        """Look whether this object's claim still stands, before anything is written.

        Raises:
            TakenOver: another process has claimed the folder. It goes on from what was written until then.
            Damaged: the claim cannot be read.
        """
        if read_text(self._claim, self._fix) != self._word:
            raise TakenOver

    def create(self, record: RunRecord, config_yaml: str) -> None:
        """Write who the run is, once; a run that is known keeps its first record."""
        if not self._record.exists():
            atomic_files.write_text(self.config, config_yaml)
            atomic_files.write_json(self._record, asdict(record))

    def damage(self) -> Damaged | None:
        """What is wrong with the files that a training reads and adds to; None if nothing."""
        try:
            self._check()
        except Damaged as error:
            return error
        return None

    def _check(self) -> None:
        """Raise Damaged for a file that cannot be read, or a link, through which something else would be written."""
        for entry in os.scandir(self.path) if self.path.is_dir() else ():
            if entry.is_symlink() and entry.name not in (self.checkpoint.name, self.best.name):  # replaced, not filled
                raise Damaged(Path(entry.path), "expected a file, found a link", self._fix)
        if self.state() is not RunState.new or self._record.exists():
            self.record()
        self.failed_tries()
        self.sweeps()
        self.metrics_log.last(1, TAIL)

    def record(self) -> RunRecord:
        """Who the run is.

        Raises:
            Damaged: run.json is absent or not as `create` writes it.
        """
        record = read_json(self._record, RunRecord, self._fix)
        if record is None:
            raise Damaged(self._record, "expected a file, found none", self._fix)
        return record

    def sweeps(self) -> list[str]:
        """The names of the sweeps that it is launched in, in the order in which they were first launched.

        Raises:
            Damaged: sweeps.txt holds no names of folders.
        """
        path, fix = self.path / "sweeps.txt", "remove it, and the sweeps' commands write it again"
        names = list(dict.fromkeys((read_text(path, fix) or "").splitlines()))
        for name in names:
            if not is_name(name):
                raise Damaged(path, f"expected names of sweeps, found {name[:40]!r}", fix)
        return names

    def config_is_younger(self) -> bool:
        """Whether config.yaml was written after run.json, as if it had been changed, or copied."""
        try:
            return self.config.stat().st_mtime_ns > self._record.stat().st_mtime_ns
        except OSError:
            return False  # what is not there is found where it is read

    def config_text(self) -> str:
        """The frozen configuration, in YAML.

        Raises:
            Damaged: config.yaml is absent or no text.
        """
        text = read_text(self.config, self._fix)
        if text is None:
            raise Damaged(self.config, "expected a file, found none", self._fix)
        return text

    def count(self, cost: dict[str, int]) -> None:
        """State what the run costs, which was not known when it was planned."""
        atomic_files.write_json(self._record, asdict(replace(self.record(), cost=cost)))

    def write_test_correct(self, correct: NDArray[np.bool_]) -> None:
        """State of each test image, in the order of the test set, whether it is classified correctly."""
        import numpy as np

        memory = io.BytesIO()
        np.save(memory, correct)
        atomic_files.write_with(self.correct, lambda file: file.write(memory.getbuffer()))

    def test_correct(self) -> NDArray[np.bool_] | None:
        """What `write_test_correct` stated last; None for a run that was never tested, or tested before this was kept.

        Of a finished run it is said of the weights that metrics `test/*` are of.

        Raises:
            Damaged: the file is not as `write_test_correct` writes it.
        """
        content = read_bytes(self.correct, self._fix)
        if content is None:
            return None
        import numpy as np

        try:
            correct = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # whatever a damaged array makes numpy raise
            reason = str(error).split("\n", 1)[0]
            raise Damaged(
                self.correct, f"expected an array of numpy, found something else ({reason})", self._fix
            ) from error
        if not isinstance(correct, np.ndarray) or correct.dtype != bool or correct.ndim != 1 or not correct.size:
            raise Damaged(self.correct, "expected a truth value for each test image, found another array", self._fix)
        return correct

    def finish(self, result: RunResult) -> None:
        """State how the run ended."""
        self.metrics_log.sync()
        atomic_files.write_json(self._result, asdict(result))
        self._failure.unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """How the run ended; None while it has not.

        Raises:
            Damaged: result.json is not as `finish` writes it.
        """
        return read_json(self._result, RunResult, self._fix)

    def fail(self, reason: str) -> None:
        """Count a try that failed and keep its traceback, or its one line."""
        text = hidden(reason).rstrip().encode(errors="backslashreplace").decode()  # names of files may be no text
        atomic_files.write_text(self._failure, f"{_TRIES}{self.failed_tries() + 1}\n{text}\n")

    def failure(self) -> str | None:
        """Why the last try failed; None if it did not. Raises Damaged as `failed_tries`."""
        return self._failed()[1]

    def failed_tries(self) -> int:
        """How many tries have failed since the last `forget_failure`.

        Raises:
            Damaged: failure.txt is not as `fail` writes it.
        """
        return self._failed()[0]

    def _failed(self) -> tuple[int, str | None]:
        fix = "remove it, and the run counts as never failed"
        text = read_text(self._failure, fix)
        if text is None:
            return 0, None
        first, _, reason = text.partition("\n")
        tries = first.removeprefix(_TRIES)
        if not (first.startswith(_TRIES) and re.fullmatch(r"[1-9]\d{0,5}", tries)):
            raise Damaged(self._failure, f"expected '{_TRIES}N' in the first line, found {first[:40]!r}", fix)
        return int(tries), reason

    def forget_failure(self) -> None:
        """Let the run be tried again as if it had never failed; it goes on from its checkpoint."""
        self._failure.unlink(missing_ok=True)

    def state(self) -> RunState:
        """What is to be done about the run, from its files alone.

        Raises:
            Damaged: result.json is not as `finish` writes it, or the lock cannot be looked at.
        """
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
        except OSError as error:
            raise Damaged(self.path / "lock", f"it cannot be read ({error.strerror or error})", self._fix) from error
        return False

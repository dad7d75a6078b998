"""The folder of a run: all files of one run, which are read and written here alone.

run.json       identity of the run (RunRecord), written when it is planned
config.yaml    its full frozen configuration
head.py        the file of its head, if that is in a plain file
sweeps.txt     names of the sweeps that it was launched in
precision.txt  the precision that it computes in, written when it begins
metrics.jsonl  the metrics log
checkpoint.pt  the state after the last complete epoch, or at the step at which the run was stopped
best.pt        the weights of the epoch with the best top-1 on held-out images; absent if none are held out
test_correct.npy  for each test image, in order, whether the last tested weights classify it correctly
result.json    outcome (RunResult); its presence means that the run is over
failure.txt    number of failed attempts and the last traceback, until an attempt succeeds
log.txt        output of the training
lock           locked by the process that trains the run; the system releases it when that process ends
claim          token of the process that writes here, for file systems whose locks do not reach other machines
inspection/    what `headsweep inspect` found (see `inspection`)
"""

from __future__ import annotations

import fcntl
import io
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from headsweep.credentials import redacted
from headsweep.text import first_line, is_file_name
from headsweep.tracking import atomic_files
from headsweep.tracking.cost import RunCost
from headsweep.tracking.metrics_log import Entry, MetricsLog
from headsweep.tracking.output_folder import RUN_RECORD, OutputFolder
from headsweep.tracking.run_record import RunRecord, RunResult, RunSnapshot, RunState
from headsweep.tracking.typed_files import Damaged, read_bytes, read_json, read_text

if TYPE_CHECKING:
    import numpy as np
    from filelock import FileLock
    from numpy.typing import NDArray


RESULT, FAILURE, PRECISION, SWEEPS = "result.json", "failure.txt", "precision.txt", "sweeps.txt"
_TRIES = "failed tries: "
_PRECISIONS = ("float32", "bfloat16")  # those of config.schema, which is slow to import


class TakenOver(Exception):  # noqa: N818 - not an error
    """Another process has claimed the run's folder since this one did."""


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
        self.head = path / "head.py"
        self._record = path / RUN_RECORD
        self._result = path / RESULT
        self._failure = path / FAILURE
        self._precision = path / PRECISION
        self._claim = path / "claim"
        self._sweeps = path / SWEEPS
        self._token: str | None = None
        self._fix = f"remove {path} and run the sweep's command again"

    @property
    def output(self) -> OutputFolder:
        """The output folder in which it lies."""
        return OutputFolder.containing(self.path)

    def lock(self) -> FileLock:
        """Return the lock of the training process; acquire it before writing anything here."""
        from filelock import FileLock  # imported here because it is slow and readers do not need it

        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "lock")

    def claim(self) -> None:
        """Become the only writer: `check_claim` of an earlier claimant raises from now on."""
        self._token = uuid4().hex
        atomic_files.write_text(self._claim, self._token)
        atomic_files.remove_partial(self.path)

    def check_claim(self) -> None:
        """Check, before a write, that this object's claim still holds.

        Raises:
            TakenOver: another process has claimed the folder, and resumes from what was written until then.
            Damaged: the claim cannot be read.
        """
        if read_text(self._claim, self._fix) != self._token:
            raise TakenOver

    def create(self, record: RunRecord, config_yaml: str, head: bytes | None = None) -> None:
        """Write record and configuration, and the head if it is in a file, once; an earlier record is kept."""
        if not self._record.exists():
            if head is not None:
                atomic_files.write_with(self.head, lambda file: file.write(head))
            atomic_files.write_text(self.config, config_yaml)
            atomic_files.write_json(self._record, asdict(record))

    def replace_record(self, record: RunRecord) -> None:
        """Replace the record, e.g. as other code is about to train the run."""
        atomic_files.write_json(self._record, asdict(record))

    def damage(self) -> Damaged | None:
        """Return the damage to a file that training reads or extends; None if there is none."""
        try:
            self._check()
        except Damaged as error:
            return error
        return None

    def _check(self) -> None:
        """Raise Damaged for a file that cannot be read, or a link, through which another file would be written."""
        replaced = self.checkpoint.name, self.best.name  # not written through
        for entry in os.scandir(self.path) if self.path.is_dir() else ():
            if entry.is_symlink() and entry.name not in replaced:
                raise Damaged(Path(entry.path), "expected a file, found a link", self._fix)
        if self.state() is not RunState.new or self._record.exists():
            self.record()
        self.failed_tries()
        self.precision()
        self.sweeps()
        self.metrics_log.last(1)

    def record(self) -> RunRecord:
        """Return the identity of the run.

        Raises:
            Damaged: run.json is absent, not as `create` writes it, or of another run.
        """
        record = read_json(self._record, RunRecord, self._fix)
        if record is None:
            raise Damaged(self._record, "expected a file, found none", self._fix)
        name = self.path.name
        if name != record.fingerprint and re.fullmatch(r"[0-9a-f]{12}", name):  # a copy may have any other name
            raise Damaged(self._record, f"expected that of run {name}, found that of {record.fingerprint}", self._fix)
        return record

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that it was launched in, in the order of their first launch.

        Raises:
            Damaged: sweeps.txt holds something else than names of folders.
        """
        fix = "remove it, and the sweeps' commands write it again"
        names = list(dict.fromkeys((read_text(self._sweeps, fix) or "").splitlines()))
        for name in names:
            if not is_file_name(name):
                raise Damaged(self._sweeps, f"expected names of sweeps, found {name[:40]!r}", fix)
        return names

    def join(self, sweep: str) -> None:
        """Record that the run is launched in a sweep."""
        if sweep not in self.sweeps():
            with self._sweeps.open("a") as file:
                file.write(f"{sweep}\n")

    def config_is_younger(self) -> bool:
        """Return whether config.yaml was written after run.json, as if it had been changed or copied."""
        try:
            return self.config.stat().st_mtime_ns > self._record.stat().st_mtime_ns
        except OSError:
            return False  # an absent file is reported where it is read

    def config_text(self) -> str:
        """Return the frozen configuration, in YAML.

        Raises:
            Damaged: config.yaml is absent or not text.
        """
        text = read_text(self.config, self._fix)
        if text is None:
            raise Damaged(self.config, "expected a file, found none", self._fix)
        return text

    def write_cost(self, cost: RunCost) -> None:
        """Add the cost to the record of a run that was planned without it."""
        atomic_files.write_json(self._record, asdict(replace(self.record(), cost=cost)))

    def write_precision(self, precision: str) -> None:
        """Record which precision the run computes in: what `precision=auto` was, or what it was given."""
        atomic_files.write_text(self._precision, f"{precision}\n")

    def precision(self) -> str | None:
        """Return the precision that the run computes in; None before it began, or if an older version began it.

        Of a run that is over it is that of its result, whatever has become of the file since.

        Raises:
            Damaged: the file of a run that is not over is not as `write_precision` writes it.
        """
        result = self.result()
        if result and (used := result.environment.get("precision")) in _PRECISIONS:
            return str(used)
        fix = "write the precision that the run began in"
        text = read_text(self._precision, fix)
        if text is None:
            return None
        if text.strip() not in _PRECISIONS:
            raise Damaged(self._precision, f"expected {' or '.join(_PRECISIONS)}, found {text.strip()[:40]!r}", fix)
        return text.strip()

    def write_test_correct(self, correct: NDArray[np.bool_]) -> None:
        """Write whether each test image, in the order of the test set, is classified correctly."""
        import numpy as np

        memory = io.BytesIO()
        np.save(memory, correct)
        atomic_files.write_with(self.correct, lambda file: file.write(memory.getbuffer()))

    def test_correct(self) -> NDArray[np.bool_] | None:
        """Return what `write_test_correct` wrote last; None for a run that was never tested, or by an older version.

        For a finished run, it is of the same weights as the metrics `test/*`.

        Raises:
            Damaged: the file is not as `write_test_correct` writes it.
        """
        content = read_bytes(self.correct, self._fix)
        if content is None:
            return None
        import numpy as np

        try:
            correct = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # numpy raises many kinds for damaged files
            reason = f"expected an array of numpy, found something else ({first_line(error)})"
            raise Damaged(self.correct, reason, self._fix) from error
        if not isinstance(correct, np.ndarray) or correct.dtype != bool or correct.ndim != 1 or not correct.size:
            raise Damaged(self.correct, "expected one boolean for each test image, found another array", self._fix)
        return correct

    def finish(self, result: RunResult) -> None:
        """Write the outcome of the run."""
        self.metrics_log.sync()
        atomic_files.write_json(self._result, asdict(result))
        self._failure.unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """Return the outcome of the run; None while it is not over.

        Raises:
            Damaged: result.json is not as `finish` writes it.
        """
        return read_json(self._result, RunResult, self._fix)

    def entries(self) -> list[Entry]:
        """Return the entries of the metrics log; none if there is no log.

        Raises:
            Damaged: as `MetricsLog.entries`; or the log of a run that is over lacks epochs of its result.
        """
        result = self.result()  # first: the metrics log of a run that is over by then is complete
        entries = self.metrics_log.entries()
        if result and self.metrics_log.path.exists():
            self.metrics_log.check_epochs(entries, result.epochs, self._result.name)
        return entries

    def fail(self, reason: str) -> None:
        """Count a failed attempt, and write its traceback or its one-line error."""
        text = redacted(reason).rstrip().encode(errors="backslashreplace").decode()  # file names may not be UTF-8
        atomic_files.write_text(self._failure, f"{_TRIES}{self.failed_tries() + 1}\n{text}\n")

    def failure(self) -> str | None:
        """Return the error of the last attempt; None if it did not fail. Raises Damaged as `failed_tries`."""
        return self._failed()[1]

    def failed_tries(self) -> int:
        """Return the number of failed attempts since the last `forget_failure`.

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
        """Reset the failed attempts; the run then resumes from its checkpoint."""
        self._failure.unlink(missing_ok=True)

    def state(self) -> RunState:
        """Return the state of the run, from its files alone.

        Raises:
            Damaged: result.json is not as `finish` writes it, or the lock cannot be read.
        """
        return self._state_and_result()[0]

    def snapshot(self) -> RunSnapshot:
        """Read the run as it is now; whatever is read of its folder afterwards is at least as new.

        Raises:
            Damaged: run.json is absent, or as `state`.
        """
        state, result = self._state_and_result()
        return RunSnapshot(state, self.record(), result)

    def _state_and_result(self) -> tuple[RunState, RunResult | None]:
        """Return both as of one moment: a run that ends meanwhile writes its result before it releases the lock."""
        result = self.result()
        if result is None:
            state = self._state_without_result()
            result = None if state is RunState.running else self.result()
            if result is None:
                return state, None
        return RunState(result.state), result

    def _state_without_result(self) -> RunState:
        if not self._record.exists():
            return RunState.new
        if self._is_locked():
            return RunState.running
        if self._failure.exists():
            return RunState.failed
        return RunState.partial if self.checkpoint.exists() else RunState.new

    def _is_locked(self) -> bool:
        """Return whether the lock is taken, writing nothing; a process that tries to take it meanwhile retries."""
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


def runs_in(output: Path) -> list[RunFolder]:
    """Return all runs that were planned in an output folder, in the order of their fingerprints."""
    return [RunFolder(path) for path in OutputFolder(output).recorded_runs()]

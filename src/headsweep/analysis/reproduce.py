"""Retrain a run from its frozen configuration and its commit, in a separate folder.

`src/train.py` of that commit, or `headsweep train` of an installed package, trains it in a process of its own, with
every key as an override: the command line of old code is more stable than its functions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headsweep.analysis.compare_runs import Comparison, compare
from headsweep.config import Precision
from headsweep.config.overrides import all_overrides
from headsweep.errors import ConfigError, Interrupted, UserError
from headsweep.folders import IS_INSTALLED, PROJECT_ROOT, code_digest
from headsweep.launch.local.gpus import visible_gpus
from headsweep.launch.signals import StopRequest
from headsweep.plan.code_of_runs import with_packages
from headsweep.plan.frozen import frozen_values
from headsweep.plan.git_state import checked_out, code_version, git_environment, is_here
from headsweep.plan.lookup import checkpoint_digest
from headsweep.plan.packages import packages_used
from headsweep.plan.uncommitted import apply, patch_of
from headsweep.processes import SAFE_PATH
from headsweep.tracking.run_folder import RunFolder, runs_in
from headsweep.tracking.run_record import RunRecord, code_name

POLL_SECONDS = 0.1


def reproduce(original: RunFolder, into: Path, code: str | None, data: Path | None = None) -> Comparison:
    """Retrain a finished run in `into` and compare the two; the original is only read.

    A second call with the same code resumes an interrupted run, or only compares.

    Args:
        original: the run.
        into: a new folder, or that of an earlier call.
        code: "recorded" checks out the commit that planned the run, "changed" also applies the uncommitted changes that
            were stored, "current" uses the working tree; None uses the working tree if it equals that commit.
        data: folder of the images, where it is another one than the recorded `dataset.root`.

    Raises:
        UserError: the run is unfinished or damaged, its code or the weights that it started from are not here, or
            `into` has other content.
        Interrupted: a stop was requested when the training had just ended; the same call compares.
        SystemExit: the training failed or was stopped, with its exit code; it has printed the reason.
    """
    record = original.record()
    if original.result() is None:
        raise UserError(f"{record.name} ({record.fingerprint}) is unfinished: expected a finished run to compare with")
    model = frozen_values(original).model
    _check_weights(model.get("checkpoint"), model.get("checkpoint_digest"))  # before anything is checked out
    if code != "current":
        _check_packages(record)
    with _code(original, record, code) as root:
        changed = code == "changed"
        version = {"commit": record.code["commit"], "dirty": changed} if root != PROJECT_ROOT else code_version()
        _check(into, original, with_packages(version, record.config), may_be_dirty=changed)
        _train(original, into, root, data)
    (again,) = runs_in(into)
    return compare(original, again)


@contextmanager
def _code(original: RunFolder, record: RunRecord, choice: str | None) -> Iterator[Path]:
    """Yield the root of the checkout to train with."""
    commit, dirty = record.code.get("commit"), record.code.get("dirty")
    if choice == "current":
        yield PROJECT_ROOT
    elif choice in ("recorded", "changed"):
        if commit is None:
            raise UserError(f"--code {choice}: the run recorded no commit (it was planned outside a git checkout)")
        patch = patch_of(record, original.output.path)
        if choice == "changed" and patch is None:
            raise UserError("--code changed: no uncommitted changes were stored with the run; use --code recorded")
        with checked_out(commit) as root:
            if choice == "changed" and patch:
                apply(patch, root)
            yield root
    elif (not dirty and is_here(commit)) if commit else record.code.get("digest") == code_digest():
        yield PROJECT_ROOT
    else:
        raise UserError(_other_code(record, patch_of(record, original.output.path)))


def _check_packages(record: RunRecord) -> None:
    """Raise UserError unless the packages that the run used are installed as they were."""
    current = packages_used(record.config)
    for name, version in record.packages.items():
        if (found := current.get(name, "none")) != version:
            expected = f"expected {name} {version}, with which the run was planned, found {found}"
            raise UserError(f"{expected}; install it, or give --code current to use the current code")


def _check_weights(file: str | None, digest: str | None) -> None:
    """Raise UserError unless the file of weights that the run started from, if any, is there and has its SHA-256."""
    if file is None:
        return
    advice = f"copy the file with SHA-256 {digest} there"
    try:
        found = checkpoint_digest(file)
    except ConfigError as error:
        raise UserError(f"{error}; {advice}") from error
    if found != digest:
        expected = f"expected the weights that the run started from, found a file with SHA-256 {found}"
        raise ConfigError("model.checkpoint", file, f"{expected}; {advice}")


def _other_code(record: RunRecord, patch: Path | None) -> str:
    """Return why the working tree is not known to be the run's code, and what to do."""
    commit, dirty = record.code.get("commit"), record.code.get("dirty")
    if commit is None and record.code.get("digest"):
        name = code_name(record.code)
        return f"the run was planned by {name}, whose code differs from this; --code current uses this code"
    if commit is None:
        return "the run recorded no commit, so its code is unknown; --code current uses the working tree"
    if dirty and patch:
        return (
            f"the run was planned with uncommitted changes to {commit[:10]}, stored in {patch}; --code changed uses "
            "that commit with them (read them first if they are another person's: they are executed), --code recorded "
            "the commit without them, --code current the working tree"
        )
    if dirty:
        return (
            f"the run was planned with uncommitted changes to {commit[:10]}, which were not saved: it cannot "
            "be reproduced exactly; --code recorded uses that commit without them, --code current the working tree"
        )
    return (
        f"the run was planned by commit {commit[:10]}, which differs from the working tree; --code recorded "
        "checks it out in a temporary folder, --code current uses the working tree"
    )


def _check(into: Path, original: RunFolder, code: dict[str, object], may_be_dirty: bool) -> None:
    """Raise UserError for a folder with anything but an earlier reproduction by the same code."""
    runs = runs_in(into)
    if original.path.resolve() in [run.path.resolve() for run in runs]:
        raise UserError(f"--into {into}: expected a new folder, found that of the original")
    if len(runs) > 1 or (not runs and into.exists() and any(into.iterdir())):
        raise UserError(f"--into {into}: expected a new or empty folder, found other files")
    found = {key: value for key, value in runs[0].record().code.items() if key != "changes"} if runs else code
    if found != code or (runs and code["dirty"] and not may_be_dirty):
        raise UserError(
            f"--into {into}: expected a reproduction by the same code, found one by other code; "
            "remove it, or give another folder"
        )


def _train(original: RunFolder, into: Path, root: Path, data: Path | None) -> None:
    frozen = frozen_values(original)
    if data is not None:
        frozen.dataset.root = str(data.resolve())
    frozen.tracking.name, frozen.paths.output = "none", str(into.resolve())
    frozen.precision = _precision(original, into, str(frozen.precision), str(frozen.device))
    result = original.result()
    threads = result.environment.get("threads") if result else None
    is_package = IS_INSTALLED and root == PROJECT_ROOT
    found = {SAFE_PATH: "1"} if is_package else {"PYTHONPATH": _search_path(root / "src")}
    environment = {**git_environment(), **found}
    program = ["-m", "headsweep", "train"] if is_package else [str(root / "src" / "train.py")]
    if threads:  # the split of sums over threads decides their last bits
        environment["OMP_NUM_THREADS"] = str(threads)
    code = _run([sys.executable, *program, *all_overrides(frozen, root / "conf")], environment)
    if code:
        raise SystemExit(code)


def _precision(original: RunFolder, into: Path, given: str, device: str) -> str:
    """Return the precision to train in: what `auto` was for the original, where this machine would choose otherwise."""
    if begun := runs_in(into):
        return str(begun[0].record().config["precision"])
    was = original.precision()
    return given if was is None or Precision(given).on(_kind(device)).value == was else was


def _kind(device: str) -> str:
    """Return which kind of device a run would get here."""
    if device != "auto":
        return device.partition(":")[0]
    with suppress(UserError):  # the driver does not answer
        return "cuda" if visible_gpus() else "cpu"
    return "cpu"


def _search_path(source: Path) -> str:
    """Return PYTHONPATH with the code first; it may name the folders of other packages."""
    return os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])])


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command, forward every signal to it, show its stderr, and return its exit code."""
    with StopRequest(insistent=False) as request:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        forwarded = 0
        while process.poll() is None:
            for signal in request.received[forwarded:]:
                process.send_signal(signal)
                forwarded += 1
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    if request.signal is not None and process.returncode <= 0:  # it has printed nothing
        raise Interrupted(request.signal)
    return process.returncode

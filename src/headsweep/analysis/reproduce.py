"""Training a run again from its frozen configuration and its commit, in a folder of its own.

The run is trained by `src/train.py` of that commit, in a process of its own, with every key as an override: old code
is used through its command line, which changes less than what is behind it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headsweep.analysis.compare_runs import Comparison, compare
from headsweep.config import PROJECT_ROOT
from headsweep.config.overrides import in_full
from headsweep.errors import Interrupted, UserError
from headsweep.launch.signals import StopRequest
from headsweep.plan.frozen import frozen_values
from headsweep.plan.git_state import checked_out, code_version, git_environment, is_here
from headsweep.tracking.run_folder import RunFolder, RunRecord, runs_in

POLL_SECONDS = 0.1


def reproduce(original: RunFolder, into: Path, code: str | None) -> Comparison:
    """Train a run that has ended again, in `into`, and compare the two; the original is only read.

    Given again with the same code it goes on where it was stopped, or only compares.

    Args:
        original: the run.
        into: a folder that is new, or holds what an earlier call has trained.
        code: "recorded" checks out the commit that the run was planned with, "current" takes what is here; None takes
            what is here if it is that commit.

    Raises:
        UserError: the run has not ended or is damaged, its code is not here, or `into` holds something else.
        Interrupted: someone asked to stop; the same call goes on.
        SystemExit: the training failed, with its exit code; it has said why.
    """
    record = original.record()
    if original.result() is None:
        raise UserError(f"{record.name} ({record.fingerprint}) has not ended: there is nothing to compare with")
    frozen_values(original)  # before anything is checked out
    with _code(record, code) as root:
        _check(
            into,
            original,
            {"commit": record.code["commit"], "dirty": False} if root != PROJECT_ROOT else code_version(),
        )
        _train(original, into, root)
    (again,) = runs_in(into)
    return compare(original, again)


@contextmanager
def _code(record: RunRecord, choice: str | None) -> Iterator[Path]:
    """The folder of the project whose code is to train."""
    commit, dirty = record.code.get("commit"), record.code.get("dirty")
    if choice == "current":
        yield PROJECT_ROOT
    elif choice == "recorded":
        if commit is None:
            raise UserError("--code recorded: the run recorded no commit (it was planned outside a git checkout)")
        with checked_out(commit) as root:
            yield root
    elif commit and not dirty and is_here(commit):
        yield PROJECT_ROOT
    else:
        raise UserError(_other_code(commit, dirty))


def _other_code(commit: str | None, dirty: bool | None) -> str:
    """Why the code that is here is not known to be the run's, and what can be done."""
    if commit is None:
        return "the run recorded no commit: no code is known to be its own; --code current takes what is here"
    if dirty:
        return (
            f"the run was planned with uncommitted changes to {commit[:10]}, which are lost: it cannot be reproduced "
            "exactly; --code recorded takes that commit without them, --code current what is here"
        )
    return (
        f"the run was planned by code {commit[:10]}, which is not what is here; --code recorded checks it out in a "
        "temporary folder, --code current takes what is here"
    )


def _check(into: Path, original: RunFolder, code: dict[str, object]) -> None:
    """Refuse a folder that holds anything but an earlier reproduction by the same code."""
    runs = runs_in(into)
    if original.path.resolve() in [run.path.resolve() for run in runs]:
        raise UserError(f"--into {into}: holds the original itself; want a new folder")
    if len(runs) > 1 or (not runs and into.exists() and any(into.iterdir())):
        raise UserError(f"--into {into}: is not empty; want a new folder")
    if runs and (runs[0].record().code != code or code["dirty"]):
        raise UserError(f"{into} holds a reproduction by other code; remove it, or give another folder: --into DIR")


def _train(original: RunFolder, into: Path, root: Path) -> None:
    frozen = frozen_values(original)
    frozen.tracking.name, frozen.paths.output = "none", str(into.resolve())
    result = original.result()
    threads = result.environment.get("threads") if result else None
    environment = {**git_environment(), "PYTHONPATH": str(root / "src")}
    if threads:  # sums are split over them: another number would give other last bits
        environment["OMP_NUM_THREADS"] = str(threads)
    code = _run([sys.executable, str(root / "src" / "train.py"), *in_full(frozen, root / "conf")], environment)
    if code:
        raise SystemExit(code)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The exit code of a command, which hears of every signal that comes here; its errors and progress are shown."""
    with StopRequest(insistent=False) as request:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        told = 0
        while process.poll() is None:
            for signal in request.heard[told:]:
                process.send_signal(signal)
                told += 1
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    if request.signal is not None:
        raise Interrupted(request.signal)
    return process.returncode

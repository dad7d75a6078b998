"""Send to MLflow, now and in this process, what it lacks of all runs and sweeps of an output folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from headsweep.credentials import redacted
from headsweep.errors import FailedRunsError, UserError
from headsweep.tracking.mlflow.held_state import HeldState
from headsweep.tracking.mlflow.model import has_model, log_model
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import planned_uri, prepare, reason
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder, runs_in
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of
from headsweep.tracking.tracker import Export, Folder

Place = tuple[str, str]  # address of a store, experiment in it


def sync(
    output: Path,
    uri: str | None,
    experiment: str | None,
    echo: Callable[[str], object],
    export: Export | None = None,
) -> None:
    """Bring MLflow into agreement with the runs and sweeps of an output folder.

    Args:
        output: the folder, `paths.output` of the runs.
        uri: address of the store; None is the one that each run was planned with.
        experiment: name of the experiment; None is the one that each run was planned with.
        echo: prints a line for each run, each sweep and each store.
        export: makes the model of a run; without it, no models are sent.

    Raises:
        UserError: there are no runs, or a store cannot be used.
        FailedRunsError: some runs could not be sent, the others have been.
    """
    runs = runs_in(output)
    if not runs:
        raise UserError(f"no runs in {OutputFolder(output).runs}; give their output folder with --output")
    by_place: dict[Place, list[RunFolder]] = {}
    failed: list[str] = []
    for run in runs:
        try:
            run.sweeps()  # read again below, for all runs at once
            by_place.setdefault(_place(run, output, uri, experiment), []).append(run)
        except (UserError, TypeError, KeyError) as error:
            failed.append(f"{run.path.name}: {error}")
    unusable: list[UserError] = []
    sweeps = 0
    for place, members in by_place.items():
        try:
            folders = _with_sweeps(members)
            sweeps += len(folders) - len(members)
            failed += _sync_all(folders, place, output, echo, export)
        except UserError as error:  # another store may be up
            unusable.append(error)
    if unusable and not failed:
        raise unusable[0]
    if failed:
        failed += map(str, unusable)
        advice = "all others are in MLflow, the same command tries these again"
        raise FailedRunsError(len(runs) + sweeps, failed, advice, "runs and sweeps")


def _place(run: RunFolder, output: Path, uri: str | None, experiment: str | None) -> Place:
    config = run.record().config
    return uri or planned_uri(config, output), experiment or config["tracking"]["experiment"]


def _with_sweeps(runs: list[RunFolder]) -> list[Folder]:
    """Return the runs and, before them, their sweeps."""
    return [*{sweep.path: sweep for run in runs for sweep in sweeps_of(run)}.values(), *runs]


def _sync_all(
    folders: list[Folder], place: Place, output: Path, echo: Callable[[str], object], export: Export | None
) -> list[str]:
    """Send what one store lacks; return the runs and sweeps that could not be sent, each with the reason."""
    uri, experiment = place
    failed, changed = [], 0
    experiment_id = _prepare(uri, experiment, output)
    for name, folder in _named(folders):
        try:
            held = reconcile(folder, uri, experiment_id)
            if held and export and isinstance(folder, RunFolder) and _should_have_model(folder):
                held.sent["models"] = int(log_model(folder, uri, export))
        except Exception as error:  # of a damaged folder, or of a store that went away, which is raised here
            _prepare(uri, experiment, output)
            failed.append(f"{name.rstrip()}: {reason(error, uri)}  ({folder.path})")
            continue
        echo(f"{name}  {_summary(held) if held else 'has no metrics yet'}")
        changed += held is not None and held.sent.total() > 0
    echo(f"{redacted(uri)}, experiment {experiment}: {changed} of {len(folders)} had changes")
    return failed


def _should_have_model(run: RunFolder) -> bool:
    """Return whether it has a model and was planned to log it, as runs were that have no such key."""
    return bool(run.record().config["tracking"].get("models", True)) and has_model(run)


def _named(folders: list[Folder]) -> Iterator[tuple[str, Folder]]:
    """Return each folder with its name, padded to equal width."""
    names = [folder.name if isinstance(folder, SweepFolder) else folder.record().name for folder in folders]
    return zip((name.ljust(max(map(len, names))) for name in names), folders, strict=True)


def _prepare(uri: str, experiment: str, output: Path) -> str:
    try:
        return prepare(uri, experiment, output)
    except Exception as error:  # of a store, a driver or a network
        raise UserError(
            f"MLflow at {redacted(uri)} cannot be used ({reason(error, uri)}); start it or give another address with "
            "--uri, then run the command again: nothing is lost"
        ) from error


def _summary(held: HeldState) -> str:
    if held.belongs_to_original:
        return "nothing to send: this is a copy, and its original is ahead of it"
    sent = held.sent
    counts = [f"{number} {kind}" for kind, number in sent.items() if number and kind not in ("new", "status")]
    parts = [*(["new run"] if sent["new"] else []), *counts, *(["status"] if sent["status"] else [])]
    return ", ".join(parts) or "nothing to send"

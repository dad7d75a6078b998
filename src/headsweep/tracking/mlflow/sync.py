"""Replay every run folder into MLflow, now and in this process: what a store lacks of them, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from headsweep.credentials import hidden
from headsweep.errors import FailedRunsError, UserError
from headsweep.tracking.mlflow.held_state import Attachment
from headsweep.tracking.mlflow.model import Build, has_model, log_model
from headsweep.tracking.mlflow.reconcile import Folder, project
from headsweep.tracking.mlflow.store import planned_uri, prepare, reason
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of

Place = tuple[str, str]  # address of a store, experiment in it


def sync(
    output: Path, uri: str | None, experiment: str | None, say: Callable[[str], object], build: Build | None = None
) -> None:
    """Bring MLflow into agreement with the runs and sweeps of an output folder.

    Args:
        output: the folder, `paths.output` of the runs.
        uri: address of the store; None is the one that each run was planned with.
        experiment: name of the experiment; None is the one that each run was planned with.
        say: hears a line for each run, each sweep and each store.
        build: makes the model of a run; without it, no models are sent.

    Raises:
        UserError: there are no runs, or a store cannot be used.
        FailedRunsError: some runs could not be sent, the others have been.
    """
    runs = [RunFolder(path.parent) for path in sorted(output.glob("runs/*/run.json"))]
    if not runs:
        raise UserError(f"no runs in {output / 'runs'}; say with --output where they are (paths.output)")
    places: dict[Place, list[RunFolder]] = {}
    failed: list[str] = []
    for run in runs:
        try:
            run.sweeps()  # read below for all of them
            places.setdefault(_place(run, output, uri, experiment), []).append(run)
        except (UserError, TypeError, KeyError) as error:
            failed.append(f"{run.path.name}: {error}")
    unusable: list[UserError] = []
    sweeps = 0
    for place, theirs in places.items():
        try:
            folders = _folders(theirs)
            sweeps += len(folders) - len(theirs)
            failed += _sync_all(folders, place, output, say, build)
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


def _folders(runs: list[RunFolder]) -> list[Folder]:
    """The runs and, before them, their sweeps."""
    return [*{sweep.path: sweep for run in runs for sweep in sweeps_of(run)}.values(), *runs]


def _sync_all(
    folders: list[Folder], place: Place, output: Path, say: Callable[[str], object], build: Build | None
) -> list[str]:
    """Send what one store lacks; the runs and sweeps that could not be sent, each with the reason."""
    uri, experiment = place
    failed, changed = [], 0
    experiment_id = _open(uri, experiment, output)
    for name, folder in _named(folders):
        try:
            held = project(folder, uri, experiment_id)
            if held and build and isinstance(folder, RunFolder) and _is_to_have_model(folder):
                held.sent["models"] = int(log_model(folder, uri, build))
        except Exception as error:  # a damaged folder; a store that went away says so here
            _open(uri, experiment, output)
            failed.append(f"{name.rstrip()}: {reason(error, uri)}  ({folder.path})")
            continue
        say(f"{name}  {_said(held) if held else 'has no metrics yet'}")
        changed += held is not None and held.sent.total() > 0
    say(f"{hidden(uri)}, experiment {experiment}: {changed} of {len(folders)} had news")
    return failed


def _is_to_have_model(run: RunFolder) -> bool:
    """Has it one, and was it planned to have it logged? Runs that were planned before that was asked are."""
    return bool(run.record().config["tracking"].get("models", True)) and has_model(run)


def _named(folders: list[Folder]) -> Iterator[tuple[str, Folder]]:
    """Each folder with its name, as wide as the widest."""
    names = [folder.name if isinstance(folder, SweepFolder) else folder.record().name for folder in folders]
    return zip((name.ljust(max(map(len, names))) for name in names), folders, strict=True)


def _open(uri: str, experiment: str, output: Path) -> str:
    try:
        return prepare(uri, experiment, output)
    except Exception as error:  # whatever a store, a driver or a network does
        raise UserError(
            f"MLflow at {hidden(uri)} cannot be used ({reason(error, uri)}); start it or say another with --uri, "
            "then give the command again: nothing is lost"
        ) from error


def _said(held: Attachment) -> str:
    if held.is_lent:
        return "nothing to send: the folder that it is a copy of is ahead of it"
    sent = held.sent
    counts = [f"{number} {kind}" for kind, number in sent.items() if number and kind not in ("new", "status")]
    words = [*(["new run"] if sent["new"] else []), *counts, *(["status"] if sent["status"] else [])]
    return ", ".join(words) or "nothing to send"

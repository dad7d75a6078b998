"""Replay every run folder into MLflow, now and in this process: what a store lacks of them, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from headsweep.errors import FailedRunsError, UserError
from headsweep.tracking.mlflow_model import Build, has_model, log_model
from headsweep.tracking.mlflow_run import Folder, project
from headsweep.tracking.mlflow_store import default_uri, prepare, reason, shown
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
    for place, theirs in places.items():
        failed += _sync_all(theirs, place, output, say, build)
    if failed:
        raise FailedRunsError(len(runs), failed, "all others are in MLflow, the same command tries these again")


def _place(run: RunFolder, output: Path, uri: str | None, experiment: str | None) -> Place:
    tracking = run.record().config["tracking"]
    return uri or tracking["uri"] or default_uri(output), experiment or tracking["experiment"]


def _sync_all(
    runs: list[RunFolder], place: Place, output: Path, say: Callable[[str], object], build: Build | None
) -> list[str]:
    """Send what one store lacks; the runs that could not be sent, each with the reason."""
    uri, experiment = place
    failed, changed = [], 0
    experiment_id = _open(uri, experiment, output)
    sweeps = {sweep.path: sweep for run in runs for sweep in sweeps_of(run)}
    for name, folder in _named([*sweeps.values(), *runs]):
        try:
            held = project(folder, uri, experiment_id)
            if held and build and isinstance(folder, RunFolder) and _is_to_have_model(folder):
                held.sent["models"] = int(log_model(folder, uri, build))
        except Exception as error:  # a damaged folder; a store that went away says so here
            _open(uri, experiment, output)
            failed.append(f"{name.rstrip()}: {reason(error, uri)}")
            continue
        say(f"{name}  {_said(held.sent) if held else 'has no metrics yet'}")
        changed += held is not None and held.sent.total() > 0
    say(f"{shown(uri)}, experiment {experiment}: {changed} of {len(sweeps) + len(runs)} had news")
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
            f"MLflow at {shown(uri)} cannot be used ({reason(error, uri)}); start it or say another with --uri, "
            "then give the command again: nothing is lost"
        ) from error


def _said(sent: Counter[str]) -> str:
    counts = [f"{number} {kind}" for kind, number in sent.items() if number and kind not in ("new", "status")]
    words = [*(["new run"] if sent["new"] else []), *counts, *(["status"] if sent["status"] else [])]
    return ", ".join(words) or "nothing to send"

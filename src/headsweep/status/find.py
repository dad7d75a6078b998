"""Find sweeps and runs by their names, or by how these begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headsweep.errors import UserError
from headsweep.folders import TRAIN
from headsweep.status.read import last_change, read_run
from headsweep.status.views import RunView
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

NO_RUNS_YET = f"start one with `{' '.join(TRAIN)} -m head=seqpool,ga heads=1,4`"


def sweep_folders(output: Path) -> list[Path]:
    """Return the folders of all sweeps in the output folder."""
    return OutputFolder(output).planned_sweeps()


def find_sweep(name: str, output: Path) -> Path:
    """Return the folder of a sweep; `name` is its name or the beginning of it, or "latest".

    Raises:
        UserError: there is none, or there are several.
    """
    if not name.strip():
        raise UserError("the name of a sweep is empty: expected its name, the beginning of it, or latest")
    known = {folder.name: folder for folder in sweep_folders(output)}
    if not known:
        raise UserError(f"no sweep in {output} (see --output); {NO_RUNS_YET}")
    if name == "latest":
        return max(known.values(), key=_last_active)
    found = [name] if name in known else sorted(other for other in known if other.startswith(name))
    if len(found) != 1:
        which = f"matches {', '.join(found)}" if found else f"no such sweep; known: {', '.join(sorted(known))}"
        raise UserError(f"{name}: {which}")
    return known[found[0]]


def find_run(name: str, output: Path) -> RunFolder:
    """Return a run; `name` is its fingerprint or name, or the beginning of one.

    Raises:
        UserError: there is none, or there are several.
    """
    if not name.strip():
        raise UserError("the name of a run is empty: expected its fingerprint or name, or the beginning of one")
    runs = [read_run(RunFolder(path)) for path in sorted(OutputFolder(output).runs.glob("*")) if path.is_dir()]
    if not runs:
        raise UserError(f"no run in {output} (see --output); {NO_RUNS_YET}")
    for matches in (_is_exactly, _begins):
        found = [run for run in runs if matches(run, name)]
        if len(found) == 1:
            return found[0].folder
        if found:
            several = ", ".join(f"{run.folder.path.name} ({run.name})" for run in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise UserError(f"{name}: matches {several}{more}; give more of the fingerprint")
    raise UserError(f"{name}: no run of that fingerprint or name in {output}; `headsweep status SWEEP` lists them")


def find_each(names: Sequence[str], output: Path) -> list[RunFolder]:
    """Return the runs that `names` stand for: sweeps (see `find_sweep`) or single runs (see `find_run`).

    Raises:
        UserError: a name is neither, or ambiguous, or the plan of the sweep is damaged.
    """
    sweeps = [folder.name for folder in sweep_folders(output)]
    found: dict[Path, RunFolder] = {}
    for name in names:
        is_sweep = name == "latest" or any(sweep.startswith(name) for sweep in sweeps)
        folders = SweepFolder(find_sweep(name, output)).planned() if is_sweep else [find_run(name, output)]
        found |= {folder.path: folder for folder in folders}
    return list(found.values())


def _is_exactly(run: RunView, name: str) -> bool:
    return name in (run.folder.path.name, run.name)


def _begins(run: RunView, name: str) -> bool:
    return run.folder.path.name.startswith(name) or run.name.startswith(name)


def _last_active(sweep: Path) -> float:
    try:
        return last_change(sweep, SweepFolder(sweep).planned())
    except Damaged:
        return last_change(sweep, ())

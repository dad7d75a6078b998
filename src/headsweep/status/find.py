"""Find sweeps and runs by their names, or by how these begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headsweep.errors import UserError
from headsweep.folders import TRAIN
from headsweep.selection import refuse_selection
from headsweep.status.read import last_change, read_run
from headsweep.status.views import RunView
from headsweep.tracking.output_folder import RUN_RECORD, OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

EXPLAIN = "`headsweep explain KEY=VALUE` shows the runs of cells"
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
    if name not in known:
        refuse_selection(name, "the name of a sweep, the beginning of it, or latest", EXPLAIN)
    found = [name] if name in known else sorted(other for other in known if other.startswith(name))
    if len(found) != 1:
        which = f"matches {', '.join(found)}" if found else f"no such sweep; known: {', '.join(sorted(known))}"
        raise UserError(f"{name}: {which}")
    return known[found[0]]


def find_run(name: str, output: Path) -> RunFolder:
    """Return a run; `name` is its folder, its fingerprint or name, or the beginning of one of these two.

    A folder may be in another output folder.

    Raises:
        UserError: there is none, or there are several.
    """
    return find_among(name, OutputFolder(output).runs, f"{output}", "--output")


def find_among(name: str, runs: Path, where: str, option: str) -> RunFolder:
    """As `find_run`, in the folder `runs`; messages name it as `where`, and the option that gives it."""
    if not name.strip():
        raise UserError("the name of a run is empty: expected its fingerprint or name, or the beginning of one")
    if (folder := folder_of_run(name)) is not None:
        return folder
    views = [read_run(RunFolder(path)) for path in sorted(runs.glob("*")) if path.is_dir()]
    if not views:
        raise UserError(f"no run in {where} (see {option}); {NO_RUNS_YET}")
    refuse_selection(name, "the fingerprint, name or folder of a run", EXPLAIN)
    for matches in (_is_exactly, _begins):
        found = [run for run in views if matches(run, name)]
        if len(found) == 1:
            return found[0].folder
        if found:
            several = ", ".join(f"{run.folder.path.name} ({run.name})" for run in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise UserError(f"{name}: matches {several}{more}; give more of the fingerprint")
    raise UserError(f"{name}: no run of that fingerprint or name in {where}; `headsweep status SWEEP` lists them")


def folder_of_run(name: str) -> RunFolder | None:
    """Return the run whose folder has the path `name`; None if there is no such folder.

    Raises:
        UserError: the folder is not that of a run.
    """
    try:
        folder = RunFolder(Path(name).resolve())
        if not folder.path.is_dir():
            return None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a link to itself
        return None
    if folder.config.exists() or (folder.path / RUN_RECORD).exists():
        return folder
    if "/" in name:
        raise UserError(f"{name}: expected the folder of a run, found no {folder.config.name} there")
    return None


def find_each(names: Sequence[str], output: Path) -> list[RunFolder]:
    """Return the runs that `names` stand for: sweeps (see `find_sweep`) or single runs (see `find_run`).

    Raises:
        UserError: a name is neither, or ambiguous, or names a run in another output folder, or the plan of the sweep is
            damaged.
    """
    sweeps = [folder.name for folder in sweep_folders(output)]
    found: dict[Path, RunFolder] = {}
    for name in names:
        is_sweep = name == "latest" or any(sweep.startswith(name) for sweep in sweeps)
        folders = SweepFolder(find_sweep(name, output)).planned() if is_sweep else [_run_in(name, output)]
        found |= {folder.path: folder for folder in folders}
    return list(found.values())


def _run_in(name: str, output: Path) -> RunFolder:
    """As `find_run`, for a run that is in the output folder."""
    run = find_run(name, output)
    if run.output.path.resolve() != output.resolve():
        raise UserError(f"{name}: expected a run in {output}, found one in {run.output.path}; give that as --output")
    return run


def _is_exactly(run: RunView, name: str) -> bool:
    return name in (run.folder.path.name, run.name)


def _begins(run: RunView, name: str) -> bool:
    return run.folder.path.name.startswith(name) or run.name.startswith(name)


def _last_active(sweep: Path) -> float:
    try:
        return last_change(sweep, SweepFolder(sweep).planned())
    except Damaged:
        return last_change(sweep, ())

"""Copy what the table of a sweep rests on to an output folder that is to travel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from headsweep.analysis.bundle.anonymous import Anonymizer, neutral_places
from headsweep.config.yaml_files import read_yaml
from headsweep.plan.frozen import frozen
from headsweep.plan.uncommitted import patch_of
from headsweep.tracking.inspection import FOLDER as INSPECTION
from headsweep.tracking.output_folder import RUN_RECORD, SWEEP_PLAN, OutputFolder
from headsweep.tracking.run_folder import FAILURE, PRECISION, RESULT, SWEEPS, RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sweep_folder import SCREENING, SweepFolder
from headsweep.tracking.typed_files import Damaged


def unfinished(sweep: SweepFolder) -> list[str]:
    """Return what each planned run lacks that is not over, as `NAME or FINGERPRINT: state`."""
    return [f"{run.path.name}: {state}" for run in sweep.planned() if (state := _lacks(run, sweep))]


def _lacks(run: RunFolder, sweep: SweepFolder) -> str:
    try:
        state = run.state()
        if state in (RunState.finished, RunState.diverged):
            frozen(run)  # raises for a file that was changed
            return ""
        if not (run.path / RUN_RECORD).exists():
            return "its folder was removed"
        screening = sweep.screening()
        is_out = state is RunState.partial and screening and screening.last_round(run.record().group)
        return "" if is_out else state.label
    except Damaged as error:
        return str(error)


def planned_outputs(sweep: SweepFolder) -> list[Path]:
    """Return the output folders that its runs were planned in: the folder may have been moved since."""
    found = [run.record().config.get("paths", {}).get("output") for run in sweep.runs() if run.damage() is None]
    return [Path(output) for output in dict.fromkeys(found) if output]


def stage(sweep: SweepFolder, place: OutputFolder, clean: Anonymizer) -> list[RunFolder]:
    """Copy the records of a sweep and of its readable runs, without weights; return the runs."""
    target = place.sweeps / sweep.name
    target.mkdir(parents=True)
    for name in (SWEEP_PLAN, SCREENING):
        if (sweep.path / name).is_file():
            (target / name).write_text(clean.json((sweep.path / name).read_text()))
    return [run for run in sweep.runs() if run.damage() is None and _stage_run(run, sweep, place, clean)]


def _stage_run(run: RunFolder, sweep: SweepFolder, place: OutputFolder, clean: Anonymizer) -> bool:
    target = place.runs / run.path.name
    target.mkdir(parents=True)
    record = json.loads((run.path / RUN_RECORD).read_text())
    record["config"] = neutral_places(record["config"])
    (target / RUN_RECORD).write_text(clean.json(json.dumps(record)))
    (target / run.config.name).write_text(_config(run))
    if run.result() is not None:
        (target / RESULT).write_text(clean.json((run.path / RESULT).read_text()))
    if (run.path / FAILURE).is_file():
        (target / FAILURE).write_text(clean.text((run.path / FAILURE).read_text()))
    for name, path in _files(run):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(path.read_bytes())
    (target / SWEEPS).write_text(f"{sweep.name}\n")
    if run.state() in (RunState.partial, RunState.running):
        (target / run.checkpoint.name).touch()  # its presence means that the run was begun
    _stage_patch(run, place, clean)
    return True


def _config(run: RunFolder) -> str:
    values = OmegaConf.to_container(read_yaml(run.config_text()))
    assert isinstance(values, dict)
    return OmegaConf.to_yaml(OmegaConf.create(neutral_places({str(key): item for key, item in values.items()})))


def _files(run: RunFolder) -> Iterator[tuple[str, Path]]:
    """Yield the files that are copied unchanged: numbers, and a head in a plain file, whose digest is recorded."""
    for path in (run.metrics_log.path, run.path / PRECISION, run.correct, run.head):
        if path.is_file():
            yield path.name, path
    for path in sorted((run.path / INSPECTION).glob("*")):
        if path.suffix in (".json", ".png") and path.is_file():
            yield f"{INSPECTION}/{path.name}", path


def _stage_patch(run: RunFolder, place: OutputFolder, clean: Anonymizer) -> None:
    patch = patch_of(run.record(), run.output.path)
    if patch is not None:
        target = place.patch(patch.stem)
        target.parent.mkdir(exist_ok=True)
        target.write_text(clean.text(patch.read_text(errors="backslashreplace")))


def weights(runs: list[RunFolder]) -> dict[str, Path]:
    """Return name in the output folder -> file of the weights of runs."""
    files = [path for run in runs for path in (run.checkpoint, run.best) if path.is_file()]
    return {f"runs/{path.parent.name}/{path.name}": path for path in files}

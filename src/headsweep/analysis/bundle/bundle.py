"""The bundle of a sweep: its records, the table and report made from them, and what a reader needs beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from headsweep.analysis.bundle import archive
from headsweep.analysis.bundle.anonymous import Anonymizer
from headsweep.analysis.bundle.checklists import checklists
from headsweep.analysis.bundle.records import planned_outputs, stage, unfinished, weights
from headsweep.errors import UserError
from headsweep.report.formats import files
from headsweep.report.html import document
from headsweep.report.html.origin import origin_of
from headsweep.report.request import Location, Request
from headsweep.report.table.model import Table
from headsweep.text import plural, shortened
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import NullTracker

MOST_NAMED = 3  # unfinished runs

_STATES = {
    (True, True): " with uncommitted changes",
    (False, True): " with uncommitted changes, which were not stored",
    (False, False): "",
}
_README = """\
# {name}

A bundle of headsweep: {runs} of a sweep, its table and report, and what its numbers rest on. It is an output folder, so
with headsweep installed these commands read it, from this folder:

    headsweep table {name} --mark --output .
    headsweep table --verify sweeps/{name}/table.tex --output .
    headsweep report {name} --output .
    headsweep reproduce {fingerprint} --output .{code}

| file | content |
| --- | --- |
| `sweeps/{name}/table.md`, `.csv`, `.tex` | the comparison |
| `sweeps/{name}/report/` | the report with its figures |
| `sweeps/{name}/plan.json` | axes, design, runs and commands of the sweep |
| `runs/FINGERPRINT/` | configuration, metrics by epoch, result, and which test images are classified correctly |
| `commands.txt` | the commands that planned the sweep |
| `environment.json` | hardware and versions of each run |
| `checklists.md` | the reproducibility checklists of NeurIPS and ACL with the numbers of this sweep |
| `changes/` | changes to the code that were not committed, if there were any |

Code: {versions}.
{weights}
Addresses of stores, folders, names of users and whatever looks like a password were removed. To reproduce a run whose
images are in a folder, name it: `headsweep reproduce RUN --data FOLDER`.
{started_from}"""
_STARTED_FROM = """
The runs started from weights that are not included. `headsweep reproduce`, `inspect` and `export` need them here:

| file, in this folder | SHA-256 |
| --- | --- |
{rows}
"""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle: name in it -> file."""

    records: dict[str, Path]
    weights: dict[str, Path]

    @property
    def record_bytes(self) -> int:
        """Size of the records, before compression."""
        return sum(path.stat().st_size for path in self.records.values())

    @property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum(path.stat().st_size for path in self.weights.values())


def check_finished(sweep: SweepFolder) -> None:
    """Raise UserError if a planned run is not over."""
    lacking, planned = unfinished(sweep), plural(len(sweep.plan()["runs"]), "run")
    if lacking:
        raise UserError(
            f"{len(lacking)} of {planned} of {sweep.name} have not finished "
            f"({shortened(lacking, MOST_NAMED)}); train them, or give --partial to bundle them as they are"
        )


@contextmanager
def prepared(sweep: SweepFolder, with_weights: bool) -> Iterator[Contents]:
    """Prepare the files of a bundle in a temporary folder, which is removed at the end.

    Raises:
        UserError: the sweep has no run with a record.
        OSError: the disk of temporary files is full.
    """
    with TemporaryDirectory(prefix="headsweep-") as folder:
        place = OutputFolder(Path(folder))
        clean = Anonymizer([sweep.output.path, *planned_outputs(sweep)])
        runs = stage(sweep, place, clean)
        if not runs:
            raise UserError(f"{sweep.name}: expected runs with a record, found none")
        _write_texts(SweepFolder(place.sweeps / sweep.name), place, runs, with_weights, clean)
        own = {str(file.relative_to(folder)): file for file in sorted(Path(folder).rglob("*")) if file.is_file()}
        yield Contents(own, weights(runs))


def write(contents: Contents, sweep: SweepFolder, path: Path, with_weights: bool) -> None:
    """Write the archive. Raises OSError if a disk is full; `path` is then unchanged."""
    archive.write(path, sweep.name, {**contents.records, **(contents.weights if with_weights else {})})


def _write_texts(
    staged: SweepFolder, place: OutputFolder, runs: list[RunFolder], with_weights: bool, clean: Anonymizer
) -> None:
    """Write what is made from the records: from the copies, so that the reader's commands make the same."""
    request = Request(staged.name, mark=True)
    location = Location(place.path, NullTracker())
    table = request.table(location)
    files.write(table, staged.path)
    (staged.path / "table.tex").write_text(request.text(table, "latex"), encoding="utf-8")
    made_by = f"headsweep report {staged.name}"
    document.write(request.table(location, over_images=True), origin_of(staged), made_by, staged.report.parent)
    commands = [clean.text(command) for command in staged.commands()]
    (place.path / "commands.txt").write_text("".join(f"{command}\n" for command in commands))
    (place.path / "environment.json").write_text(_environment(table))
    (place.path / "checklists.md").write_text(checklists(table, staged.name), encoding="utf-8")
    (place.path / "README.md").write_text(_readme(table, staged.name, runs, with_weights), encoding="utf-8")


def _environment(table: Table) -> str:
    found = {
        run.record.fingerprint: run.result.environment
        for cell in table.cells
        for run in cell.runs
        if run.result is not None
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _readme(table: Table, name: str, runs: list[RunFolder], with_weights: bool) -> str:
    records = [run.record for cell in table.cells for run in cell.runs]
    changed, dirty = (any(record.code.get(key) for record in records) for key in ("changes", "dirty"))
    commits = sorted({str(record.code.get("commit") or "unknown") for record in records})
    sentence = "Weights are included.\n" if with_weights else "Weights are not included.\n"
    return _README.format(
        name=name,
        runs=plural(len(runs), "run"),
        fingerprint=records[0].fingerprint,
        code=" --code changed" if changed else " --code recorded" if records[0].code.get("commit") else "",
        versions=", ".join(commits) + _STATES[changed, dirty],
        weights=sentence,
        started_from=_started_from(records),
    )


def _started_from(records: Sequence[RunRecord]) -> str:
    """Return where the files of weights belong that runs started from; their paths are those in the bundle."""
    models = [record.config.get("model") or {} for record in records]
    files = sorted({(it["checkpoint"], it["checkpoint_digest"]) for it in models if it.get("checkpoint")})
    rows = "\n".join(f"| `{file}` | {digest} |" for file, digest in files)
    return _STARTED_FROM.format(rows=rows) if files else ""

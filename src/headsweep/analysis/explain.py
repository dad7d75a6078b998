"""Trace a cell of a table to its runs, seeds, commits, folders, and the commands that retrain them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from headsweep.config import RunConfig
from headsweep.config.overrides import OverrideFinder, Overrides, all_overrides, command, words
from headsweep.config.study.expansion import composer
from headsweep.config.values import read_words
from headsweep.credentials import redacted
from headsweep.errors import UserError
from headsweep.folders import CONF, code_digest, default_output
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.frozen import frozen, frozen_values
from headsweep.plan.git_state import is_here
from headsweep.plan.uncommitted import patch_of
from headsweep.report.read.axes import varying_axes
from headsweep.report.read.cells import Cell, Run, read_cells, skip_damaged
from headsweep.report.read.select import cell_name, select_cells
from headsweep.report.stats.inference import estimate
from headsweep.report.table.columns import metric_entry
from headsweep.report.table.metrics import PERCENT
from headsweep.selection import is_condition
from headsweep.status.find import find_sweep, folder_of_run
from headsweep.tracking.design import Design
from headsweep.tracking.metric_names import TEST_TOP1, TEST_TOP5, VAL_TOP1
from headsweep.tracking.run_folder import RunFolder, runs_in
from headsweep.tracking.run_record import RunRecord, code_name
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.trackers import tracked_as
from headsweep.tracking.typed_files import Damaged

_METRICS = (TEST_TOP1, TEST_TOP5, VAL_TOP1)


def explain(given: Sequence[str], sweep: str | None, output: Path) -> tuple[str, tuple[Damaged, ...]]:
    """Return the origin of the numbers of cells, and the damage of runs that were left out.

    Args:
        given: words KEY=VALUE that select cells of a sweep; or one of the cell's runs (its folder, or a prefix of its
            fingerprint or name), or a prefix of the cell's group.
        sweep: as in `find_sweep`; None: words select from the latest sweep, a run is sought among all.
        output: the output folder.

    Raises:
        UserError: there is no such cell.
    """
    by_run = len(given) == 1 and not is_condition(given[0])
    if by_run:
        own = folder_of_run(given[0])
        output = own.output.path if own else output
        folders = SweepFolder(find_sweep(sweep, output)).runs() if sweep else runs_in(output)
        screening, design = None, Design()
        alike, unread = _of_run(own.path.name if own else given[0], folders, str(sweep or output))
    else:
        folder = SweepFolder(find_sweep(sweep or "latest", output))
        alike, unread, screening, design = folder.runs(), (), folder.screening(), folder.design()

    def make(left: Sequence[RunFolder], damages: tuple[Damaged, ...]) -> tuple[str, tuple[Damaged, ...]]:
        cells = read_cells(left, screening, design.variants)
        chosen = cells if by_run else select_cells(cells, read_words(given))
        axes = varying_axes(cells, by_variants=design.variant_keys)
        with composer() as compose:
            finder = OverrideFinder(compose)
            return "\n\n".join(_cell(cell, axes, finder, output) for cell in chosen), (*unread, *damages)

    return skip_damaged(alike, make)


def _of_run(beginning: str, folders: Sequence[RunFolder], where: str) -> tuple[list[RunFolder], tuple[Damaged, ...]]:
    """Return the runs of the one cell whose group, or one of whose runs, has the prefix; and unreadable candidates."""
    if not beginning.strip():
        raise UserError("the name of a run is empty: expected its fingerprint, name or folder, or KEY=VALUE")
    records, unread = {}, []
    for folder in folders:
        try:
            records[folder] = folder.record()
        except Damaged as error:
            unread += [error] * folder.path.name.startswith(beginning)
    names = {(it.group, name) for it in records.values() for name in (it.group, it.fingerprint, it.name)}
    exactly = {group for group, name in names if name == beginning}
    groups = exactly or {group for group, name in names if name.startswith(beginning)}
    if unread and not groups:
        raise unread[0]
    if len(groups) != 1:
        what = (
            f"ambiguous: {', '.join(sorted(groups)[:5])}" if groups else "no run or cell has this fingerprint or name"
        )
        raise UserError(f"{beginning}: {what} in {where}; `headsweep status SWEEP` lists runs")
    alike = [folder for folder, record in records.items() if record.group in groups]
    return sorted(alike, key=lambda folder: records[folder].seed), tuple(unread)


def _cell(cell: Cell, axes: Sequence[str], finder: OverrideFinder, output: Path) -> str:
    record = cell.record
    lines = [f"{cell_name(cell, axes)}  group {record.group}, sweep {record.sweep}"]
    for metric in _METRICS:
        by_seed = cell.by_seed(metric)
        if by_seed:
            mean = metric_entry(estimate(list(by_seed.values())), PERCENT)
            values = ", ".join(f"{100 * value:.{mean.decimals}f}" for value in by_seed.values())
            lines.append(f"  {metric:10}  {mean.text} %, n = {len(by_seed)}  of {values}")
    cost = record.cost
    if {"parameters", "head_parameters", "flops"} <= cost.keys():
        head = f"{cost['head_parameters']:,} in the head"
        lines.append(f"  cost        {cost['parameters']:,} parameters ({head}), {cost['flops']:,} FLOPs per image")
    for run in cell.runs:
        lines += ["", *_run(run)]
    return "\n".join([*lines, "", *_again(cell, finder, output)])


def _run(run: Run) -> list[str]:
    record, result, folder = run.record, run.result, run.folder
    assert folder is not None, "read from folders"
    top1 = f", {TEST_TOP1} {100 * result.metrics[TEST_TOP1]:.2f} %" if result and TEST_TOP1 in result.metrics else ""
    lines = [f"run {record.fingerprint}  seed {record.seed}, {run.screened_out or run.state.value}{top1}"]
    later = f", then {names}" if (names := record.code.get("continued")) else ""
    packages = "".join(f", {name} {version}" for name, version in record.packages.items())
    lines += [f"  folder    {folder.path}", f"  code      {_code(record, folder)}{packages}{later}"]
    moments = [entry.clock["time"] for entry in folder.metrics_log.entries() if "time" in entry.clock]
    if moments:
        took = (
            f", {result.clock['train_seconds']:.0f} s of training" if result and "train_seconds" in result.clock else ""
        )
        lines.append(f"  last log  {time.strftime('%Y-%m-%d %H:%M', time.localtime(moments[-1]))}{took}")
    if result and result.environment:
        lines.append(f"  machine   {_machine(result.environment)}")
    if precision := folder.precision():
        chosen = ", chosen by precision=auto" if record.config.get("precision") == "auto" else ""
        lines.append(f"  precision {precision}{chosen}")
    if place := _tracked(folder):
        lines.append(f"  MLflow    {place}")
    return lines


def _code(record: RunRecord, folder: RunFolder) -> str:
    commit: str | None = record.code.get("commit")
    if commit is None:
        return code_name(record.code) if "digest" in record.code else "no commit recorded"
    if not record.code.get("dirty"):
        return commit
    return f"{commit} with uncommitted changes, {patch_of(record, folder.output.path) or 'which were not saved'}"


def _machine(environment: dict[str, Any]) -> str:
    numbers = [f"{environment[key]} {key}" for key in ("threads", "ranks") if key in environment]
    versions = [f"{key} {environment[key]}" for key in ("torch", "cuda", "python") if environment.get(key)]
    return ", ".join([str(environment.get("device", "unknown device")), *numbers, *versions])


def _tracked(folder: RunFolder) -> str | None:
    """Return where a tracker has the run, if it was sent to one."""
    try:
        return tracked_as(folder)
    except Damaged as error:
        return str(error)


def _again(cell: Cell, finder: OverrideFinder, output: Path) -> list[str]:
    """Return the commands that retrain the runs of a cell, grouped by code and overrides."""
    by_origin: dict[tuple[str, ...], list[Run]] = {}
    for run in cell.runs:
        by_origin.setdefault(_origin(run, finder, output), []).append(run)
    lines = ["Command that trains what is missing of these runs:"]
    for origin, runs in by_origin.items():
        *overrides, checkout, caveat = origin
        seeds = ",".join(str(run.record.seed) for run in runs)
        lines += [f"  {checkout}"] * bool(checkout)
        lines += [f"  {command([*overrides, f'seed={seeds}'], grid=len(runs) > 1)}"] if overrides else []
        lines += [f"  ({caveat})"] * bool(caveat)
    elsewhere = " --code recorded" * any(origin[-2] for origin in by_origin)
    place = "" if output.resolve() == default_output().resolve() else f" --output {shlex.quote(str(output))}"
    return [
        *lines,
        "Command that retrains in a separate folder and compares:",
        f"  headsweep reproduce {cell.record.fingerprint}{elsewhere}{place}",
    ]


def _origin(run: Run, finder: OverrideFinder, output: Path) -> tuple[str, ...]:
    """Return the overrides of a run without its seed, then the checkout command, then a caveat."""
    code = run.record.code
    checkout, same_defaults, caveat = _checkout(code.get("commit"), bool(code.get("dirty")), code.get("digest"))
    assert run.folder is not None, "read from folders"
    folder = run.folder
    try:
        if not same_defaults:
            full = frozen_values(folder)
            del full["seed"]
            return (*map(redacted, all_overrides(full, CONF)), checkout, caveat)
        config = frozen(folder)
        config = replace(config, paths=replace(config.paths, output=str(output.resolve())))
        (spelled,) = finder.find([config])
    except Damaged:
        raise
    except UserError as error:
        return checkout, str(error)
    if not checkout and not _is_the_same(spelled, config, run.record.fingerprint, finder):
        caveat = "this version of headsweep computes another fingerprint: it would be a new run"
    del spelled["seed"]
    return (*words(spelled), checkout, caveat)


@cache
def _checkout(commit: str | None, dirty: bool, digest: str | None) -> tuple[str, bool, str]:
    """Return the checkout command, whether the defaults in conf/ are equal here, and a caveat."""
    if commit is None and digest:
        return "", True, "" if digest == code_digest() else "other code of headsweep trained it"
    if commit is None:
        return "", True, "its commit is unknown"
    caveat = "its working tree was dirty: not exactly this code" if dirty else ""
    try:
        checkout = "" if is_here(commit) else f"git checkout {commit}"
        return checkout, is_here(commit, ["conf"]), caveat
    except UserError as error:
        return "", True, str(error)


def _is_the_same(spelled: Overrides, config: RunConfig, wanted: str, finder: OverrideFinder) -> bool:
    """Return whether the overrides compose the run, given the digests and sizes that its plan filled in."""
    composed = finder.grid.cell(words(spelled)).parse()
    dataset = replace(composed.dataset, num_classes=config.dataset.num_classes, digest=config.dataset.digest)
    model = replace(composed.model, checkpoint_digest=config.model.checkpoint_digest)
    return fingerprint(replace(composed, dataset=dataset, model=model)) == wanted

"""The version of the code that trains a run: recorded as it is planned and started, compared as it resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headsweep.plan.git_state import code_version
from headsweep.plan.packages import packages_used
from headsweep.plan.uncommitted import with_changes
from headsweep.text import plural
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunState, code_name


def current_code(output: Path) -> dict[str, Any]:
    """Return the version of headsweep's code, whose uncommitted changes are stored in an output folder."""
    return with_changes(code_version(), output)


def with_packages(code: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a version of the code with those of the packages that a run uses."""
    packages = packages_used(config)
    return {**code, "packages": packages} if packages else dict(code)


def begin_with_current_code(folders: Sequence[RunFolder], output: Path, say: Callable[[str], object]) -> None:
    """Record the current code in runs that are about to start; `say` a line if some were started with other code."""
    if change := code_change(folders):
        say(change)
    record_code(code_by_run(folders, current_code(output)))


def code_by_run(folders: Sequence[RunFolder], code: Mapping[str, Any]) -> dict[RunFolder, dict[str, Any]]:
    """Return a version of the code with the packages that each of the runs uses."""
    return {folder: with_packages(code, folder.record().config) for folder in folders}


def record_code(codes: Mapping[RunFolder, Mapping[str, Any]]) -> None:
    """Record the code in runs that are about to start, or that it was continued with, where they have begun.

    They may have been planned by another version, as the command was stopped before they started. Runs that another
    process trains at the moment are left as they are.
    """
    for folder, code in codes.items():
        if folder.state() is RunState.running:
            continue
        record, packages = folder.record(), code.get("packages", {})
        if (code_name(record.code), record.packages) == (code_name(code), packages):
            continue
        if folder.checkpoint.exists():
            earlier = record.code.get("continued", "").split(", ")
            used = [f"{name} {version}" for name, version in packages.items()]
            names = dict.fromkeys([*earlier, " ".join([code_name(code), *used])])
            code = record.code | {"continued": ", ".join(filter(None, names))}
        folder.replace_record(replace(record, code=dict(code)))


def code_change(folders: Sequence[RunFolder]) -> str | None:
    """Return one line if some runs were started with another commit or other packages than the current, else None."""
    now = _short(code_version())
    begun = [folder.record() for folder in folders if folder.state() in (RunState.partial, RunState.failed)]
    others = Counter(code for record in begun if (code := _short(record.code)) != now)
    if not others:
        return _package_change(begun)
    before = ", ".join(f"{count} with code {code}" for code, count in others.items())
    return (
        f"{others.total()} of {len(folders)} runs were started with other code than {now}: {before}; "
        "they resume with the current code"
    )


def _package_change(begun: Sequence[RunRecord]) -> str | None:
    others = Counter(
        f"{name} {version}, now {current.get(name, 'not installed')}"
        for record in begun
        for current in [packages_used(record.config)]
        for name, version in record.packages.items()
        if current.get(name) != version
    )
    if not others:
        return None
    before = "; ".join(f"{plural(runs, 'run')} with {change}" for change, runs in others.items())
    return f"started with another version of a package: {before}; they resume with the current one"


def _short(code: Mapping[str, Any]) -> str:
    commit = code.get("commit")
    return commit[:7] if commit else code_name(code) if "digest" in code else "without a commit"

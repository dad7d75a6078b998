"""A sweep from its configurations to its table: plan, check, freeze, start what is missing, compare."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from headsweep.config import RunConfig
from headsweep.launch.conclude import compare, conclude, is_missing, log_models, screened_out, show
from headsweep.launch.follow import follow
from headsweep.launch.halving import Halving
from headsweep.launch.launcher import Launcher
from headsweep.launch.progress_bars import Display
from headsweep.launch.start_order import by_seed
from headsweep.plan.code_of_runs import begin_with_current_code
from headsweep.plan.design import Declared
from headsweep.plan.lookup import Lookup
from headsweep.plan.plan import Plan, checked_costs, freeze, make_plan
from headsweep.text import plural
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sharing import share_with_group
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import NullTracker, Tracker
from headsweep.tracking.trackers import tracker_of


def run_sweep(
    configs: Sequence[RunConfig],
    launcher: Launcher,
    lookup: Lookup | None = None,
    declared: Declared | None = None,
    shows_table: bool = True,
) -> Plan:
    """Start what is missing of the runs in `configs`, and print the table of their sweep once they have ended.

    The sweep has the runs of all commands for the same cells: the seeds of earlier commands are in the table, too. With
    a detached launcher the table comes only if it is to `wait`, or if nothing is left to be trained.

    Args:
        configs: of the runs, repetitions included.
        launcher: starts them.
        lookup: has located their data already, if given.
        declared: where in a study each of them comes from.
        shows_table: False: write the table of runs that were waited for, without printing it.

    Raises:
        UserError: a run is not valid, its data is absent, or the launcher cannot start it; none has been started then.
        FailedRunsError: some runs failed; the others have been trained and are in the table.
        Interrupted: the process was asked to stop; the runs have written checkpoints.
    """
    share_with_group(Path(configs[0].paths.output))
    launcher.prepare(configs)
    plan = make_plan(configs, lookup, declared)
    for line in plan.notes:
        print(line)
    launcher.accept(plan)
    screening = launcher.screening(plan)
    if launcher.detached:
        _hand_over(plan, launcher)
        return plan
    sweep = SweepFolder(plan.folder)
    with contextlib.ExitStack() as tracking, launching(plan.folder):
        freeze(plan, checked_costs(plan, launcher.check))
        tracker = tracking.enter_context(tracker_of(configs[0]))
        # Also after an error, once this process no longer counts as its launcher.
        tracking.callback(tracker.notify, sweep)
        with launcher.lock(plan.folder):
            _start(plan, launcher, screening, tracker)
        comparison = compare(sweep)
    log_models(plan.folders, configs[0], launcher.log_models)
    if shows_table:
        show(sweep, comparison, tracker)
    conclude(sweep, plan.folders, launcher.attempts)
    return plan


def _hand_over(plan: Plan, launcher: Launcher) -> None:
    """Start runs that go on without this process; end with the table if the launcher waits or none is left."""
    costs = checked_costs(plan, launcher.check)
    if (shown := launcher.dry_run(plan)) is not None:
        print(shown)
        return
    with launcher.lock(plan.folder):
        freeze(plan, costs)
        are_active = _start(plan, launcher, None, NullTracker())
    if launcher.wait or not are_active:
        follow(plan.folder, launcher.log_models, launcher.refill, plan.folders)
    else:
        print(f"`headsweep watch {plan.name}` follows it; this terminal may be closed")


def _start(plan: Plan, launcher: Launcher, screening: Halving | None, tracker: Tracker) -> bool:
    """Start the missing runs of a plan; return whether any is missing or active. Call it under `launcher.lock`."""
    sweep = SweepFolder(plan.folder)
    sweep.register(plan.folders)
    if screening is None:
        sweep.forget_screening()
    tracker.notify(sweep)  # a parent before its children
    for folder in plan.folders:
        tracker.notify(folder)
    active = launcher.active(plan)
    missing = by_seed([it for it in plan.folders if is_missing(it, launcher.attempts) and it not in active])
    with Display(len(missing), epoch_lines=len(missing) == 1) as display:
        say: Callable[[str], object] = print if launcher.detached else display.say
        say(opening(plan, missing, active, launcher.attempts))
        if screening:
            say(screening.opening)
        else:
            begin_with_current_code(missing, plan.output, say)
        (screening or launcher).start(missing, display, tracker.notify)
    return bool(missing or active)


def opening(plan: Plan, missing: Sequence[RunFolder], active: set[RunFolder], attempts: int | None) -> str:
    """Return a line about which runs are done, active, and started now."""
    done = [folder for folder in plan.folders if folder.result() is not None]
    out = screened_out(SweepFolder(plan.folder), plan.folders)
    continued = sum(folder.state() is RunState.partial for folder in missing if folder not in out)
    parts = [f"{len(done)} done already"] * bool(done) + [f"{continued} to be continued"] * bool(continued)
    parts += [f"{len(out)} {RunState.screened_out.label}"] * bool(out)
    parts += _tries(missing, attempts)
    parts += [f"{len(active)} queued or training already"] * bool(active)
    skipped = len(plan.runs) - len(done) - len(missing) - len(active)
    if skipped:
        parts.append(f"{skipped} failed {attempts} times and {'is' if skipped == 1 else 'are'} skipped")
    sweep = len(SweepFolder(plan.folder).runs())
    of_sweep = f" of {sweep}" * (sweep > len(plan.runs))
    line = f"{plural(len(plan.runs), 'run')}{of_sweep} in {plan.name}"
    return f"{line}: {', '.join(parts)}" if parts else line


def _tries(missing: Sequence[RunFolder], attempts: int | None) -> list[str]:
    of = f" of {attempts}" if attempts else ""
    counts = Counter(tries for folder in missing if (tries := folder.failed_tries()))
    return [
        f"{count} {'failed run is' if count == 1 else 'failed runs are'} tried again (try {tries + 1}{of})"
        for tries, count in sorted(counts.items())
    ]

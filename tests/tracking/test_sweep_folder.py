"""A sweep records which launcher runs it, and its runs record which sweeps they belong to."""

from __future__ import annotations

import subprocess
import sys
import threading

from headsweep.tracking.sweep_folder import sweeps_of

LAUNCH = """
import sys, time
from pathlib import Path
from headsweep.tracking.active_launchers import launching
with launching(Path(sys.argv[1])):
    print("launched", flush=True)
    time.sleep(60)
"""


def launch(sweep):
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(sweep.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "launched\n"
    return process


def test_a_sweep_is_active_until_its_last_launcher_is_gone_even_by_kill(make_run, make_sweep):
    sweep = make_sweep([make_run("a"), make_run("b")])
    assert not sweep.is_active()
    processes = [launch(sweep), launch(sweep)]
    for process in processes:
        assert sweep.is_active()
        process.kill()
        process.communicate()
    assert not sweep.is_active()


def test_those_who_look_at_the_same_time_do_not_see_each_other(make_run, make_sweep):
    sweep = make_sweep([make_run("a"), make_run("b")])
    seen = []
    threads = [threading.Thread(target=lambda: seen.extend(sweep.is_active() for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False] * 200


def test_a_run_lists_its_sweeps_once_each_and_in_the_order_of_their_launch(make_run, make_sweep):
    a, b = make_run("a"), make_run("b")
    second, first = make_sweep([a, b], "second"), make_sweep([a, b], "first")
    for sweep in (first, second, first):
        sweep.register([a, b])
    assert [sweep.name for sweep in sweeps_of(a)] == ["first", "second"]


def test_a_single_run_is_no_sweep_but_may_be_a_part_of_one(make_run, make_sweep):
    a, b = make_run("a"), make_run("b")
    sweep = make_sweep([a, b])
    sweep.register([a])
    assert (sweep.has_several_runs(), sweeps_of(a)) == (False, [])
    sweep.register([a, b])
    started = sweep.started()
    sweep.register([a])
    assert (sweep.started(), [one.name for one in sweeps_of(a)]) == (started, [sweep.name])


def test_a_run_that_was_removed_is_no_run_of_its_sweep(make_run, make_sweep, tmp_path):
    sweep = make_sweep([make_run("a"), make_run("b")])
    (tmp_path / "runs" / "a" / "run.json").unlink()
    assert [run.path.name for run in sweep.runs()] == ["b"]

"""Which jobs of a cluster belong to a sweep; SLURM's commands are scripts that print what a test has written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from commands import give
from factories import hand_made
from headsweep.errors import UserError
from headsweep.launch.slurm.recovery import recover
from headsweep.status import queue, submissions, waiting
from headsweep.status.job_state import HELD, JobState
from headsweep.status.read import read_sweep
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.typed_files import Damaged
from scripts import Scripts

HERE = "lion"
ME = submissions.this_user()


class FakeCluster(Scripts):
    """Commands that print the files in `place` which are named after them."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        for name in ("squeue", "sacct", "scontrol", "scancel"):
            self.write(name, f'echo "$0 $*" >> {place}/asked', f"cat {place}/{name}.out")
        self.prints("sacct")
        self.prints("scancel")
        self.prints("scontrol", f"ClusterName = {HERE}", "PrivateData = none")
        self.prints("squeue")

    def prints(self, command: str, *lines: str) -> None:
        (self.place / f"{command}.out").write_text("".join(f"{line}\n" for line in lines))

    def queues(self, *jobs: str) -> None:
        """Let squeue print jobs, each as NUMBER STATE NAME."""
        lines = []
        for number, state, name in map(str.split, jobs):
            array, _, element = number.partition("_")
            lines.append("|".join(["9", array, element, state, "N/A", "node1", "1:05", name, "None"]))
            if not element:
                lines[-1] = "|".join([number, number, "N/A", state, "N/A", "node1", "1:05", name, "None"])
        self.prints("squeue", *lines)

    def asked(self, command: str) -> list[str]:
        lines = (self.place / "asked").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0].endswith(command)]


@pytest.fixture
def cluster(scripts: Scripts) -> FakeCluster:
    return FakeCluster(scripts.place)


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    """An output folder of two runs, `a` and `b`, and two sweeps, `one` and `two`."""
    found = OutputFolder(tmp_path / "outputs")
    for run in "ab":
        hand_made(found.path, run)
    for sweep in ("one", "two"):
        (found.sweeps / sweep).mkdir(parents=True)
    return found


def submitted(output: OutputFolder, token: str, number: str = "12", sweep: str = "one", **more: str) -> None:
    """Record an array of two jobs, for `a` and `b`."""
    path = output.sweeps / sweep
    submissions.begin(path, token, [["a"], ["b"]], more.get("cluster", HERE))
    if number:
        submissions.complete(path, token, number)


def runs(output: OutputFolder) -> list[RunFolder]:
    return [RunFolder(output.runs / run) for run in "ab"]


def active(output: OutputFolder) -> str:
    return "".join(sorted(run.path.name for run in queue.active(runs(output))))


def states(output: OutputFolder, sweep: str = "one") -> list[str]:
    return [str(state) for state in queue.states_of(submissions.jobs(output.sweeps / sweep)).values()]


def test_a_job_with_the_number_of_another_one_is_not_taken_for_it(cluster: FakeCluster, output: OutputFolder):
    """After numbers were reset: the queue and the accounting have a job of that number and another name."""
    submitted(output, "t1")
    cluster.queues("12_0 RUNNING one.other", "12_1 RUNNING mail")
    cluster.prints("sacct", "12_0|RUNNING|0:0|node1|one.other", "12_1|RUNNING|0:0|node1|mail")
    assert active(output) == ""
    assert states(output)[0] == "job 12_0 is unknown to the cluster; `headsweep retry` submits the run again"
    assert str(queue.cancel(output.sweeps / "one")) == ""
    assert cluster.asked("scancel") == []


def test_a_job_that_only_the_accounting_takes_for_pending_is_over(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1")
    cluster.prints("sacct", "12_[0-1]|PENDING|0:0|None assigned|one.t1")
    assert active(output) == ""


def test_a_job_of_another_cluster_is_named_with_it(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1", cluster="tiger")
    cluster.queues("12_0 RUNNING one.t1")
    assert active(output) == ""
    assert states(output)[0].startswith("job 12_0 is unknown to the cluster (submitted to tiger, this is lion);")


def test_jobs_of_all_users_are_found_by_name(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1")
    cluster.queues("12_0 RUNNING one.t1", "12_1 PENDING one.t1")
    assert active(output) == "ab"
    (asked,) = cluster.asked("squeue")
    assert "--name=one.t1" in asked and "--me" not in asked


def test_jobs_of_others_count_where_a_cluster_hides_them(cluster: FakeCluster, output: OutputFolder, monkeypatch):
    cluster.prints("scontrol", f"ClusterName = {HERE}", "PrivateData = accounts,jobs")
    submitted(output, "t1")
    assert active(output) == "", "those of this user are shown"
    monkeypatch.setattr(submissions, "this_user", lambda: "bob")
    assert active(output) == "ab"
    assert states(output)[0] == f"job 12_0 is hidden: the cluster shows jobs of {ME} to {ME} only"


def test_runs_that_another_sweep_has_queued_are_active(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1", sweep="two")
    cluster.queues("12_0 PENDING two.t1")
    assert active(output) == "a"


def test_an_earlier_job_that_is_still_there_counts_and_is_cancelled(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1", "12")
    submitted(output, "t2", "15")
    cluster.queues("12_0 RUNNING one.t1", "15_0 FAILED one.t2")
    assert active(output) == "a"
    assert queue.cancel(output.sweeps / "one").jobs == ["12_0"]
    assert cluster.asked("scancel") == ["12_0"]


def test_the_last_job_of_a_run_is_shown_while_the_cluster_does_not_answer(cluster: FakeCluster, output: OutputFolder):
    """All its jobs count as active then, also those that had ended."""
    submitted(output, "t1")
    submitted(output, "t2", "13")
    cluster.write("scontrol", "exit 1")
    states = queue.states_of(submissions.jobs(output.sweeps / "one"))
    assert (job := queue.job_of_run("a", states)) and job.number == "13_0"


def test_the_jobs_of_cells_are_cancelled(cluster: FakeCluster, output: OutputFolder, capsys):
    for run, head in (("c", "ga"), ("d", "gap")):
        hand_made(output.path, run, {"head": {"name": head}, "heads": 4})
    one = output.sweeps / "one"
    (one / "plan.json").write_text('{"runs": ["c", "d"]}')
    submissions.begin(one, "t1", [["c"], ["d"]], HERE)
    submissions.begin(one, "t2", [["c", "d"]], HERE)
    submissions.complete(one, "t1", "12")
    submissions.complete(one, "t2", "13")
    waiting.record(one, [waiting.Batch(["c", "d"])])
    cluster.queues("12_0 RUNNING one.t1", "12_1 RUNNING one.t1")
    assert give("cancel", "one", "head=gap", "heads=4", "--output", output.path) == 0
    assert capsys.readouterr().out == "one: cancelled job 12_1 and 1 run without a job yet\n"
    assert cluster.asked("scancel") == ["12_1"]
    assert waiting.of_this_user(one) == ["c"]
    assert give("cancel", "one", "head=cls", "--output", output.path) == 2
    assert capsys.readouterr().err == "headsweep: head=cls: no such run among 2; head is ga, gap\n"
    assert give("retry", "one", "head=cls", "--output", output.path) == 2
    capsys.readouterr()
    for command in ("cancel", "retry"):
        assert give(command, "one", "haed=ga", "--output", output.path) == 2
        assert capsys.readouterr().err.startswith("headsweep: haed: unknown key; did you mean head or heads")
    assert give("cancel", "one", "heads.x=1", "--output", output.path) == 2
    assert give("cancel", "one", "two", "--output", output.path) == 2
    cluster.queues("13 RUNNING one.t2")
    assert give("cancel", "one", "head=gap", "--output", output.path) == 2
    assert "job 13 also trains c; cancel these too, or the whole sweep" in capsys.readouterr().err
    assert cluster.asked("scancel") == ["12_1"]


def test_jobs_of_a_command_that_was_killed_are_found_by_name(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1", number="")
    assert active(output) == "" and states(output) == [], "nothing was submitted"
    cluster.queues("31_0 PENDING one.t1", "31_1 PENDING one.t1")
    assert active(output) == "ab"
    assert states(output) == ["job 31_0 is pending", "job 31_1 is pending"]
    assert str(queue.cancel(output.sweeps / "one")) == "jobs 31_0, 31_1"


def test_the_next_command_records_such_jobs_if_they_are_complete_and_cancels_them_otherwise(
    cluster: FakeCluster, output: OutputFolder
):
    """Complete are jobs that have the pickles by which they know their runs."""
    submitted(output, "t1", number="")
    submitted(output, "t2", number="")
    logs = submissions.logs(output.sweeps / "one", "t1")
    logs.mkdir(parents=True)
    for element in (0, 1):
        (logs / f"31_{element}_submitted.pkl").touch()
    recover(output)
    assert [job.number for job in submissions.jobs(output.sweeps / "one")] == ["31_0", "31_1"]
    assert cluster.asked("scancel") == ["--name=one.t2"]


@pytest.mark.parametrize(("minutes", "is_active"), [(1, True), (30, False)])
def test_a_job_does_not_count_while_its_node_cleans_up_for_ever(
    minutes: int, is_active: bool, cluster: FakeCluster, output: OutputFolder
):
    submitted(output, "t1")
    end = int(time.time()) - 60 * minutes
    cluster.prints("squeue", f"12|12|0|COMPLETING|{end}|node1|0:10|one.t1|None")
    assert active(output) == "a" * is_active
    if not is_active:
        assert states(output)[0].startswith("job 12_0 ended: STUCK (node1 has been cleaning up for 30 minutes);")


def test_a_lost_run_is_shown_with_exit_code_node_and_log(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1")
    one = output.sweeps / "one"
    (one / "plan.json").write_text('{"runs": ["a", "b"]}')
    cluster.queues("12_0 FAILED one.t1", "12_1 FAILED one.t1")
    cluster.prints("sacct", "12_0|FAILED|3:0|node1|one.t1")
    log = submissions.logs(one, "t1") / "12_0_0_log.out"
    log.parent.mkdir(parents=True)
    log.touch()
    first, second = (run.note for run in read_sweep(one).runs)
    again = "`headsweep retry` submits the run again"
    assert first == f"job 12_0 ended: FAILED (exit code 3, on node1); {again}  ({log})"
    assert second == f"job 12_1 ended: FAILED (on node1); {again}"
    cluster.prints("sacct", "12_0|FAILED|0:53|node1|one.t1")  # as of a node without the folder of its output
    moved = f"job 12_0 ended: FAILED (signal 53, on node1); {again}; perhaps the node could not open its output: paths."
    assert read_sweep(one).runs[0].note.startswith(moved)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"memory": 3000}, "its job had 3000 MiB of memory; ask for more, e.g. hydra.launcher.memory=6GB, or in"),
        ({}, "its job had the default memory; ask for more, e.g. hydra.launcher.memory=16GB, or in"),
    ],
)
def test_a_run_whose_job_had_too_little_memory_is_shown_with_what_to_ask_for(asked, advice, cluster, output):
    one = output.sweeps / "one"
    (one / "plan.json").write_text('{"runs": ["a", "b"]}')
    submissions.begin(one, "t1", [["a"], ["b"]], HERE, asked)
    submissions.complete(one, "t1", "12")
    cluster.queues("12_0 OUT_OF_MEMORY one.t1", "12_1 FAILED one.t1")
    first, second = (run.note for run in read_sweep(one).runs)
    assert f"ended: OUT_OF_MEMORY (on node1); `headsweep retry` submits the run again; {advice}" in first
    assert "memory" not in second


def test_a_running_run_is_shown_with_its_job_node_time_and_log(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1")
    one = output.sweeps / "one"
    (one / "plan.json").write_text('{"runs": ["a", "b"]}')
    cluster.queues("12_0 RUNNING one.t1", "12_1 RUNNING one.t1")
    log = submissions.logs(one, "t1") / "12_0_0_log.out"
    log.parent.mkdir(parents=True)
    log.touch()
    with RunFolder(output.runs / "a").lock():
        first, second = read_sweep(one).runs
    assert (first.state.value, first.note) == ("running", f"job 12_0 on node1 for 1:05  ({log})")
    assert (second.state.value, second.note) == ("queued", "job 12_1 is running"), "it works on other runs, or begins"


def test_nothing_is_submitted_while_a_record_is_damaged(cluster: FakeCluster, output: OutputFolder):
    submitted(output, "t1", sweep="two")
    (record,) = (output.sweeps / "two").glob("slurm/submissions/*.json")
    record.write_text("{}")
    with pytest.raises(Damaged, match=r"t1\.json, submitted: expected a value"):
        active(output)


def test_jobs_that_an_earlier_version_recorded_are_known(cluster: FakeCluster, output: OutputFolder):
    record = output.sweeps / "one" / "slurm" / "submissions" / "12.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"submitted": 1.0, "jobs": {"12_0": ["a"], "12_1": ["b"]}}')
    cluster.queues("12_1 RUNNING one")
    assert active(output) == "b"


def test_cancelling_jobs_of_others_names_who_can(cluster: FakeCluster, output: OutputFolder, monkeypatch):
    submitted(output, "t1")
    monkeypatch.setattr(submissions, "this_user", lambda: "bob")
    submitted(output, "t2", "13")  # by bob, who can
    cluster.queues("12_0 RUNNING one.t1", "13_1 RUNNING one.t2")
    (cluster.place / "scancel").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match=f"scancel of 12_0 failed: jobs of {ME}, who alone can cancel them"):
        queue.cancel(output.sweeps / "one")


def test_a_job_that_could_not_be_started_is_shown_with_what_lets_it_start():
    """SLURM itself holds it, and it would wait for ever."""
    assert str(JobState("7_0", "PENDING", HELD)) == (
        "job 7_0 is pending: launch failed requeued held; `headsweep retry`, or `scontrol release 7_0`, lets it start"
    )
    assert str(JobState("7_0", "PENDING", "JobHeldUser")) == "job 7_0 is pending: JobHeldUser"

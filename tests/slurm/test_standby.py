"""What goes on with runs that wait until more jobs may be in the queue, whatever becomes of the jobs that are."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from scripted import Queue, sweep_of

from headsweep.config.launcher.slurm import ContainerRuntime, SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.slurm import association, snapshot
from headsweep.launch.slurm.launcher import submit_again
from headsweep.launch.slurm.settings import record
from headsweep.launch.slurm.window import refill, submit_some
from headsweep.plan.code_of_runs import record_code
from headsweep.status import queue, standby, submissions, waiting
from headsweep.status.read import read_sweep
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from scripts import Scripts

LIMITS = {"ClusterName": "lion", "AccountingStorageEnforce": "associations,limits"}


@pytest.fixture
def slurm(scripts: Scripts) -> Queue:
    """A cluster of scripts with a queue."""
    return Queue(scripts.place)


@pytest.fixture
def settings(settings: SlurmConfig) -> SlurmConfig:
    """Of a sweep whose jobs need a GPU and memory, on one partition, two at a time."""
    return replace(settings, partition="main", memory="32GB", max_submitted=2, setup=["module load python"])


def submitted(slurm: Queue, sweep: Path) -> list[tuple[str, ...]]:
    return [job.runs for job in submissions.jobs(sweep)]


def test_a_small_job_waits_for_all_others_and_then_submits_more(slurm: Queue, settings: SlurmConfig, runs):
    sweep = sweep_of(runs)
    record(sweep, settings)
    submit_some(sweep, runs, settings, {})
    (file,) = slurm.files("reserve")
    given = dict(re.findall(r"#SBATCH --(\S+?)=(\S+)", file))
    small = {"cpus-per-task": "1", "mem": "1GB", "nodes": "1", "time": "10", "partition": "main"}
    assert small.items() <= given.items() and "gpus-per-node" not in given and "array" not in given
    assert "module load python\n" in file and "teardown" not in file and "starting" not in file
    assert file.rstrip().endswith(f" -m headsweep.launch.slurm.window {sweep}")
    (array,) = {job.array for job in submissions.jobs(sweep)}
    number = slurm.lines("standby")[0].partition("|")[0]
    assert slurm.lines("asked")[-1] == f"update jobid={number} dependency=afterany:{array} starttime=now"
    slurm.end(array)
    refill(sweep)
    assert len(slurm.files("reserve")) == 1, "the one that is pending waits for the next jobs"
    assert len(submitted(slurm, sweep)) == 4
    slurm.end()
    refill(sweep)
    assert len(submitted(slurm, sweep)) == 6 and not waiting.of_this_user(sweep)
    name = standby.name_in(runs[0].output)
    assert slurm.lines("cancelled") == [f"--state=PENDING --name={name}"]


def test_runs_wait_with_the_code_of_their_command(slurm: Queue, settings: SlurmConfig, runs, monkeypatch):
    """Whatever the process has that submits them: `watch` after an edit, or a job of another sweep."""
    sweep = sweep_of(runs)
    record(sweep, settings)
    record_code({run: {"commit": "aaaa"} for run in runs})
    submit_some(sweep, runs, settings, {})
    (code,) = snapshot.copies(sweep).iterdir()
    monkeypatch.setattr(snapshot, "_contents", lambda: {Path("src", "edited.py"): b""})
    record_code({run: {"commit": "bbbb"} for run in runs[2:]})  # by a command of another sweep that shares them
    slurm.end()
    refill(sweep)
    paths = [f"{code.name}/src" in file for file in slurm.files("given")]
    assert paths == [True] * 2 and len(submitted(slurm, sweep)) == 4
    assert {run.record().code["commit"] for run in runs[2:4]} == {"aaaa"}
    slurm.end()
    shutil.rmtree(code)
    with pytest.raises(UserError, match=r"/code/\w+: expected the code of 2 waiting runs, found none; `headsweep re"):
        refill(sweep)
    submit_some(sweep, [RunFolder(runs[0].path.with_name(run)) for run in waiting.of_this_user(sweep)], settings, {})
    assert f"{code.name}/src" not in slurm.files("given")[-1]


@pytest.mark.parametrize("runtime", ContainerRuntime)
def test_it_runs_outside_of_containers(runtime: ContainerRuntime, slurm: Queue, settings: SlurmConfig, runs):
    """They have no sbatch."""
    inside = {"container": "/image.sif", "container_runtime": runtime, "python": "/in/the/image/python"}
    submit_some(sweep_of(runs), runs, replace(settings, **inside), {})
    (file,) = slurm.files("reserve")
    assert "image" not in file and f"{sys.executable} -m headsweep.launch.slurm.window" in file


def test_a_sweep_whose_jobs_all_fit_has_none(slurm: Queue, settings: SlurmConfig, runs):
    submit_some(sweep_of(runs), runs, replace(settings, max_submitted=None), LIMITS)
    assert not slurm.files("reserve") and not slurm.lines("cancelled")


def test_the_limit_of_the_association_leaves_a_place_for_it(slurm: Queue, settings: SlurmConfig, runs):
    slurm.write("sacctmgr", "echo 'lab|lab|lion||4'; echo 'lab|other|lion||1'; echo 'lab|lab|tiger||2'")
    settings = replace(settings, max_submitted=None)
    sweep = sweep_of(runs)
    assert association.room(settings, LIMITS) == 4
    submit_some(sweep, runs, settings, LIMITS)
    kinds = [path.suffix for path in sorted(slurm.place.glob("*.*"), key=lambda path: int(path.stem))]
    assert kinds == [".reserve", ".given"] and len(submitted(slurm, sweep)) == 3
    assert association.room(settings, LIMITS) == 0


@pytest.mark.parametrize(
    ("rows", "changes", "room"),
    [
        (["lab|lab|lion||7", "lab|lab|lion|main|3"], {}, 3),  # of the partition
        (["lab|lab|lion||7", "lab|lab|lion|main|3"], {"partition": None}, 7),
        (["lab|lab|lion||7", "lab|other|lion||5"], {"account": "other"}, 5),
        (["lab|lab|lion||"], {}, None),
        (["lab|lab|tiger||7"], {}, None),
        ([], {}, None),
    ],
)
def test_the_limit_is_that_of_account_partition_and_cluster(rows, changes, room, slurm: Queue, settings):
    slurm.write("sacctmgr", *(f"echo '{row}'" for row in rows))
    assert association.room(replace(settings, **changes), LIMITS) == room
    assert association.room(settings, {**LIMITS, "AccountingStorageEnforce": "associations"}) is None


def test_where_no_standby_job_may_be_a_line_gives_the_reason(scripts: Scripts, settings: SlurmConfig, runs, capsys):
    slurm = Queue(scripts.place, limit=2)
    submit_some(sweep_of(runs), runs, settings, {})
    assert not slurm.files("reserve")
    assert "no standby job: hydra/launcher=slurm: sbatch: Job violates accounting/QOS policy" in capsys.readouterr().out


def test_jobs_refill_all_sweeps_of_the_output_folder(slurm: Queue, settings: SlurmConfig, runs):
    """The second sweep finds the queue full: none of its own jobs could ever submit the others."""
    first, second = sweep_of(runs), runs[0].output.sweeps / "two"
    second.mkdir()
    for sweep, members in ((first, runs[:2]), (second, runs[2:])):
        record(sweep, settings)
        submit_some(sweep, members, settings, {})
    assert submitted(slurm, second) == []
    slurm.end()
    refill(first, "ending")
    assert len(submitted(slurm, second)) == 2


def test_the_place_of_a_job_that_ends_is_free_but_not_of_one_that_starts(slurm: Queue, settings, runs, monkeypatch):
    sweep = sweep_of(runs)
    record(sweep, settings)
    submit_some(sweep, runs, settings, {})
    job = submissions.jobs(sweep)[0]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job.array)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", job.element[1:])
    monkeypatch.setenv("SLURM_JOB_ID", job.array)
    refill(sweep, "starting")
    assert len(submitted(slurm, sweep)) == 2
    with FileLock(runs[0].output.submission_lock):
        refill(sweep, "starting")  # does not wait for another job that refills the queue
    refill(sweep, "ending")
    assert len(submitted(slurm, sweep)) == 3


def test_runs_that_a_limit_refuses_without_any_job_go_on_waiting(scripts: Scripts, settings, runs):
    """Their number is not at fault, or the end of a job would make room; `watch` tries again."""
    slurm = Queue(scripts.place, limit=0)
    sweep = sweep_of(runs)
    record(sweep, settings)
    with pytest.raises(UserError, match="violates accounting"):
        submit_some(sweep, runs, settings, {})
    assert not waiting.of_this_user(sweep), "a command that submits nothing leaves nothing"
    waiting.record(sweep, [waiting.Batch([run.path.name for run in runs])])
    with pytest.raises(UserError, match="violates accounting"):
        refill(sweep)
    assert len(waiting.of_this_user(sweep)) == 6 and not slurm.files("reserve")


def test_runs_that_wait_go_on_waiting_if_sbatch_refuses(slurm: Queue, settings, runs):
    sweep = sweep_of(runs)
    record(sweep, settings)
    submit_some(sweep, runs, settings, {})
    slurm.end()
    slurm.write("sbatch", "echo 'sbatch: error: Requested node configuration is not available' >&2", "exit 1")
    with pytest.raises(UserError, match="configuration is not available"):
        refill(sweep)
    assert len(waiting.of_this_user(sweep)) == 4


def times(slurm: Queue, sweep: Path) -> dict[str, str]:
    """Run -> the time that its job asks for."""
    given = [dict(re.findall(r"#SBATCH --(\S+?)=(\S+)", file)) for file in slurm.files()]
    by_name = {file["job-name"]: file["time"] for file in given}
    return {run: by_name[job.name] for job in submissions.jobs(sweep) for run in job.runs}


def test_runs_that_wait_are_submitted_with_the_settings_of_the_command_that_made_them_wait(
    slurm: Queue, settings: SlurmConfig, runs
):
    sweep = sweep_of(runs)
    for members, minutes in ((runs[:4], 60), (runs[4:5], 90)):
        record(sweep, replace(settings, time=minutes))
        submit_some(sweep, members, replace(settings, time=minutes), {})
    record(sweep, replace(settings, time=30))  # of a command whose runs all have a job
    assert waiting.of_this_user(sweep) == [run.path.name for run in runs[2:5]], "the first command's first"
    while waiting.of_this_user(sweep):
        slurm.end()
        refill(sweep)
    assert times(slurm, sweep) == {run.path.name: "90" if run == runs[4] else "60" for run in runs[:5]}


def test_a_command_for_runs_that_wait_replaces_their_settings_but_retry_does_not(slurm, settings, runs, monkeypatch):
    sweep, longer = sweep_of(runs), replace(settings, time=90)
    submit_some(sweep, runs[:4], replace(settings, time=60), {})
    submit_some(sweep, [runs[2]], longer, {})
    assert [batch.runs for batch in waiting.batches(sweep)] == [[runs[3].path.name], [runs[2].path.name]]
    record(sweep, replace(settings, time=30))
    slurm.end()
    monkeypatch.setattr("headsweep.launch.slurm.launcher.check_frozen", lambda folder: None)
    submit_again(sweep, runs[2:5])
    slurm.end()
    refill(sweep)
    found = [times(slurm, sweep)[run.path.name] for run in runs[2:5]]
    assert found == ["90", "60", "30"], "only the last one did not wait"


def test_runs_that_an_earlier_version_let_wait_take_the_last_settings(slurm: Queue, settings: SlurmConfig, runs):
    sweep = sweep_of(runs)
    record(sweep, replace(settings, time=45))
    atomic_files.write_json(waiting.file_of(sweep), {"runs": [run.path.name for run in runs[:3]]})
    refill(sweep)
    assert waiting.of_this_user(sweep) == [runs[2].path.name]
    assert set(times(slurm, sweep).values()) == {"45"}


def test_status_gives_the_reason_why_runs_that_wait_could_not_be_submitted(slurm: Queue, settings, runs):
    sweep = sweep_of(runs)
    atomic_files.write_json(sweep / "plan.json", {"runs": [run.path.name for run in runs]})
    record(sweep, settings)
    submit_some(sweep, runs, settings, {})
    waits = "waits until more jobs may be in the queue"
    assert [run.note for run in read_sweep(sweep).runs[2:]] == [waits] * 4
    slurm.end()
    works = (slurm.place / "sbatch").read_text()
    slurm.write("sbatch", "echo 'sbatch: error: Requested node configuration is not available' >&2", "exit 1")
    with pytest.raises(UserError, match="configuration is not available") as refusal:
        refill(sweep)
    noted = f"{waits}; the last attempt to submit it failed: {refusal.value}"
    assert [run.note for run in read_sweep(sweep).runs[2:]] == [noted] * 4
    (slurm.place / "sbatch").write_text(works)
    refill(sweep)
    assert [run.note for run in read_sweep(sweep).runs[4:]] == [waits] * 2
    slurm.end()
    assert [run.note for run in read_sweep(sweep).runs[4:]] == [waits] * 2, "the standby job submits them"
    (slurm.place / "standby").write_text("")  # after `scancel --me`
    none = f"{waits}, but no job is left that submits it; `headsweep retry {sweep.name}` or `headsweep watch` does"
    assert [run.note for run in read_sweep(sweep).runs[4:]] == [none] * 2


def test_cancelling_what_waits_cancels_the_standby_job(slurm: Queue, settings: SlurmConfig, runs):
    sweep = sweep_of(runs)
    submit_some(sweep, runs, settings, {})
    assert str(queue.cancel(sweep, {waiting.of_this_user(sweep)[0]})) == "1 run without a job yet"
    assert not any("standby" in line for line in slurm.lines("cancelled")), "others still wait"
    queue.cancel(sweep)
    assert f"--name={standby.name_in(runs[0].output)}" in " ".join(slurm.lines("cancelled"))


def test_nothing_is_cancelled_while_another_command_submits(slurm: Queue, settings, runs, monkeypatch):
    """It would record afterwards which runs wait."""
    monkeypatch.setattr(queue, "LONGEST_SUBMISSION", 0.1)
    sweep = sweep_of(runs)
    submit_some(sweep, runs, settings, {})
    with (
        FileLock(runs[0].output.submission_lock),
        pytest.raises(UserError, match="another command has been submitting"),
    ):
        queue.cancel(sweep)
    assert len(waiting.of_this_user(sweep)) == 4 and not slurm.lines("cancelled")


def test_the_name_is_of_one_folder_and_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mine = standby.name_in(OutputFolder(tmp_path / "a"))
    assert mine != standby.name_in(OutputFolder(tmp_path / "b"))
    monkeypatch.setattr(submissions, "this_user", lambda: "bob")
    assert mine != standby.name_in(OutputFolder(tmp_path / "a"))


def test_the_lines_of_a_job_refill_only_while_runs_of_the_user_wait(runs: list[RunFolder], scripts: Scripts):
    """The pattern is the shell's, in a folder whose name has spaces."""
    output = OutputFolder(runs[0].output.path.parent / "my outputs")
    (output.sweeps / "a" / "slurm").mkdir(parents=True)
    pattern = waiting.pattern(output)
    assert not list(Path("/").glob(shlex.split(pattern)[0].lstrip("/")))
    waiting.record(output.sweeps / "a", [waiting.Batch(["r"])])
    assert [waiting.file_of(output.sweeps / "a")] == list(Path("/").glob(shlex.split(pattern)[0].lstrip("/")))

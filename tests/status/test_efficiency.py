"""`headsweep status --efficiency`: what jobs used; sacct is a script that prints what a test has written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import give
from factories import hand_made
from headsweep.status import job_record, submissions
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from scripts import Scripts

ASKED = {"time": 240, "nodes": 1, "gpus": 1, "cpus": 8, "memory": 32 * 1024, "slots": 1}


@pytest.fixture
def output(tmp_path: Path, scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> OutputFolder:
    """A sweep of two runs, `a` and `b`, whose jobs 12_0 and 12_1 were submitted at the time 1000."""
    found = OutputFolder(tmp_path / "outputs")
    for run in "ab":
        hand_made(found.path, run)
    sweep = found.sweeps / "one"
    atomic_files.write_json(sweep / "plan.json", {"runs": ["a", "b"]})
    with monkeypatch.context() as patch:
        patch.setattr(submissions.time, "time", lambda: 1000.0)
        submissions.begin(sweep, "t1", [["a"], ["b"]], "lion", ASKED)
        submissions.complete(sweep, "t1", "12")
    scripts.write("sacct", "echo 'Slurm accounting storage is disabled' >&2", "exit 1")
    return found


def finish(output: OutputFolder, device: str = "cuda", **clock: float) -> None:
    for run in "ab":
        result = RunResult("finished", {}, 1, 1, clock, {"device": device})
        RunFolder(output.runs / run).finish(result)


def shown(output: OutputFolder, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert give("status", "--efficiency", "--output", output.path) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line]


def ran(output: OutputFolder, *periods: tuple[float, float | None]) -> None:
    """Let both jobs record from when to when they ran."""
    for job in submissions.jobs(output.sweeps / "one"):
        written = {"periods": [{"started": start, "ended": end} for start, end in periods]}
        atomic_files.write_json(job.record, written)


def test_the_accounting_tells_what_each_job_used(output: OutputFolder, scripts: Scripts, capsys):
    """12_0 was requeued once; a job of that number and another name is not one of the sweep."""
    scripts.write("sacct", "cat <<E\n" + "\n".join([
        "12_0|one.t1|1000|1060|1800|20:00.0|8|32G||",
        "12_0.0|python|1000|1060|1800|20:00.0|8||4194304K|cpu=00:20:00,gres/gpumem=9G,gres/gpuutil=70",
        "12_0|one.t1|2860|2900|1800|01:00:00|8|32G||",
        "12_0.0|python|2860|2900|1800|01:00:00|8||5242880K|gres/gpuutil=85",
        "12_1|one.t1|1000|1020|3600|08:00:00|8|32G||",
        "12_1|other|1000|1020|99999|00:01|8|32G||",
        "12_2|one.t1|1000|Unknown|0|00:00|0|32G||",
    ]) + "\nE")  # fmt: skip
    finish(output, peak_memory_gib=30.0, peak_gpu_memory_gib=9.5)
    assert shown(output, capsys) == [
        "one: 2 jobs ran 2 h, 1 restart, 2.0 GPU hours, 16.0 CPU hours",
        "ARRAY JOBS WAITED RAN RESTARTS CPUS MEMORY GPU GPU HOURS",
        "12 2 60 s 2 h 1 8.0 of 8 30.0 of 32 GB 85%, 9.5 GB 2.0",
    ]


@pytest.mark.parametrize(
    ("busy", "memory", "restarts", "advice"),
    [
        ("02:12:00", "4G", 0, "12: memory=5GB would do; cpus=3 would do; time=90 would do"),  # 2.2 of 8 CPUs
        ("04:00:00", "16G", 0, "12: time=90 would do"),  # half of the CPUs and of the memory, and a margin
        ("08:00:00", "31G", 0, "12: memory=39GB would be safer; time=90 would do"),
        ("08:00:00", "24G", 1, None),  # a period before a requeue is shorter than a whole job
    ],
)
def test_what_would_do_has_a_margin_and_saves_much(
    busy: str, memory: str, restarts: int, advice: str | None, output: OutputFolder, scripts: Scripts, capsys
):
    line = f"12_0|one.t1|1000|1060|3600|{busy}|8|32G|{memory}|gres/gpuutil=80"
    scripts.write("sacct", *[f"echo '{line}'"] * (restarts + 1))
    finish(output, peak_memory_gib=1.0)
    assert shown(output, capsys)[3:] == ([advice] if advice else [])


def test_without_accounting_jobs_and_runs_have_recorded_it(output: OutputFolder, capsys):
    ran(output, (1100, 2900))
    finish(output, "cpu (x86_64)", peak_memory_gib=5.0)
    assert shown(output, capsys) == [
        "one: 2 jobs ran 60 min, 0 restarts, 1.0 GPU hours, 8.0 CPU hours",
        "ARRAY JOBS WAITED RAN RESTARTS CPUS MEMORY GPU GPU HOURS",
        "12 2 100 s 60 min 0 - of 8 5.0 of 32 GB - 1.0",
        "12: memory=7GB would do; gpus=0 would do, as the runs trained on the CPU; time=50 would do",
    ]


def test_of_what_has_not_ended_no_less_is_advised(output: OutputFolder, scripts: Scripts, capsys):
    """The end of a job that was killed is the last change of its output; one that ran full needs more."""
    ran(output, (1100, None), (2000, None))
    for job in submissions.jobs(output.sweeps / "one"):
        job.log(job.number).touch()
        os.utime(job.log(job.number), (2600, 2600))
    assert shown(output, capsys)[2:] == ["12 2 100 s 50 min 2 - of 8 - of 32 GB - 0.8"]
    assert job_record.read(job.record).restarts == 1
    (record,) = (output.sweeps / "one" / "slurm" / "submissions").iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), "asked": {"cpus": 1}}))
    scripts.write("sacct", "echo '12_0|one.t1|1000|1060|1800|20:00.0|8|500M|499M|'")
    assert shown(output, capsys)[2:] == [
        "12 2 80 s 55 min 1 0.7 of 1 0.5 of 0.5 GB - 0.0",
        "12: memory=1GB would be safer",
    ]


def test_there_is_nothing_to_show_before_a_job_has_started(output: OutputFolder, capsys):
    assert give("status", "one", "--efficiency", "--output", output.path) == 2
    assert capsys.readouterr().err == (
        "headsweep: --efficiency: no job of one has started yet; `headsweep status one` shows why\n"
    )
    (record,) = (output.sweeps / "one" / "slurm" / "submissions").iterdir()
    assert json.loads(record.read_text())["asked"] == ASKED
    record.unlink()
    assert give("status", "one", "--efficiency", "--output", output.path) == 2
    assert "one was submitted to no cluster; this is for hydra/launcher=slurm\n" in capsys.readouterr().err

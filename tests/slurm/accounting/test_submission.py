"""What sbatch is given: job files, arrays, and mistakes that are reported before anything is submitted."""

from __future__ import annotations

import os
import re
from difflib import unified_diff
from pathlib import Path

import pytest
from cluster import (
    JOB,
    Cluster,
    began,
    calm,
    jobs_of,
    lingering,
    output_of,
    python_of_copies,
    sabotage_copies,
    sweep,
    wait_until,
    warm_python,
)
from omegaconf import OmegaConf

from commands import TINY_RUN, train, train_with_interpreter
from comparing import differences
from factories import by_seed
from headsweep.config import PROJECT_ROOT
from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm import sbatch_errors, submit
from headsweep.status import standby, submissions, waiting
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from programs import write_interpreter
from scripts import Scripts

GOLDEN = Path(__file__).parents[1] / "golden"
GRID = ["seed=0,1,2", "duration='2 epochs'"]
ASKED = [
    "hydra.launcher.partition=main",
    "hydra.launcher.memory=500MB",
    "hydra.launcher.setup=[module load cuda]",
    "+hydra.launcher.extra.hold=true",
    "hydra.launcher.max_parallel=2",
]


def test_a_job_inherits_nothing_from_the_job_that_submits_it(
    tmp_path: Path, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
):
    """Neither its cores, nor its restarts, nor the number of its array, by which a job asks for its requeue."""
    for program, words in {"sbatch": f"env > {tmp_path}/seen; echo Submitted batch job 7", "srun": ":"}.items():
        scripts.write(program, words)
    inherited = {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5", "SLURM_RESTART_COUNT": "3", "SLURM_CPU_BIND": "map"}
    for name, value in {**inherited, "SLURM_CONF": "/here/slurm.conf"}.items():
        monkeypatch.setenv(name, value)
    run = RunFolder(tmp_path / "run")
    keys = OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml")
    settings = parse_launcher(SlurmConfig, keys)

    assert submit._numbers(tmp_path / "sweep", "a1", [(run,)], settings, {"time": 5}) == ["7"]
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert not inherited.keys() & seen.keys()
    assert seen["SLURM_CONF"] == "/here/slurm.conf"
    sbatch_errors.check("", settings)
    assert "SLURM_JOB_ID=" not in (tmp_path / "seen").read_text()
    assert {name: os.environ[name] for name in inherited} == inherited


@pytest.mark.slow
def test_the_dry_run_prints_what_sbatch_is_given(cluster: Cluster, tmp_path: Path):
    job = [*GRID, *ASKED, f"paths.output={tmp_path}"]
    dry = cluster.train_with_new_interpreter(*job, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not any(tmp_path.glob("sweeps/*/slurm")), "nothing was submitted"
    accept(GOLDEN / "array.sh", without_paths(dry.stdout, tmp_path))
    true = cluster.train_without_torch(*job)
    assert true.returncode == 0, true.stderr
    (written,) = sweep(tmp_path).glob("slurm/jobs/*/[0-9]*.sh")
    names = [f"# job {at}: seqpool1-cct_2_3x2-digits-seed{at}" for at in range(3)]
    given = "\n".join([written.read_text(), "", *names])
    assert without_paths(given, tmp_path).strip() == without_paths(dry.stdout, tmp_path).strip()
    cluster.ask("scancel", *jobs_of(sweep(tmp_path)).values())


def without_paths(text: str, output: Path) -> str:
    """What differs by machine and by code, by name."""
    text = text.replace(str(output), "OUTPUT").replace(warm_python(), "PYTHON")
    text = text.replace(f"waiting-{submissions.this_user()}.json", "waiting-USER.json")
    text = re.sub(r"/code/[0-9a-f]{12}/", "/code/DIGEST/", text)
    text = re.sub(r"digits-cct_2_3x2-[0-9a-f]{8}", "SWEEP", text)
    return re.sub(r"(SWEEP\.|/jobs/)[0-9a-f]{8}", r"\1TOKEN", text)


def accept(golden: Path, text: str) -> None:
    """Compare with a golden file, or replace it."""
    if os.environ.get("ACCEPT"):
        golden.write_text(text)
    known = golden.read_text() if golden.exists() else ""
    diff = "".join(unified_diff(known.splitlines(True), text.splitlines(True), golden.name, "now"))
    assert not diff, f"{diff}\naccept it with ACCEPT=1 python -m pytest {__file__}"


@pytest.mark.slow
def test_a_limit_of_the_cluster_is_filled_and_the_rest_waits(cluster: Cluster, tmp_path: Path):
    """One place is for the standby job, which submits more once all others are gone, here cancelled by hand."""
    cluster.ask("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=3")
    name = standby.name_in(OutputFolder(tmp_path))
    try:
        job = ["seed=0,1,2,3,4", "+hydra.launcher.extra.begin=now+1hour", f"paths.output={tmp_path}"]
        answer = cluster.train_without_torch(*job)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count("\njob ") == 2 and "3 runs wait until" in answer.stdout
        status = cluster.headsweep("status", "latest", "--output", tmp_path).stdout
        assert "5 queued" in status and status.count("waits until more jobs may be in the queue") == 3
        first = jobs_of(sweep(tmp_path))
        cluster.ask("scancel", first[by_seed(tmp_path)[0].path.name])
        again = cluster.train_without_torch(*job)
        assert again.stdout.count("\njob ") == 1 and "3 runs wait until" in again.stdout, again.stdout + again.stderr
        cluster.ask("scancel", *jobs_of(sweep(tmp_path)).values())
        wait_until(lambda: len(waiting.of_this_user(sweep(tmp_path))) < 3)
        cancelled = cluster.headsweep("cancel", "--output", tmp_path)
        assert cancelled.returncode == 0 and not waiting.of_this_user(sweep(tmp_path)), cancelled.stderr
        wait_until(lambda: not cluster.ask("squeue", "--noheader", f"--name={name}"))
    finally:
        cluster.ask("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["constraint=h200"], "constraint=h200: sbatch: Invalid feature specification; `sinfo`"),
        (
            ["partition=gpus"],
            "partition=gpus: sbatch: Invalid partition name specified; partitions: main, short, urgent\n",
        ),
        (
            ["partition=short", "time=30"],
            "time=30, hydra.launcher.partition=short: sbatch: Requested time limit is invalid (missing or exceeds",
        ),
        (["qos=gold"], "qos=gold: sbatch: Invalid qos specification; `sinfo` and `sacctmgr show assoc`"),
        (
            ["account=lab"],
            "account=lab: sbatch: Invalid account or account/partition combination specified",
        ),
        (["cpus=99"], "cpus=99: sbatch: More processors requested than permitted"),
        (["+extra.mail-type=WHEN"], "extra.mail-type=WHEN: sbatch: Invalid --mail-type specification"),
        (["time=1"], "time=1: expected an integer >= 5"),
        (["mlflow=jobs"], "mlflow=jobs: expected a tracking server, found a sqlite file"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_submitted_is_one_line_and_leaves_nothing(arguments, message, cluster: Cluster, tmp_path: Path):
    keys = [f"{'+' * key.startswith('+')}hydra.launcher.{key.lstrip('+')}" for key in arguments]
    answer = cluster.train_without_torch(*keys, f"paths.output={tmp_path}")
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"headsweep: hydra.launcher.{message}") and answer.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_what_only_the_submission_refuses_names_the_keys_that_it_can_be_about(cluster: Cluster, tmp_path: Path):
    """The question beforehand is answered alike while nodes are down, for which a job may wait."""
    answer = cluster.train_without_torch("hydra.launcher.memory=90TB", f"paths.output={tmp_path}")
    assert answer.returncode == 2
    assert answer.stderr == (
        "headsweep: hydra.launcher.gpus=0, hydra.launcher.cpus=1, hydra.launcher.memory=90TB, hydra.launcher.nodes=1: "
        "sbatch: Requested node configuration is not available; "
        "`sinfo` and `sacctmgr show assoc` list what the cluster takes\n"
    )
    assert jobs_of(sweep(tmp_path)) == {}


def test_a_machine_without_slurm_is_reported_in_one_line(tmp_path: Path):
    answer = train(*JOB, f"paths.output={tmp_path}", PATH=str(tmp_path))
    assert answer.returncode == 2
    expected = "headsweep: hydra/launcher=slurm: no `scontrol` here; run this on a login node of a SLURM cluster\n"
    assert answer.stderr == expected and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_without_torch_the_job_finds_out_what_the_check_would_have(cluster: Cluster, tmp_path: Path):
    """One of two runs cannot be trained: a batch is larger than the set. The command waits for both, in one job."""
    job = ["batch_size=32,256", "duration='2 epochs'", "tracking=none", f"paths.output={tmp_path}"]
    answer = cluster.train_without_torch(*job, "hydra.launcher.runs_per_job=2", "hydra.launcher.wait=true")
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "1 of 2 runs failed" in answer.stderr and "batch_size=256: " in answer.stderr
    assert "Traceback" not in answer.stderr
    assert re.search(r"26\.3\d* +2\.89", answer.stdout), "the table has parameters and FLOPs"
    costs = [RunFolder(path).record().cost for path in (tmp_path / "runs").iterdir()]
    assert [cost["parameters"] for cost in costs] == [26315, 26315]


@pytest.mark.slow
def test_a_job_works_through_its_runs_in_slots_and_goes_on_where_it_was_stopped(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
):
    """Three runs share two slots: two are in the middle when the job is stopped, and the third has not begun."""
    packed = [f"hydra.launcher.{key}" for key in ("runs_per_job=3", "slots=2", "cpus=2")]
    packed += [f"hydra.launcher.python='{python_of_copies()}'"]  # which takes a while to import, for the first signal
    job = ["seed=0,1,2", "duration='2 epochs'", "tracking=none", f"paths.output={tmp_path}"]
    answer = cluster.train_without_torch(*job, *packed, "+hydra.launcher.extra.hold=true")
    assert answer.returncode == 0, answer.stderr
    sabotage_copies(tmp_path)
    runs, (job,) = by_seed(tmp_path), set(jobs_of(sweep(tmp_path)).values())
    cluster.ask("scontrol", "release", job)
    wait_until(lambda: "Loading pickle" in output_of(tmp_path, job))
    cluster.send_usr2(job)  # before the job handles signals, or, where it imports fast, before it begins a run
    lingering(runs, [0, 1])
    stopped = output_of(tmp_path, job).count("stopping:")
    cluster.send_usr2(job)
    wait_until(lambda: output_of(tmp_path, job).count("stopping:") > stopped)
    calm(runs, runs)
    watch = cluster.headsweep("watch", "--output", tmp_path)
    assert watch.returncode == 0, watch.stderr
    assert [began(runs[seed]) for seed in (0, 1, 2)] == [[0, 7], [0, 7], [0]]
    for seed, folder in runs.items():
        assert differences(folder, by_seed(undisturbed)[seed]) == []


@pytest.mark.slow
def test_the_plain_plugin_trains_a_cell(cluster: Cluster, tmp_path: Path):
    """Hydra's own launcher, which waits for its job and composes the configuration there."""
    plain = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60"]
    output, python = tmp_path / "outputs", write_interpreter(tmp_path / "python", ".runs")
    job = ["-m", *plain, "heads=2", "duration='1 epochs'", *TINY_RUN, "tracking=none", f"paths.output={output}"]
    answer = train_with_interpreter(python, *job, SLURM_CONF=str(cluster.place / "slurm.conf"))
    assert answer.returncode == 0, answer.stderr
    assert [RunFolder(path).state() for path in (output / "runs").iterdir()] == [RunState.finished]

"""A private SLURM cluster, and the commands that a user gives on its login node."""

from __future__ import annotations

import csv
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

import programs
from commands import TINY_RUN, TRAIN
from headsweep.folders import PACKAGE
from headsweep.status import submissions
from headsweep.tracking.run_folder import RunFolder
from programs import Program

SCRIPT = Path(__file__).with_name("slurm_cluster.sh")
PATIENCE = 240  # seconds for one thing to happen; many times what it takes on a quiet machine
# As TINY_RUN, with as many steps of fewer images. What jobs do is the same, and training is most of their time.
RUN = [*(word for word in TINY_RUN if word.startswith("model.")), "debug.train_images=64", "debug.eval_images=64"]
RUN += ["batch_size=16"]
JOB = ["-m", "hydra/launcher=slurm", "hydra.launcher.gpus=0", "hydra.launcher.cpus=1", *RUN]
HASTE = "import sys; from headsweep.launch import follow; follow.POLL_SECONDS = 0.5; "  # for what waits for jobs
GIVE_TRAIN = HASTE + "from headsweep.entry import train; train(sys.argv[1:])"
GIVE_HEADSWEEP = HASTE + "from headsweep.cli import main; main()"
UNSET = "hydra.launcher.setup=[unset NO_TORCH]"  # see programs.py


@dataclass(frozen=True)
class Cluster:
    """Three nodes, 127.0.0.2 to 127.0.0.4, of 4 CPUs each; the partition `urgent` preempts the default one."""

    place: Path

    @classmethod
    def start(cls, place: Path, accounting: bool, array: int) -> Cluster:
        """`array` is the largest number of jobs that an array may have."""
        cls(place)._script("start", "3", "2", "yes" if accounting else "no", ARRAY=str(array))
        return cls(place)

    def stop(self) -> None:
        name = (self.place / "name").read_text().strip()
        self._script("stop")
        wait_until(lambda: not _processes_of(name), "the cluster leaves no process")  # killed, they end in a moment

    def train(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python src/train.py -m hydra/launcher=slurm ... ARGUMENTS`, to its end."""
        return programs.run(["-c", GIVE_TRAIN, *_job(arguments)], PATIENCE, env=self._environment(**environment))

    def headsweep(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`headsweep ARGUMENTS`, to its end."""
        return programs.run(["-c", GIVE_HEADSWEEP, *map(str, arguments)], PATIENCE, env=self._environment())

    def train_without_torch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `train`, on a login node where torch cannot be imported; it can be on the nodes."""
        return self.train(UNSET, *arguments, NO_TORCH="1")

    def train_with_new_interpreter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `train_without_torch`, started cold."""
        path = os.pathsep.join([str(Path(__file__).with_name("no_torch")), os.environ.get("PYTHONPATH", "")])
        return self.run([sys.executable, TRAIN, *_job([UNSET, *arguments])], PYTHONPATH=path, NO_TORCH="1")

    def start_train(self, *arguments: str) -> Program:
        """As `train`, beside the test."""
        return Program([TRAIN, *_job(arguments)], env=self._environment())

    def start_headsweep(self, *arguments: object) -> Program:
        """As `headsweep`, beside the test."""
        return Program(["-m", "headsweep.cli", *map(str, arguments)], env=self._environment())

    def ask(self, *words: str) -> str:
        """What a command of SLURM answers."""
        answer = self.run(words)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def send_usr2(self, job: str) -> None:
        """What a job gets before the end of its time. To its step: `scancel` sends it to a job again and again."""
        self.ask("scancel", "--signal=USR2", f"{job}.0")

    def state(self, job: str) -> str:
        """SLURM's word for a job of its queue, e.g. RUNNING."""
        return self.ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def node(self, job: str) -> str:
        """Where a job runs."""
        return self.ask("squeue", "--noheader", "--format=%N", f"--jobs={job}")

    def kill_node(self, node: str) -> None:
        """Let a node die with all its tasks; SLURM is informed, which would detect it after a minute."""
        self._script("kill-node", node)
        self.ask("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=killed")

    def start_node(self, node: str) -> None:
        """Let a dead node come back.

        The controller still has an order for it, to end the job that it had: the next start of that job would be ended.
        """
        self._script("start-node", node)
        wait_until(lambda: {"0"} == set(re.findall(r"Agent (?:queue size|count): +(\d+)", self.ask("sdiag"))))
        self.ask("scontrol", "update", f"nodename={node}", "state=RESUME")
        there = ("idle", "mix", "alloc")  # perhaps with a job already
        wait_until(lambda: self.ask("sinfo", "--noheader", "--format=%t", f"--nodes={node}").startswith(there))

    def kill_slurmd(self, node: str) -> None:
        """Let the daemon of a node die alone: its tasks live on, but SLURM takes the node for dead."""
        self._script("kill-slurmd", node)
        self.ask("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=killed")

    def wait_until_saved(self) -> None:
        """Wait until the controller saves its state, as it does within five seconds of a change.

        One that is killed in between forgets new jobs. Jobs that have begun it starts again; the node refuses the
        second copy, and SLURM drains the node and holds the job: "launch failed requeued held".
        """
        file = self.place / "state" / "job_state"
        before, deadline = file.stat().st_mtime_ns, time.monotonic() + 6
        while file.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill_controller(self) -> None:
        """Let the controller die, while no job can begin: see `wait_until_saved`."""
        self._script("kill-controller")

    def stop_controller(self) -> None:
        """Let the controller end, as where its machine is shut down: it knows later which jobs have begun."""
        self._script("stop-controller")

    def start_controller(self) -> None:
        """Let the controller come back."""
        self._script("start-controller")
        wait_until(lambda: self.run(["scontrol", "ping"]).returncode == 0)

    def _script(self, task: str, *arguments: str, **environment: str) -> None:
        answer = self.run([str(SCRIPT), task, str(self.place), *arguments], **environment)
        assert answer.returncode == 0, answer.stderr

    def _environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.place / "slurm.conf"), **more}

    def run(self, words: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """A command on the login node, to its end."""
        environment = self._environment(**environment)
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def warm_python() -> str:
    """What starts Python in jobs, in a fraction of a second: a fork of a process on this machine does the work.

    It has imported headsweep from the checkout, not from the copy of it that the jobs are given.
    """
    return " ".join([*programs.relay(kind=".runs"), str(Path(__file__).with_name("disturbed.py"))])


def python_of_copies() -> str:
    """As `warm_python`, for jobs that import headsweep from their copy of it, as those of users do."""
    return " ".join(programs.relay())


def _job(arguments: Sequence[str]) -> list[str]:
    return [*JOB, f"hydra.launcher.python='{warm_python()}'", *arguments]


def sweep(output: Path) -> Path:
    """The folder of the only sweep."""
    (path,) = (output / "sweeps").iterdir()
    return path


def jobs_of(path: Path) -> dict[str, str]:
    """Fingerprint -> the last job that was submitted for the run."""
    return {run: job.number for job in submissions.jobs(path) for run in job.runs}


def sabotage(output: Path) -> None:
    """Let the runs of jobs misbehave; see sabotage.py."""
    (output / "sabotaged").touch()


def sabotage_copies(output: Path) -> None:
    """As `sabotage`, for jobs of `python_of_copies`: of all sweeps so far."""
    sabotage(output)
    for code in output.glob("sweeps/*/slurm/code/*/src"):
        with (code / "headsweep" / "training" / "loop.py").open("a") as file:
            file.write(Path(__file__).with_name("sabotage.py").read_text())
        compile_code(code)


def compile_code(code: Path) -> None:
    """Give a copy of the code the bytecode of the original, or each of the jobs that begin at once compiles it."""
    for original in PACKAGE.rglob("*.py"):
        copy, bytecode = code / original.relative_to(PACKAGE.parent), Path(cache_from_source(original))
        if bytecode.exists() and copy.read_bytes() == original.read_bytes():
            content, place = bytecode.read_bytes(), Path(cache_from_source(copy))
            if content[8:16] == version(original):
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(content[:8] + version(copy) + content[16:])


def version(source: Path) -> bytes:
    """By which bytecode knows its source."""
    found = source.stat()
    return struct.pack("<2I", int(found.st_mtime), found.st_size)


def lingering(runs: Mapping[int, RunFolder], seeds: Iterable[int]) -> Iterable[int]:
    """Wait until the runs of some seeds wait in the middle of their second epoch."""
    wait_until(lambda: all((runs[seed].path / "here").exists() for seed in seeds))
    return seeds


def calm(runs: Mapping[int, RunFolder], seeds: Iterable[int]) -> None:
    """Let the runs of some seeds go on, now and in every later try."""
    for seed in seeds:
        (runs[seed].path / "calm").touch()


def began(folder: RunFolder) -> list[int]:
    """The steps with which the processes of a run began."""
    return [int(step) for step in (folder.path / "began").read_text().split()]


def output_of(output: Path, job: str) -> str:
    """What a job has printed."""
    return "".join(log.read_text() for log in output.glob(f"sweeps/*/slurm/jobs/*/{job}_0_log.out"))


def table(sweep: Path) -> list[dict[str, str]]:
    """The table of a sweep, but for what training took."""
    rows = list(csv.DictReader((sweep / "table.csv").open()))
    cost = ("images_per_second", "train_seconds", "peak_")
    return [{key: value for key, value in row.items() if not key.startswith(cost)} for row in rows]


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until a condition holds; `what` describes it in case it does not."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain {what and f'until {what}'}"
        time.sleep(0.1)


def has_ended(pid: int) -> bool:
    """Whether a process has; one that has ended and whose parent has not noticed has no words left."""
    return not read(Path(f"/proc/{pid}/cmdline"))


def _processes_of(name: str) -> list[str]:
    mark = f"SLURM_CLUSTER_NAME={name}".encode()
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in read(path).split(b"\0")]


def read(path: Path) -> bytes:
    """A file of a process; nothing, if it has ended."""
    try:
        return path.read_bytes()
    except OSError:  # the process has just ended
        return b""

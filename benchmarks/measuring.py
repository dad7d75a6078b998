"""Time what takes turns, and write a record of it.

A record is a JSON file with the fields of `Record`, named DATE_benchmark_machine.json. A row has a name, a unit and
samples by side: the first side is what the others are compared with, and samples at the same position belong to the
same round. Other keys of a row are specific to its benchmark. `python benchmarks/results.py` makes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from headsweep.config import PROJECT_ROOT, RunConfig, parse
from headsweep.config.study.expansion import composer
from headsweep.credentials import redacted

GPU_BURST = 10  # steps between two synchronizations: one alone has the host's work before the first kernel on its clock
AA = "A/A"  # the name of rows that measure the same thing twice: their ratio is noise
NO_SETTINGS = {"records", "keep", "uri", "rounds", "seeds", "timm_train"}  # options that do not change what is measured
Step = Callable[[], object]
Samples = dict[str, list[float]]
Row = dict[str, Any]


class Ratio(NamedTuple):
    """Of two sides within a round, over rounds; without a range where the rounds are not known."""

    median: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        spread = f" ({self.low:.2f} to {self.high:.2f})" if self.low is not None else ""
        return f"{self.median:.2f}{spread}"


class Times(NamedTuple):
    """Milliseconds by side, round by round."""

    wall: Samples
    cpu: Samples  # of this process, all threads


@dataclass
class Record:
    """What was measured, with which command, on which machine."""

    benchmark: str
    command: str
    date: str  # ISO 8601, UTC
    commit: str  # of git describe: ends in -dirty if the working tree was
    machine: dict[str, Any]
    settings: dict[str, Any]
    source: str = "measured"
    rows: list[Row] = field(default_factory=list)

    def name(self) -> str:
        """DATE_benchmark_machine; the machine is its GPU, or else its processor and number of cores."""
        machine = self.machine["gpu"] or f"{self.machine['processor']} {self.machine['cores']} cores"
        machine += " mps" if self.machine.get("mps") else ""
        return f"{self.date[:10]}_{self.benchmark}_{re.sub('[^a-z0-9]+', '-', machine.lower()).strip('-')}"


class Benchmark:
    """The device of the options, and a record that is written after each row: an interrupted benchmark keeps its rows.

    Exits with code 2 if the options ask for a GPU and there is none.
    """

    def __init__(self, name: str, args: argparse.Namespace, **more: Any) -> None:
        """`more` is what else to record of the machine."""
        self.args = args
        self.device = torch.device(getattr(args, "device", "cpu"))
        if self.device.type == "cuda" and not torch.cuda.is_available():
            print("--device=cuda: expected a GPU, found none; use --device=cpu", file=sys.stderr)
            raise SystemExit(2)
        if getattr(args, "threads", None):
            torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        self.record = Record(
            benchmark=name,
            command=redacted(shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])),
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            commit=commit(),
            machine={**machine(self.device), **more},
            settings={key: value for key, value in vars(args).items() if key not in NO_SETTINGS},
        )
        self.path = args.records and unused(args.records, self.record.name())
        load = self.record.machine["load"]
        print(f"{name}: {torch.get_num_threads()} threads, torch {torch.__version__}, load {load:.1f}", flush=True)

    def add(self, name: str, samples: Samples, unit: str = "ms", **more: Any) -> Row:
        row = {"name": name, "unit": unit, "samples": samples, **more}
        self.record.rows.append(row)
        self.write()
        return row

    def write(self) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(asdict(self.record), indent=1) + "\n")

    @property
    def burst(self) -> int:
        """How many steps to time together."""
        return GPU_BURST if self.device.type == "cuda" else 1

    def measure(
        self,
        name: str,
        sides: Mapping[str, Step],
        cpu_clock: Callable[[], float] = time.process_time,
        burst: int = 1,
        **more: Any,
    ) -> Times:
        """Time the sides, add a row and print it; `images=N` are those of a step, for images/s.

        A sample is the mean of `burst` steps.
        """
        times = interleaved(sides, self.args.rounds, self.device, cpu_clock, burst)
        self.add(name, times.wall, cpu_samples=times.cpu, **more)
        first = next(iter(sides))
        for side in sides:
            median = statistics.median(times.wall[side])
            line = f"{name:32} {side:17} {median:10.3f} ms"
            line += f" {more['images'] / median * 1e3:10,.0f} images/s" if "images" in more else ""
            if side != first:
                line += f"  {first} / {side}: {ratio(times.wall[first], times.wall[side])}"
                if self.device.type == "cpu" and min(times.cpu[side]) > 0:
                    line += f", by CPU time {ratio(times.cpu[first], times.cpu[side])}"
            print(line, flush=True)
        return times


def interleaved(
    sides: Mapping[str, Step],
    rounds: int,
    device: torch.device,
    cpu_clock: Callable[[], float] = time.process_time,
    burst: int = 1,
) -> Times:
    """Let the sides take turns, after one round to warm up; each round starts with another side."""
    names = list(sides)
    times = Times({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wall, cpu = clock(sides[name], device, cpu_clock, burst)
            if number:
                times.wall[name].append(wall)
                times.cpu[name].append(cpu)
    return times


def clock(step: Step, device: torch.device, cpu_clock: Callable[[], float], burst: int) -> tuple[float, float]:
    """Milliseconds of wall and CPU time of a step, with a GPU's queue empty before and after `burst` of them."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else int
    wait()
    wall, cpu = time.perf_counter(), cpu_clock()
    for _ in range(burst):
        step()
    wait()
    return (time.perf_counter() - wall) * 1e3 / burst, (cpu_clock() - cpu) * 1e3 / burst


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Median and range of the ratios within a round, over the rounds that both have."""
    each = sorted(a / b for a, b in zip(over, under, strict=False))
    return Ratio(statistics.median(each), each[0], each[-1])


def machine(device: torch.device) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or "unknown"


def unused(folder: Path, name: str) -> Path:
    """Of NAME.json, NAME_2.json, ... the first that does not exist."""
    paths = (folder / (f"{name}_{number}.json" if number > 1 else f"{name}.json") for number in count(1))
    return next(path for path in paths if not path.exists())


def parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """With the options of all benchmarks and, if `rounds` is given, those of the ones that time steps."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--records", type=Path, metavar="FOLDER", help="write a record with the raw samples there")
    if rounds:
        made.add_argument("--rounds", type=int, default=rounds)
        made.add_argument("--threads", type=int, default=2, help="CPU threads")
        made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return made


def compose(overrides: Sequence[str]) -> RunConfig:
    """The configuration of these overrides, as `python src/train.py` composes it, without looking at the data set."""
    with composer() as composed:
        return parse(composed(list(overrides)))

"""What the benchmarks share: clocks, rounds that take turns, ratios within a round, and one format of results.

A file of results is {"benchmark", "command", "date", "machine", "settings", "rows"}; a row has a name, a unit, raw
samples by side (the first side is what the others are compared with, and samples of the same place belong to one
round), and whatever else was seen. `python benchmarks/compare.py A.json B.json` compares two such files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

AA = "A/A"  # the name of rows whose sides are the same thing: what their ratio is, is noise
NO_SETTINGS = {"json", "keep", "uri", "rounds", "seeds"}  # options: where it is written, and how often it is measured
Step = Callable[[], object]
Samples = dict[str, list[float]]


class Ratio(NamedTuple):
    """Of two sides' samples within a round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Took(NamedTuple):
    """Milliseconds by side, round by round."""

    wall: Samples
    cpu: Samples  # of this process, all threads


class Results:
    """Rows as they are measured; written after each, so that a benchmark that is cut short leaves what it has seen."""

    def __init__(self, benchmark: str, args: argparse.Namespace, device: str = "cpu") -> None:
        self.path: Path | None = args.json
        self.content: dict[str, Any] = {**header(benchmark, args, device), "rows": []}

    def add(self, name: str, samples: Samples, unit: str = "ms", **more: Any) -> dict[str, Any]:
        """One more row, as it is in the file."""
        row = {"name": name, "unit": unit, "samples": samples, **more}
        self.content["rows"].append(row)
        self.write()
        return row

    def write(self) -> None:
        """What there is so far."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            begun = [row for row in self.content["rows"] if row["samples"]]
            self.path.write_text(json.dumps({**self.content, "rows": begun}, indent=1) + "\n")


def header(benchmark: str, args: argparse.Namespace, device: str) -> dict[str, Any]:
    """What a reader must know of a measurement."""
    machine = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    settings = {name: value for name, value in vars(args).items() if name not in NO_SETTINGS}
    command = shlex.join(sys.argv)
    return {"benchmark": benchmark, "command": command, "date": date, "machine": machine, "settings": settings}


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: want a whole number of at least 1")
    return int(text)


def not_negative(text: str) -> float:
    """A number of at least 0, for argparse."""
    return _number(text, 0, "a number of at least 0")


def above_zero(text: str) -> float:
    """A number above 0, for argparse."""
    return _number(text, sys.float_info.min, "a number above 0")


def _number(text: str, least: float, want: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: want {want}")
    return value


def multiple(of: int, why: str) -> Callable[[str], int]:
    """The type of such numbers, for argparse."""

    def parsed(text: str) -> int:
        if not text.isdecimal() or not int(text) or int(text) % of:
            raise argparse.ArgumentTypeError(f"{text!r}: want a multiple of {of}, {why}")
        return int(text)

    return parsed


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all of them take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=positive, default=rounds)
    made.add_argument("--threads", type=positive, default=2, help="of the CPU")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--json", type=Path, help="write raw samples here")
    return made


def ready(args: argparse.Namespace) -> torch.device:
    """The device of the options, with the number of threads set; one line and exit code 2 where there is none."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: this machine shows no GPU; want --device cpu", file=sys.stderr)
        raise SystemExit(2)
    return torch.device(args.device)


def interleaved(sides: Mapping[str, Step], rounds: int, device: torch.device) -> Took:
    """Let the sides take turns, after one round to warm up; from round to round another one is first."""
    names = list(sides)
    took = Took({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wall, cpu = clock(sides[name], device)
            if number:
                took.wall[name].append(wall)
                took.cpu[name].append(cpu)
    return took


def clock(step: Step, device: torch.device) -> tuple[float, float]:
    """Milliseconds, wall and CPU, with what is queued on a GPU before and after."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else int
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    wait()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def ratio(over: list[float], under: list[float]) -> Ratio:
    """Median and range of the ratios within a round."""
    each = sorted(a / b for a, b in zip(over, under, strict=True))
    return Ratio(statistics.median(each), each[0], each[-1])


def surroundings() -> str:
    """One line on what was measured, and beside what."""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"

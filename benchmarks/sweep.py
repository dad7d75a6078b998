"""Measure what a run of a sweep costs beside its training, and the share of the machine that a sweep uses.

    python benchmarks/sweep.py [--steps 50] [--batch-size 16] [--fresh 5] [--epochs 10] [--records FOLDER]

Overhead: nine runs of a few steps on digits, by the local launcher with two slots (twice: the A/A pair), by Hydra's
basic launcher in one process, and the first few in a fresh process each; MLflow in a sqlite store. A run occupies a
slot from the end of the previous run until the launcher reports its end; its overhead is that time minus its training.
The first run of a slot is left out: it waits for the start of the command, which is part of
"whole" = (wall x slots - training) / runs.

Efficiency: nine runs of some epochs by the local launcher, sum of training / (slots x time from the first run's start
to the last run's end). Slots that stay empty at the end, when no run is left to start, depend on the size of the grid
and are reported separately.

Training is what the times of the metrics log enclose, from the first step to the test: steps, evaluations, checkpoints.
The first evaluation is not enclosed and counts as overhead. All runs have one CPU thread.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headsweep.config import PROJECT_ROOT
from headsweep.tracking.run_folder import RunFolder
from measuring import AA, Benchmark, parser

TRAIN = [sys.executable, str(PROJECT_ROOT / "src" / "train.py")]
HEADS, BRANCHES = ("seqpool", "ga", "seqattn"), (1, 4, 8)
CELLS = [(head, count) for head in HEADS for count in BRANCHES]
GRID = [f"head={','.join(HEADS)}", f"heads={','.join(map(str, BRANCHES))}"]
BASIC = "hydra/launcher=basic"
SLOTS = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Command:
    """Times at which a command started, had planned, ended each run, and ended; seconds of one clock."""

    start: float
    end: float
    planned: float
    ended: dict[str, float] = field(default_factory=dict)  # name of the run -> when


@dataclass(frozen=True)
class Sample:
    """Seconds of a run."""

    name: str
    training: float
    occupied: float | None  # its slot, training included; None for the first run of a slot

    @property
    def overhead(self) -> float | None:
        return None if self.occupied is None else self.occupied - self.training


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("sweep", args)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        overhead(bench, Path(scratch))
        efficiency(bench, Path(scratch) / "long")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=50, help="of a run whose overhead is measured")
    made.add_argument("--batch-size", type=int, default=16, help="of such a run")
    # More than slots, of which the first run is left out.
    fresh = range(SLOTS + 1, len(CELLS) + 1)
    made.add_argument("--fresh", type=int, choices=fresh, default=5, help="runs in a fresh process each")
    made.add_argument("--epochs", type=int, default=10, help="of a run whose efficiency is measured")
    return made.parse_args(words)


def overhead(bench: Benchmark, scratch: Path) -> None:
    """Run the grid by each launcher in turn, by the local launcher first and last."""
    args = bench.args
    short = [f"duration='{args.steps} steps'", "schedule.warmup='1 steps'", f"batch_size={args.batch_size}"]
    local = ["-m", *GRID, *slots(SLOTS)]
    launchers: dict[str, list[Sample]] = {}
    for name, one_by_one, words, width in (
        ("local", False, local, SLOTS),
        ("basic", False, ["-m", *GRID, BASIC], 1),
        ("fresh", True, [], 1),
        ("local again", False, local, SLOTS),
    ):
        output = scratch / name.replace(" ", "-")
        given = [*words, *short, f"paths.output={output}"]
        commands = [run([*cell(*at), *given]) for at in CELLS[: args.fresh]] if one_by_one else [run(given)]
        launchers[name] = list(samples(commands, output, width))
        both, figures = paired(launchers["local"], launchers[name]), summary(name, commands, launchers[name], width)
        if name == "local":
            bench.add(name, {name: both[0]}, "s", **figures)
        else:
            row = AA if name == "local again" else f"local / {name}"
            bench.add(row, dict(zip(("local", name), both, strict=True)), "s", **figures)
    for name in ("local again", "basic", "fresh"):
        print(
            f"{name} / local: {median(launchers[name]) / median(launchers['local']):.2f} (medians of later runs)",
            flush=True,
        )


def paired(one: Sequence[Sample], other: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Overheads of the cells that have one on both sides, cell by cell."""
    first, second = ({s.name: s.overhead for s in side if s.overhead is not None} for side in (one, other))
    names = [name for name in first if name in second]
    return [first[name] for name in names], [second[name] for name in names]


def efficiency(bench: Benchmark, output: Path) -> None:
    epochs = f"duration='{bench.args.epochs} epochs'"
    command = run(["-m", *GRID, *slots(SLOTS), epochs, f"paths.output={output}"])
    runs = list(samples([command], output, SLOTS))
    training, span = sum(sample.training for sample in runs), max(command.ended.values()) - command.planned
    empty = sum(max(command.ended.values()) - end for end in sorted(command.ended.values())[-SLOTS:])
    whole, busy = training / (span * SLOTS), training / (span * SLOTS - empty)
    print(f"efficiency {whole:.3f}; {busy:.3f} without the slots that are empty at the end ({empty:.1f} slot seconds)")
    details = {"whole": whole, "empty": empty, "span": span, "runs": [asdict(sample) for sample in runs]}
    bench.add("efficiency", {"busy": [busy]}, "share", **details)


def slots(count: int) -> list[str]:
    return [f"hydra.launcher.slots={count}", "hydra.launcher.threads=1"]


def cell(head: str, count: int) -> list[str]:
    return [f"head={head}", f"heads={count}"]


def run(words: Sequence[str]) -> Command:
    """Run train.py and note when it prints that a run has ended. Raises CalledProcessError if it fails."""
    start = planned = time.monotonic()
    ended, lines = {}, []
    environment = {**os.environ, **ONE_THREAD}
    with subprocess.Popen(
        [*TRAIN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if match := re.match(r"\[\d+/\d+\] (\S+)", line):
                ended[match[1]] = time.monotonic()
            elif re.match(r"\d+ runs? in ", line) and not ended:
                planned = time.monotonic()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stderr="".join(lines))
    return Command(start, time.monotonic(), planned, ended)


def samples(commands: Sequence[Command], output: Path, width: int) -> Iterator[Sample]:
    """Samples in the order of the grid, in which runs start as slots become free."""
    spent = dict(trainings(output))
    ended = {name: moment for command in commands for name, moment in command.ended.items()}
    names = [name for head, count in CELLS for name in ended if name.startswith(f"{head}{count}-")]
    moments = sorted(ended.values())
    for at, name in enumerate(names):
        begun = moments[at - width] if at >= width else None
        yield Sample(name, spent[name], None if begun is None else ended[name] - begun)


def trainings(output: Path) -> Iterator[tuple[str, float]]:
    """Name and training seconds of each run in an output folder."""
    for path in (output / "runs").iterdir():
        record, entries = RunFolder(path).record(), RunFolder(path).metrics_log.entries()
        first, last = entries[0], entries[-1]
        steps = first.step * record.config["batch_size"] / first.clock["images_per_second"]
        yield record.name, steps + last.clock["time"] - first.clock["time"]


def summary(name: str, commands: Sequence[Command], runs: Sequence[Sample], width: int) -> dict[str, object]:
    wall = sum(command.end - command.start for command in commands)
    whole = (wall * width - sum(sample.training for sample in runs)) / len(runs)
    later = [sample.overhead for sample in runs if sample.overhead is not None]
    spread = f"mean {statistics.mean(later):.2f}, {min(later):.2f} to {max(later):.2f} s"
    print(
        f"{name:12} overhead per run: whole {whole:.2f} s; later runs: median {statistics.median(later):.2f}, {spread}"
    )
    return {"whole": whole, "wall": wall, "runs": [{**asdict(s), "overhead": s.overhead} for s in runs]}


def median(runs: Sequence[Sample]) -> float:
    return statistics.median(sample.overhead for sample in runs if sample.overhead is not None)


if __name__ == "__main__":
    main()

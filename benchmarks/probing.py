"""Measure what stored tokens and shared batches save when eight heads are trained on one frozen backbone.

    python benchmarks/probing.py [--images 64] [--epochs 12] [--records FOLDER]

live / stored: a grid of eight heads (four kinds, K = 1 and 4) on cct_7_3x1 at 32x32 with the digits; on one side the
backbone computes the tokens in each step, run by run; on the other all runs train in lock step on stored tokens.
Seconds that all runs together train for each image, without evaluation, checkpoints, start and end of the runs, and
without the computation of the tokens.

idle: the share of the training in which no head computes because a batch is not yet read, in the same grid and in a run
of the lightest head alone, in epochs of several batches. The runs have one thread, and the thread that reads has the
other core of two.

making / evaluation: computing and writing the tokens of twice as many images, and evaluating a classifier of the same
backbone on them as a run does, in batches of 64.

separate / shared: a grid of eight heads on tokens of a small backbone (cct_2_3x2 of width 32), whose steps take about a
millisecond. Seconds from the first start to the last end. "separate": a command for each run, two at a time, with one
thread each, extrapolated from the first ones; this is what other probing scripts do. "workers": a process of the local
launcher for each run, forked with all modules imported, two at a time. "shared": two that share the runs, as the
launcher does with two slots. "one process": all runs in one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

import torch

from headsweep.config import PROJECT_ROOT, RunConfig
from headsweep.data import token_cache
from headsweep.data.datasets import load
from headsweep.data.loader import EvalLoader
from headsweep.data.token_cache import TokenCache, TokenReader
from headsweep.data.token_folder import TokenFolder
from headsweep.launch.local import scheduler
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.scheduler import Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.models import model_of
from headsweep.models.frozen import FrozenBackbone
from headsweep.plan.lookup import Lookup
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.lock_step import in_lock_step
from headsweep.run.stored_tokens import new_record
from headsweep.run.token_streams import TokenStreams
from headsweep.run.train_run import preflight, train_folder, train_in_steps
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.evaluation import evaluate
from headsweep.training.ranks import Ranks
from measuring import AA, Benchmark, compose, parser, ratio

KINDS, BRANCHES = ("gap", "seqpool", "seqattn", "ep"), (1, 4)
GRID = [[f"head={kind}", f"heads={count}"] for kind in KINDS for count in BRANCHES]
FROZEN = ["backbone=random", "augmentation=none", "schedule.warmup='0 epochs'", "tracking=none"]
LARGE = [*FROZEN, "model=cct_7_3x1", "dataset.image_size=32", "dataset.validation=0"]
SMALL = [*FROZEN, "model.width=32", "model.depth=1", "model.attention_heads=1"]
LIVE_EPOCHS = 2  # the first one is not measured
SLOTS = 2
FILE_BYTES = 2**22  # 32 images of the large backbone
CPU = torch.device("cpu")


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("probing", args)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        making(bench, Path(scratch))
        with patch.object(token_cache, "SHARD_BYTES", FILE_BYTES):  # usual files hold more images than are needed
            stored(bench, Path(scratch))
            waiting(bench, Path(scratch))
        shared(bench, Path(scratch))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=2)
    made.set_defaults(threads=1)  # as the launcher gives to each process where there are as many as cores
    made.add_argument("--images", type=int, default=32, help="of the large backbone: one batch, and as many to test")
    made.add_argument("--epochs", type=int, default=12, help="of a run on stored tokens")
    made.add_argument("--steps", type=int, default=100, help="of a run on tokens of the small backbone")
    made.add_argument("--batches", type=int, default=16, help="of the large backbone in an epoch, to measure idle time")
    made.add_argument("--separate", type=int, default=2, help="runs in a command each")
    return made.parse_args(words)


def stored(bench: Benchmark, scratch: Path) -> None:
    """Measure live and stored tokens."""
    plan = partial(large, bench, scratch, 1)
    train_folder(plan("first", GRID[:1], 1)[0], lambda progress: None)  # computes the tokens
    live, cached = [], []
    for number in range(bench.args.rounds):
        folders = plan(f"live-{number}", GRID, LIVE_EPOCHS, "tokens.cache=off")
        for folder in folders:
            train_folder(folder, lambda progress: None)
        live.append(seconds_per_image(folders))
        folders = plan(f"stored-{number}", GRID, bench.args.epochs)
        in_this_process(folders)
        cached.append(seconds_per_image(folders))
    bench.add("live / stored", {"live": live, "stored": cached}, "s")
    print(f"live / stored: {ratio(live, cached)}, {1e3 * min(cached):.2f} ms an image for the grid", flush=True)


def waiting(bench: Benchmark, scratch: Path) -> None:
    """Measure the time in which heads wait for stored tokens."""
    plan = partial(large, bench, scratch, bench.args.batches)
    train_folder(plan("more", GRID[:1], 1)[0], lambda progress: None)  # computes the tokens
    grid, alone = [], []
    for number in range(bench.args.rounds):
        grid.append(percent_waiting(plan(f"grid-{number}", GRID, 3)))
        alone.append(percent_waiting(plan(f"alone-{number}", GRID[:1], bench.args.epochs)))
    bench.add("idle", {"grid": grid, "gap alone": alone}, "%")
    print(f"idle: grid {max(grid):.1f} %, gap alone {max(alone):.1f} %", flush=True)


def large(
    bench: Benchmark,
    scratch: Path,
    batches: int,
    name: str,
    cells: Sequence[Sequence[str]],
    epochs: int,
    *keys: str,
) -> list[RunFolder]:
    """Plan runs on the large backbone with `batches` in an epoch."""
    size = bench.args.images
    few = [f"batch_size={size}", f"debug.train_images={batches * size}", f"debug.eval_images={size}"]
    given = [*LARGE, *few, f"duration='{epochs} epochs'", f"paths.cache={scratch / 'cache'}", *keys]
    return planned(scratch / name, cells, given)


def making(bench: Benchmark, scratch: Path) -> None:
    """Measure the computation of tokens beside an evaluation of the same images."""
    (run,) = Lookup().resolved([compose([*LARGE, "head=seqpool"])])
    images = load(run.dataset)[0].subset(torch.arange(2 * bench.args.images))
    model = model_of(run).eval()
    backbone = FrozenBackbone(model.backbone, CPU, nullcontext)
    loader = EvalLoader(images, run.dataset, run.batch_size, CPU, 0)
    folders = (TokenFolder(scratch / "made" / str(number)) for number in count())

    def make() -> None:
        record, folder = new_record(run, model.backbone, {"train": len(images)}), next(folders)
        folder.path.mkdir(parents=True)
        given = (folder, record, run.dataset, run.augmentation, lambda: {"train": images}, lambda: backbone)
        cache = TokenCache(*given, CPU, 0, lambda: None)
        cache.complete({"train": torch.arange(len(images))})

    def pass_over() -> None:
        evaluate(model, loader, nullcontext(), Ranks())

    sides = {"evaluation": pass_over, "making": make, "evaluation again": pass_over}
    times = bench.measure("making / evaluation", sides, images=len(images)).wall
    bench.add(AA, {side: times[side] for side in ("evaluation", "evaluation again")})


def shared(bench: Benchmark, scratch: Path) -> None:
    """Measure commands, and the processes of the local launcher, with and without groups."""
    processes = Processes()
    names = (f"shared-{number}" for number in count())
    given = [*SMALL, f"duration='{bench.args.steps} steps'", f"paths.cache={scratch / 'cache'}"]
    sides = {"workers": partial(launched, SLOTS, False), "shared": partial(launched, SLOTS, True)}
    sides["one process"] = partial(launched, 1, True)
    samples: dict[str, list[float]] = {side: [] for side in sides}
    launched(1, True, processes, planned(scratch / "first", GRID[:1], given))  # waits for imports, computes the tokens
    for _ in range(bench.args.rounds + 1):
        for side, launch in sides.items():
            samples[side].append(launch(processes, planned(scratch / next(names), GRID, given)))
    samples["separate"] = [commands(bench, scratch / "separate", given)] * len(samples["shared"])
    bench.add("separate / shared", samples, "s")
    for side in ("separate", "workers", "one process"):
        print(f"{side} / shared: {ratio(samples[side], samples['shared'])}", flush=True)


def commands(bench: Benchmark, output: Path, given: Sequence[str]) -> float:
    """Train the first runs by a command each, SLOTS at a time; return the seconds that all of them would take."""
    cells = GRID[: bench.args.separate]
    program = [sys.executable, str(PROJECT_ROOT / "src" / "train.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    for first in range(0, len(cells), SLOTS):
        words = [[*program, *cell, *given, f"paths.output={output}"] for cell in cells[first : first + SLOTS]]
        running = [subprocess.Popen(it, env=environment, stdout=subprocess.DEVNULL) for it in words]
        codes = [process.wait() for process in running]
        assert not any(codes), "a run has failed"
    return (time.perf_counter() - started) * len(GRID) / len(cells)


def planned(output: Path, cells: Sequence[Sequence[str]], given: Sequence[str]) -> list[RunFolder]:
    plan = make_plan([compose([*given, *cell, f"paths.output={output}"]) for cell in cells])
    costs: dict[str, RunConfig] = {it.fingerprint: it.run for it in plan.runs}
    freeze(plan, {fingerprint: preflight(run) for fingerprint, run in costs.items()})
    return plan.folders


def in_this_process(folders: Sequence[RunFolder]) -> None:
    """Train runs in lock step. Raises what a run raises."""
    streams = TokenStreams()
    for _, error in in_lock_step([train_in_steps(it, lambda progress: None, streams=streams) for it in folders]):
        if error:
            raise error


def launched(slots: int, are_grouped: bool, processes: Processes, folders: Sequence[RunFolder]) -> float:
    """Train runs as the local launcher does, with one thread each; return the seconds."""

    def start(group: Sequence[RunFolder], gpu: str | None) -> tuple[ForkServerProcess, Connection]:
        return processes.start("train", [folder.path for folder in group], 1, gpu, None)

    separate = patch.object(scheduler, "grouped", lambda runs, slots: [[index] for index in range(len(runs))])
    with nullcontext() if are_grouped else separate, Display(len(folders), epoch_lines=False) as display:
        display.say = lambda line: None
        schedule = Schedule(folders, Slots(slots, 1, ()), start, None, display, lambda folder: None)
        started = time.perf_counter()
        schedule()
        seconds = time.perf_counter() - started
    assert all(folder.result() for folder in folders), "a run has failed"
    return seconds


def percent_waiting(folders: Sequence[RunFolder]) -> float:
    """Train runs in lock step; return the share of their training in which a batch was waited for."""
    waited = 0.0
    read: Callable[..., Iterator[torch.Tensor]] = TokenReader.read

    def timed(reader: TokenReader, key: int, batches: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonlocal waited
        found = read(reader, key, batches)
        for _ in batches:
            started = time.perf_counter()
            tokens = next(found)
            waited += (time.perf_counter() - started) * (reader.source.names == ["train"])
            yield tokens

    with patch.object(TokenReader, "read", timed):
        in_this_process(folders)
    return 100 * waited / sum(result.clock["train_seconds"] for it in folders if (result := it.result()))


def seconds_per_image(folders: Sequence[RunFolder]) -> float:
    """Return the seconds that all runs together train for each image, in the median epoch but for the first."""
    epochs = [[entry.clock["images_per_second"] for entry in it.metrics_log.entries()[1:]] for it in folders]
    return sum(1 / statistics.median(its) for its in epochs)


if __name__ == "__main__":
    main()

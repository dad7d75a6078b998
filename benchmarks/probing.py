"""Measure what stored tokens and shared batches save when eight heads are trained on one frozen backbone.

    python benchmarks/probing.py [--images 64] [--epochs 12] [--records FOLDER]

live / stored: a grid of eight heads (four kinds, K = 1 and 4) on cct_7_3x1 at 32x32 with the digits; on one side the
backbone computes the tokens in each step, run by run; on the other all runs train in lock step on stored tokens.
Seconds that all runs together train for each image, without evaluation, checkpoints, start and end of the runs, and
without the computation of the tokens.

idle: the share of the training in which no head computes because a batch is read, in the same grid and in a run of the
lightest head alone.

making / evaluation: computing and writing the tokens of twice as many images, and evaluating a classifier of the same
backbone on them, in batches of at most 64.

separate / shared: a grid of eight heads on tokens of a small backbone (cct_2_3x2 of width 32), whose steps take about a
millisecond. Seconds from the first start to the last end, by the processes of the local launcher: one for each run, two
at a time; two that share the runs, as the launcher does with two slots; all runs in one. "fresh" is a command for each
run, one after the other, extrapolated from the first few.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
from headsweep.data.token_cache import TokenCache
from headsweep.data.token_folder import TokenFolder
from headsweep.launch.local import scheduler
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.local.scheduler import Schedule
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.models import model_of
from headsweep.models.frozen import FrozenBackbone
from headsweep.plan.plan import Lookup, freeze, make_plan
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
        shared(bench, Path(scratch))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=2)
    made.set_defaults(threads=1)  # as the launcher gives to each process where there are as many as cores
    made.add_argument("--images", type=int, default=32, help="of the large backbone: one batch, and as many to test")
    made.add_argument("--epochs", type=int, default=12, help="of a run on stored tokens")
    made.add_argument("--steps", type=int, default=100, help="of a run on tokens of the small backbone")
    made.add_argument("--fresh", type=int, default=2, help="runs in a command each")
    return made.parse_args(words)


def stored(bench: Benchmark, scratch: Path) -> None:
    """Measure live and stored tokens, and the time in which heads wait for stored ones."""
    few = [f"debug.train_images={bench.args.images}", f"debug.eval_images={bench.args.images}"]
    names = (f"stored-{number}" for number in count())

    def plan(cells: Sequence[Sequence[str]], epochs: int, *keys: str) -> list[RunFolder]:
        given = [
            *LARGE,
            f"batch_size={bench.args.images}",
            *few,
            f"duration='{epochs} epochs'",
            f"paths.cache={scratch / 'cache'}",
            *keys,
        ]
        return planned(scratch / next(names), cells, given)

    train_folder(plan(GRID[:1], 1)[0], lambda progress: None)  # computes the tokens
    live, cached, idle, alone = [], [], [], []
    for _ in range(bench.args.rounds):
        folders = plan(GRID, LIVE_EPOCHS, "tokens.cache=off")
        for folder in folders:
            train_folder(folder, lambda progress: None)
        live.append(seconds_per_image(folders))
        folders = plan(GRID, bench.args.epochs)
        idle.append(percent_reading(folders))
        cached.append(seconds_per_image(folders))
        alone.append(percent_reading(plan(GRID[:1], bench.args.epochs)))
    bench.add("live / stored", {"live": live, "stored": cached}, "s")
    print(f"live / stored: {ratio(live, cached)}, {1e3 * min(cached):.2f} ms an image for the grid", flush=True)
    bench.add("idle", {"grid": idle, "gap alone": alone}, "%")
    print(f"idle: grid {max(idle):.1f} %, gap alone {max(alone):.1f} %", flush=True)


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
    """Measure the processes of the local launcher, with and without groups."""
    processes = Processes()
    names = (f"shared-{number}" for number in count())
    given = [*SMALL, f"duration='{bench.args.steps} steps'", f"paths.cache={scratch / 'cache'}"]
    sides = {"separate": partial(launched, SLOTS, False), "shared": partial(launched, SLOTS, True)}
    sides["one process"] = partial(launched, 1, True)
    samples: dict[str, list[float]] = {side: [] for side in sides}
    launched(1, True, processes, planned(scratch / "first", GRID[:1], given))  # waits for imports, computes the tokens
    for _ in range(bench.args.rounds + 1):
        for side, launch in sides.items():
            samples[side].append(launch(processes, planned(scratch / next(names), GRID, given)))
    fresh = []
    for cell in GRID[: bench.args.fresh]:
        words = [*cell, *given, f"paths.output={scratch / 'fresh'}"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(PROJECT_ROOT / "src" / "train.py"), *words], check=True, capture_output=True
        )
        fresh.append(time.perf_counter() - started)
    whole = len(GRID) * sum(fresh) / len(fresh)
    bench.add("separate / shared", {**samples, "fresh": [whole] * len(samples["shared"])}, "s")
    for side in ("separate", "one process"):
        print(f"{side} / shared: {ratio(samples[side], samples['shared'])}", flush=True)
    print(f"separate / one process: {ratio(samples['separate'], samples['one process'])}; fresh: {whole:.0f} s")


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


def percent_reading(folders: Sequence[RunFolder]) -> float:
    """Train runs in lock step; return the share of their training in which a batch was read."""
    spent = 0.0
    read: Callable[..., None] = TokenCache.read

    def timed(cache: TokenCache, split: str, *arguments: torch.Tensor) -> None:
        nonlocal spent
        started = time.perf_counter()
        read(cache, split, *arguments)
        spent += (time.perf_counter() - started) * (split == "train")

    with patch.object(TokenCache, "read", timed):
        in_this_process(folders)
    return 100 * spent / sum(result.clock["train_seconds"] for it in folders if (result := it.result()))


def seconds_per_image(folders: Sequence[RunFolder]) -> float:
    """Return the seconds that all runs together train for each image, in the median epoch but for the first."""
    epochs = [[entry.clock["images_per_second"] for entry in it.metrics_log.entries()[1:]] for it in folders]
    return sum(1 / statistics.median(its) for its in epochs)


if __name__ == "__main__":
    main()

"""Measure images/s of 1, 2, 3 and 4 runs that share a GPU, or the CPU's cores.

    python benchmarks/packing.py [--most 4] [--rounds 3] [--seconds 5] [--device cuda] [--threads N] [--records FOLDER]
                                 [KEY=VALUE ...]

With the code of `hydra.launcher.slots=auto`: N processes train one configuration over the same seconds and write
nothing. KEY=VALUE are overrides as of `python src/train.py`; by default cct_7_3x1 on digits of 32x32 with full
augmentation, 256 images per batch (8 on a CPU). One run twice comes first (A/A), then rounds in which all numbers of
runs take turns. A run has the cores divided by the number of runs as threads, unless --threads is given. The record
names MPS (nvidia-cuda-mps-control -d) if it is active.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace

from headsweep.autotune.measurement import Unmeasured
from headsweep.autotune.throughput import Throughput
from headsweep.config import RunConfig
from headsweep.exit_codes import one_line_errors
from headsweep.launch.local import gpus as driver
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.signals import StopRequest
from headsweep.plan.lookup import Lookup
from measuring import AA, Benchmark, Row, Samples, compose, parser, ratio

DEFAULT = ["model=cct_7_3x1", "dataset.image_size=32", "augmentation=paper", "head=seqattn", "heads=4"]


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    gpus = driver.visible_gpus() if args.device == "cuda" else ()
    run = replace(configured(args.overrides or [*DEFAULT, f"batch_size={256 if gpus else 8}"]), device=args.device)
    args.batch_size = run.batch_size
    bench = Benchmark("packing", args, mps=bool(gpus) and driver.mps_is_active())
    throughput = Throughput(Processes(), run, gpus[0] if gpus else None, seconds=args.seconds)
    try:
        if args.compile_only:
            with StopRequest() as request:
                throughput.images_per_second(1, args.threads or cores(), request)
        else:
            measure(bench, throughput)
    except Unmeasured as error:
        raise SystemExit(f"packing.py: {error}") from None


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__, rounds=3)
    made.set_defaults(threads=None, device="cuda" if driver.visible_gpus() else "cpu")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    made.add_argument("--most", type=int, default=4, help="concurrent runs")
    made.add_argument("--seconds", type=float, default=5.0, help="of a window, if four steps fit into it")
    made.add_argument("--compile-only", action="store_true", help="fill the compile cache; measure nothing")
    return made.parse_args(words)


def configured(overrides: Sequence[str]) -> RunConfig:
    (run,) = Lookup().resolved([compose(overrides)])
    return run


def measure(bench: Benchmark, throughput: Throughput) -> None:
    """Measure the A/A pair, then images/s by number of runs; a number that does not fit is left out from then on."""
    row: Row = {}
    samples: Samples = {}
    most = bench.args.most
    with StopRequest() as request:
        one, again = (throughput.images_per_second(1, bench.args.threads or cores(), request) for _ in range(2))
        bench.add(AA, {"1 run": [one], "1 run again": [again]}, "images/s")
        print(f"A/A {again / one:.3f}", flush=True)
        for _ in range(bench.args.rounds):
            for count in range(1, most + 1):
                threads = bench.args.threads or max(1, cores() // count)
                try:
                    speed = throughput.images_per_second(count, threads, request)
                except Unmeasured as error:
                    if count == 1:
                        raise
                    row["limit"] = f"{name(count)}: {error}"
                    for too_many in range(count, most + 1):
                        samples.pop(name(too_many), None)
                    most = count - 1
                    break
                samples.setdefault(name(count), []).append(speed)
                row = row or bench.add("concurrent runs", samples, "images/s", limit="")
                bench.write()
    bench.write()
    for side, speeds in samples.items():
        print(f"{side:7} {statistics.median(speeds):10,.1f} images/s, {ratio(speeds, samples['1 run'])} of one run's")
    if row["limit"]:
        print(row["limit"])


def cores() -> int:
    return len(os.sched_getaffinity(0))


def name(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


if __name__ == "__main__":
    with one_line_errors():
        main()

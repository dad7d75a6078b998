"""How many runs should share a GPU, or the CPU's cores? Images a second of 1, 2, 3 and 4 runs together.

    python benchmarks/packing.py [--most 4] [--rounds 3] [--seconds 5] [--device auto] [--threads N]
                                 [--json FILE] [KEY=VALUE ...]

What `hydra.launcher.slots=auto` measures, by the same code: so many processes train one configuration over the same
seconds, without a trace. The words KEY=VALUE are those of `python src/train.py`; without any it is cct_7_3x1 on digits
of 32x32 with full augmentation, 256 a batch (8 on a CPU). Two rounds of one run come first (A/A), then rounds in which
all numbers take turns. A run has the cores divided by the runs as threads, if not said otherwise. With MPS
(nvidia-cuda-mps-control -d) started or not, the same command is the comparison of the two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headsweep.autotune.measurement import Unmeasured
from headsweep.autotune.throughput import Throughput
from headsweep.config import RunConfig, parse
from headsweep.config.expansion import composer
from headsweep.errors import UserError
from headsweep.exit_codes import one_line_errors
from headsweep.launch.local import gpus as driver
from headsweep.launch.local.forkserver import Processes
from headsweep.launch.signals import StopRequest
from headsweep.plan.plan import resolve
from measuring import AA, Results, above_zero, positive, surroundings

USUAL = ["model=cct_7_3x1", "dataset.image_size=32", "augmentation=paper", "head=seqattn", "heads=4"]


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    gpus = () if args.device == "cpu" else driver.visible_gpus()
    if args.device == "cuda" and not gpus:
        print("--device cuda: this machine shows no GPU; want --device cpu", file=sys.stderr)
        raise SystemExit(2)
    run = configured(args.words or [*USUAL, f"batch_size={256 if gpus else 8}"])
    device = "cuda" if gpus else "cpu"
    run = replace(run, device=device)
    mps = bool(gpus) and driver.mps_is_active()
    results = Results("packing", args, device)
    results.content["machine"]["mps"] = mps
    results.content["settings"]["batch_size"] = run.batch_size
    print(f"{surroundings()}; {driver.name(gpus[0]) if gpus else 'CPU'}{' with MPS' if mps else ''}", flush=True)
    throughput = Throughput(Processes(), run, gpus[0] if gpus else None, seconds=args.seconds)
    try:
        if args.compile_only:
            with StopRequest() as request:
                throughput.images_per_second(1, args.threads or cores(), request)
            return
        measure(results, throughput, args.most, args.rounds, args.threads)
    except Unmeasured as error:
        raise SystemExit(f"packing.py: {error}") from None
    report(results.content["rows"][-1])


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--most", type=positive, default=4, help="runs at a time")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seconds", type=above_zero, default=5.0, help="of a window, if four steps fit into it")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=positive, help="of each run on the CPU")
    parser.add_argument("--compile-only", action="store_true", help="fill the compile cache; measure nothing")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args(words)


def configured(words: list[str]) -> RunConfig:
    with composer() as compose:
        (run,) = resolve([parse(compose(words))])
    if isinstance(run, UserError):
        raise run
    return run


def measure(results: Results, throughput: Throughput, most: int, rounds: int, threads: int | None) -> None:
    """The A/A pair, then images a second by number of runs; a number that does not fit is left out from then on."""
    with StopRequest() as request:
        pair = [throughput.images_per_second(1, threads or cores(), request) for _ in range(2)]
        print(f"A/A       {pair[1] / pair[0]:.3f}", flush=True)
        results.add(AA, {"1 run": pair[:1], "1 run again": pair[1:]}, "images/s")
        row, counts = results.add("together", {}, "images/s", limit=""), list(range(1, most + 1))
        for _ in range(rounds):
            for count in list(counts):
                share = threads or max(1, cores() // count)
                try:
                    speed = throughput.images_per_second(count, share, request)
                except Unmeasured as error:
                    row["limit"] = f"{name(count)}: {error}"
                    counts = [fewer for fewer in counts if fewer < count]
                    row["samples"] = {name(fewer): row["samples"][name(fewer)] for fewer in counts}
                    break
                else:
                    row["samples"].setdefault(name(count), []).append(speed)
                finally:
                    results.write()


def cores() -> int:
    return len(os.sched_getaffinity(0))


def name(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


def report(row: dict[str, Any]) -> None:
    """Medians, and the median over rounds of the ratio within a round."""
    ones = row["samples"]["1 run"]
    for side, speeds in row["samples"].items():
        ratios = [speed / one for speed, one in zip(speeds, ones, strict=True)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{side:7} {statistics.median(speeds):10,.1f} images/s, {spread} of one run's")
    if row["limit"]:
        print(row["limit"])


if __name__ == "__main__":
    with one_line_errors():
        main()

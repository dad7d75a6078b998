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
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

from headsweep.config import RunConfig, parse
from headsweep.config.expansion import composer
from headsweep.errors import UserError
from headsweep.sweep import gpus as driver
from headsweep.sweep.measuring import Unmeasured
from headsweep.sweep.plan import resolve
from headsweep.sweep.processes import Processes
from headsweep.sweep.stopping import StopRequest
from headsweep.sweep.throughput import Throughput

USUAL = ["model=cct_7_3x1", "dataset.image_size=32", "augmentation=paper", "head=seqattn", "heads=4"]


def main() -> None:
    args = arguments()
    gpus = () if args.device == "cpu" else driver.visible_gpus()
    if args.device == "cuda" and not gpus:
        raise SystemExit("packing.py: --device cuda: this machine shows no GPU")
    run = configured(args.words or [*USUAL, f"batch_size={256 if gpus else 8}"])
    run = replace(run, device="cuda" if gpus else "cpu")
    told = {
        "device": driver.name(gpus[0]) if gpus else "cpu",
        "mps": bool(gpus) and driver.mps_is_active(),
        "cores": len(os.sched_getaffinity(0)),
        "words": args.words or USUAL,
        "batch_size": run.batch_size,
    }
    print(f"{told['device']}, {told['cores']} cores, MPS {'active' if told['mps'] else 'not active'}", flush=True)
    throughput = Throughput(Processes(), run, gpus[0] if gpus else None, seconds=args.seconds)
    try:
        samples = measure(throughput, args.most, args.rounds, args.threads)
    except Unmeasured as error:
        raise SystemExit(f"packing.py: {error}") from None
    report(samples)
    if args.json:
        args.json.write_text(json.dumps({**told, **samples}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--most", type=int, default=4, help="runs at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a window, if four steps fit into it")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="of each run on the CPU")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args()


def configured(words: list[str]) -> RunConfig:
    with composer() as compose:
        (run,) = resolve([parse(compose(words))])
    if isinstance(run, UserError):
        raise SystemExit(f"packing.py: {run}")
    return run


def measure(throughput: Throughput, most: int, rounds: int, threads: int | None) -> dict[str, object]:
    """The A/A pair, then images a second by number of runs; a number that does not fit is left out from then on."""
    cores = len(os.sched_getaffinity(0))
    with StopRequest() as request:
        pair = [throughput.images_per_second(1, threads or cores, request) for _ in range(2)]
        print(f"A/A        {pair[1] / pair[0]:.3f}", flush=True)
        samples: dict[int, list[float]] = {count: [] for count in range(1, most + 1)}
        limit = ""
        for _ in range(rounds):
            for count in list(samples):
                share = threads or max(1, cores // count)
                try:
                    samples[count].append(throughput.images_per_second(count, share, request))
                except Unmeasured as error:
                    limit = f"{count}: {error}"
                    samples = {fewer: speeds for fewer, speeds in samples.items() if fewer < count}
                    break
    return {"aa": pair, "images_per_second": samples, "limit": limit}


def report(samples: dict[str, object]) -> None:
    """Medians, and the median over rounds of the ratio within a round."""
    by_count, limit = samples["images_per_second"], samples["limit"]
    assert isinstance(by_count, dict)
    for count, speeds in by_count.items():
        ratios = [speed / one for speed, one in zip(speeds, by_count[1], strict=False)]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(
            f"{count} run{'s' * (count > 1):1}     {statistics.median(speeds):10,.1f} images/s, "
            f"{statistics.median(ratios):.3f} ({spread}) of one run's"
        )
    if limit:
        print(limit)


if __name__ == "__main__":
    main()

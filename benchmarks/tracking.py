"""What do a run's metrics cost it? The spool, MLflow's own client and our projection to MLflow, side by side.

    python benchmarks/tracking.py [--rounds 20] [--epochs 6] [--json FILE]

A step logs nothing; an epoch logs one line of 4 metrics, and one more for each of several heads. What the training
waits for is the spool (measured twice: the A/A pair); "synced" is what its next checkpoint waits for, with two syncs
of its own. MLflow's client would wait for its sqlite store: metric by metric, or all metrics at once with `log_metrics`
and `log_batch`. Our projection sends the same epoch from the launcher's process. All of them log one epoch in turn,
round by round; each spool of the pair comes after something of MLflow's, which the processor's caches are full of. CPU
time stands beside wall time, for machines that others use too.

A share of training is of an epoch of 196 steps of 8 ms: CIFAR at batch 256 on a GPU.

Last, whole commands with tracking=none and tracking=mlflow in turn, two runs at a time: does the launcher's process,
which imports MLflow and projects, slow the training down?
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from headsweep.tracking.metrics_log import Entry, MetricsLog
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder, RunRecord
from measuring import AA, Results, Took, clock, positive, ratio
from sweep import run, slots, trainings

EPOCH_SECONDS = 196 * 8e-3
AGAIN = "spool again"
Log = Callable[[int, dict[str, float]], object]  # takes an epoch and its metrics


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    results = Results("tracking", args)
    with tempfile.TemporaryDirectory(prefix="headsweep-bench-") as scratch:
        for heads in (1, 8):
            logging(heads, args.rounds, Path(scratch) / str(heads), results)
        training(args.epochs, Path(scratch), results)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=20, help="epochs that each way logs")
    parser.add_argument("--epochs", type=positive, default=6, help="of a run that is trained with and without MLflow")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args(words)


def logging(heads: int, rounds: int, scratch: Path, results: Results) -> None:
    """Milliseconds, wall and CPU, that each way takes for one epoch, after one round to warm up."""
    with ExitStack() as stack:
        ways = all_ways(scratch, stack)
        took = Took({name: [] for name in ways}, {name: [] for name in ways})
        for epoch in range(1, rounds + 2):
            for name, log in ways.items():
                wall, cpu = clock(partial(log, epoch, epoch_metrics(heads, epoch)), torch.device("cpu"))
                if epoch > 1:
                    took.wall[name].append(wall)
                    took.cpu[name].append(cpu)
    show(took, len(epoch_metrics(heads, 1)))
    for row, names in ((AA, ["spool", AGAIN]), (f"heads={heads}", [name for name in took.wall if name != AGAIN])):
        wall, cpu = ({name: samples[name] for name in names} for samples in took)
        results.add(row, wall, cpu_samples=cpu, heads=heads)


def epoch_metrics(heads: int, epoch: int) -> dict[str, float]:
    """What a run logs of an epoch."""
    names = ["train/loss", "val/loss", "val/top1", "val/top5"]
    names += [f"val/per_head/top1_{head}" for head in range(1, heads + 1)] if heads > 1 else []
    return {name: (at + 1) / (epoch + 6) for at, name in enumerate(names)}


def all_ways(scratch: Path, stack: ExitStack) -> dict[str, Log]:
    folder = planned(scratch / "runs" / "projected")
    stack.enter_context(folder.lock())  # as a run that trains
    uri = default_uri(scratch)
    experiment = prepare(uri, "benchmark", scratch)
    attached = []  # what the last projection found

    def projection(epoch: int, metrics: dict[str, float]) -> None:
        attached[:] = [reconcile(folder, uri, experiment, *attached)]

    return {
        "spool": spooled(folder.metrics_log),
        "spool, synced": synced(MetricsLog(scratch / "synced.jsonl")),
        "projection": projection,
        AGAIN: spooled(MetricsLog(scratch / "again.jsonl")),
        **clients(uri, experiment),
    }


def planned(path: Path) -> RunFolder:
    folder = RunFolder(path)
    tracking = {"uri": None, "experiment": "benchmark"}
    folder.create(RunRecord(path.name, "group", path.name, "sweep", 0, {"tracking": tracking}, {}, {}, {}), "")
    return folder


def spooled(spool: MetricsLog) -> Log:
    def log(epoch: int, metrics: dict[str, float]) -> None:
        spool.append(Entry(epoch, 196 * epoch, metrics, {"time": time.time(), "images_per_second": 30_000.0}))

    return log


def synced(spool: MetricsLog) -> Log:
    append = spooled(spool)

    def log(epoch: int, metrics: dict[str, float]) -> None:
        append(epoch, metrics)
        spool.sync()

    return log


def clients(uri: str, experiment: str) -> dict[str, Log]:
    """MLflow as its users call it, each way with an MLflow run of its own."""
    import mlflow
    from mlflow.entities import Metric

    store = client(uri)
    mlflow.set_tracking_uri(uri)
    one, many, batch = (store.create_run(experiment).info.run_id for _ in range(3))

    def log_metric(epoch: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            store.log_metric(one, name, value, step=epoch)

    def log_batch(epoch: int, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        store.log_batch(batch, [Metric(name, value, now, epoch) for name, value in metrics.items()])

    return {
        "MLflow log_metric": log_metric,
        "MLflow log_metrics": lambda epoch, metrics: mlflow.log_metrics(metrics, epoch, run_id=many),
        "MLflow log_batch": log_batch,
    }


def show(took: Took, metrics: int) -> None:
    print(f"{metrics} metrics an epoch; shares are of {EPOCH_SECONDS:.2f} s of training; medians")
    print(f"  {'':18} {'ms':>8} {'CPU ms':>8} {'us a metric':>11} {'share':>8} {'x spool':>8}")
    for name, samples in took.wall.items():
        wall, cpu = statistics.median(samples), statistics.median(took.cpu[name])
        times, share = ratio(samples, took.wall["spool"]).median, wall / EPOCH_SECONDS / 1e3
        print(f"  {name:18} {wall:8.3f} {cpu:8.3f} {wall / metrics * 1e3:11.0f} {share:8.3%} {times:8.1f}", flush=True)


def training(epochs: int, scratch: Path, results: Results) -> None:
    """Seconds of training of two runs at a time; tracking=none comes twice: the A/A pair."""
    seconds = {}
    for name in ("none", "mlflow", "none again"):
        output = scratch / name.replace(" ", "-")
        words = [f"tracking={name.split()[0]}", f"duration='{epochs} epochs'", f"paths.output={output}"]
        run(["-m", "seed=0,1", *slots(2), *words])
        seconds[name] = sum(spent for _, spent in trainings(output))
    calm = (seconds["none"] + seconds["none again"]) / 2
    print(f"training with tracking=mlflow / none: {seconds['mlflow'] / calm:.3f}", end="; ")
    print(f"A/A {seconds['none again'] / seconds['none']:.3f}; {seconds}")
    for row, side in ((AA, "none again"), ("training", "mlflow")):
        results.add(row, {name: [seconds[name]] for name in ("none", side)}, "s")


if __name__ == "__main__":
    main()

"""What do a run's metrics cost it? The spool, MLflow's own client and our projection to MLflow, side by side.

    python benchmarks/tracking.py [--rounds 20] [--epochs 6] [--json FILE]

A step logs nothing; an epoch logs one line of 4 metrics, and one more for each of several heads. What the training
waits for is the spool (measured twice: the A/A pair); "synced" is what its next checkpoint waits for, with two syncs
of its own. MLflow's client would wait for its sqlite store: metric by metric, or all metrics at once with `log_metrics`
and `log_batch`. Our projection sends the same epoch from the launcher's process. All of them log one epoch in turn,
round by round; the first finds the processor's caches full of MLflow, the others do not. CPU time stands beside wall
time, for machines that others use too.

A share of training is of an epoch of 196 steps of 8 ms: CIFAR at batch 256 on a GPU.

Last, whole commands with tracking=none and tracking=mlflow in turn, two runs at a time: does the launcher's process,
which imports MLflow and projects, slow the training down?
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from headsweep.tracking.mlflow_run import project
from headsweep.tracking.mlflow_store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder, RunRecord
from headsweep.tracking.spool import Entry, Spool
from measuring import header
from sweep import run, slots, trainings

EPOCH_SECONDS = 196 * 8e-3
Log = Callable[[int, dict[str, float]], object]  # takes an epoch and its metrics


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="headsweep-bench-") as scratch:
        figures = {f"heads={heads}": logging(heads, args.rounds, Path(scratch) / str(heads)) for heads in (1, 8)}
        figures["training"] = training(args.epochs, Path(scratch))
    if args.json:
        args.json.write_text(json.dumps({**header("tracking"), **figures}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="epochs that each way logs")
    parser.add_argument("--epochs", type=int, default=6, help="of a run that is trained with and without MLflow")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args()


def logging(heads: int, rounds: int, scratch: Path) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds, wall and CPU, that each way takes for one epoch, after one round to warm up."""
    with ExitStack() as stack:
        ways = all_ways(scratch, stack)
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for epoch in range(1, rounds + 2):
            for name, log in ways.items():
                wall, cpu = time.perf_counter(), time.process_time()
                log(epoch, epoch_metrics(heads, epoch))
                samples[name].append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    samples = {name: times[1:] for name, times in samples.items()}
    show(samples, len(epoch_metrics(heads, 1)))
    return samples


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
        attached[:] = [project(folder, uri, experiment, *attached)]

    return {
        "spool": spooled(folder.spool),
        "spool again": spooled(Spool(scratch / "again.jsonl")),
        "spool, synced": synced(Spool(scratch / "synced.jsonl")),
        "projection": projection,
        **clients(uri, experiment),
    }


def planned(path: Path) -> RunFolder:
    folder = RunFolder(path)
    tracking = {"uri": None, "experiment": "benchmark"}
    folder.create(RunRecord(path.name, "group", path.name, "sweep", 0, {"tracking": tracking}, {}, {}, {}), "")
    return folder


def spooled(spool: Spool) -> Log:
    def log(epoch: int, metrics: dict[str, float]) -> None:
        spool.append(Entry(epoch, 196 * epoch, metrics, {"time": time.time(), "images_per_second": 30_000.0}))

    return log


def synced(spool: Spool) -> Log:
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


def show(samples: Mapping[str, list[tuple[float, float]]], metrics: int) -> None:
    print(f"{metrics} metrics an epoch; shares are of {EPOCH_SECONDS:.2f} s of training; medians")
    print(f"  {'':18} {'ms':>8} {'CPU ms':>8} {'us a metric':>11} {'share':>8} {'x spool':>8}")
    spool = [wall for wall, _ in samples["spool"]]
    for name, times in samples.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(other / own for (other, _), own in zip(times, spool, strict=True))
        share = wall / EPOCH_SECONDS / 1e3
        print(f"  {name:18} {wall:8.3f} {cpu:8.3f} {wall / metrics * 1e3:11.0f} {share:8.3%} {ratio:8.1f}", flush=True)


def training(epochs: int, scratch: Path) -> dict[str, float]:
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
    return seconds


if __name__ == "__main__":
    main()

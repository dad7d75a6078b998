"""Measure what a run's metrics cost: the metrics log, MLflow's client and the projection to MLflow.

    python benchmarks/tracking.py [--rounds 20] [--epochs 6] [--records FOLDER]

A step logs nothing; an epoch logs one line of 4 metrics, and one more for each of several heads. Training waits for the
metrics log (measured twice: the A/A pair); "synced" is what its next checkpoint waits for, which itself syncs twice.
MLflow's client would wait for its sqlite store: metric by metric, or all metrics at once with `log_metrics` and
`log_batch`. The projection sends the same epoch from the launcher's process. All of them log one epoch in turn, round
by round; each metrics log of the pair follows a call of MLflow, which leaves the processor's caches cold.

A share of training is that of an epoch of 196 steps of 8 ms: CIFAR at batch 256 on a GPU.

Last, whole commands with tracking=none and tracking=mlflow, two runs at a time: does the launcher's process, which
imports MLflow and projects, slow down training?
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from headsweep.tracking.metrics_log import Entry, MetricsLog
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client, default_uri, prepare
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord
from measuring import AA, Benchmark, Step, interleaved, parser
from sweep import run, slots, trainings

EPOCH_SECONDS = 196 * 8e-3
AGAIN = "metrics log again"
Log = Callable[[int, dict[str, float]], object]  # takes an epoch and its metrics


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("tracking", args)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        for heads in (1, 8):
            logging(bench, heads, Path(scratch) / str(heads))
        training(bench, Path(scratch))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=20, help="epochs that are logged")
    made.add_argument("--epochs", type=int, default=6, help="of a run that is trained with and without MLflow")
    return made.parse_args(words)


def logging(bench: Benchmark, heads: int, scratch: Path) -> None:
    with ExitStack() as stack:
        sides = {name: one_epoch(log, heads) for name, log in all_logs(scratch, stack).items()}
        times = interleaved(sides, bench.args.rounds, bench.device)
    others = [name for name in sides if name != AGAIN]
    for row, names in ((AA, ["metrics log", AGAIN]), (f"heads={heads}", others)):
        wall, cpu = ({name: samples[name] for name in names} for samples in times)
        bench.add(row, wall, cpu_samples=cpu, heads=heads)
    metrics = len(epoch_metrics(heads, 1))
    print(f"{metrics} metrics per epoch; shares are of {EPOCH_SECONDS:.2f} s of training; medians")
    print(f"  {'':18} {'ms':>8} {'CPU ms':>8} {'us/metric':>9} {'share':>8}")
    for name, samples in times.wall.items():
        wall, cpu = statistics.median(samples), statistics.median(times.cpu[name])
        share = wall / EPOCH_SECONDS / 1e3
        print(f"  {name:18} {wall:8.3f} {cpu:8.3f} {wall / metrics * 1e3:9.0f} {share:8.3%}", flush=True)


def one_epoch(log: Log, heads: int) -> Step:
    epochs = count(1)

    def step() -> None:
        epoch = next(epochs)
        log(epoch, epoch_metrics(heads, epoch))

    return step


def epoch_metrics(heads: int, epoch: int) -> dict[str, float]:
    names = ["train/loss", "val/loss", "val/top1", "val/top5"]
    names += [f"val/per_head/top1_{head}" for head in range(1, heads + 1)] if heads > 1 else []
    return {name: (at + 1) / (epoch + 20) for at, name in enumerate(names)}


def all_logs(scratch: Path, stack: ExitStack) -> dict[str, Log]:
    folder = planned(scratch / "runs" / "projected")
    stack.enter_context(folder.lock())  # as a run in training
    uri = default_uri(scratch)
    experiment = prepare(uri, "benchmark", scratch)
    attached = []  # state of the last projection

    def projection(epoch: int, metrics: dict[str, float]) -> None:
        attached[:] = [reconcile(folder, uri, experiment, *attached)]

    return {
        "metrics log": logged(folder.metrics_log),
        "metrics log, synced": synced(MetricsLog(scratch / "synced.jsonl")),
        "projection": projection,
        AGAIN: logged(MetricsLog(scratch / "again.jsonl")),
        **clients(uri, experiment),
    }


def planned(path: Path) -> RunFolder:
    folder = RunFolder(path)
    tracking = {"uri": None, "experiment": "benchmark"}
    folder.create(RunRecord(path.name, "group", path.name, "sweep", 0, {"tracking": tracking}, {}, {}, {}), "")
    return folder


def logged(metrics_log: MetricsLog) -> Log:
    def log(epoch: int, metrics: dict[str, float]) -> None:
        metrics_log.append(Entry(epoch, 196 * epoch, metrics, {"time": time.time(), "images_per_second": 30_000.0}))

    return log


def synced(metrics_log: MetricsLog) -> Log:
    append = logged(metrics_log)

    def log(epoch: int, metrics: dict[str, float]) -> None:
        append(epoch, metrics)
        metrics_log.sync()

    return log


def clients(uri: str, experiment: str) -> dict[str, Log]:
    """The calls of MLflow's client, each with an MLflow run of its own."""
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


def training(bench: Benchmark, scratch: Path) -> None:
    """Measure seconds of training of two runs at a time; tracking=none twice: the A/A pair."""
    seconds = {}
    for name in ("none", "mlflow", "none again"):
        output = scratch / name.replace(" ", "-")
        epochs = f"duration='{bench.args.epochs} epochs'"
        run(["-m", "seed=0,1", *slots(2), f"tracking={name.split()[0]}", epochs, f"paths.output={output}"])
        seconds[name] = sum(spent for _, spent in trainings(output))
    for row, side in ((AA, "none again"), ("training", "mlflow")):
        bench.add(row, {name: [seconds[name]] for name in ("none", side)}, "s")
        print(f"training, {side} / none: {seconds[side]:.2f} s / {seconds['none']:.2f} s", flush=True)


if __name__ == "__main__":
    main()

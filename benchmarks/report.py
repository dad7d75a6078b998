"""Measure how the table and the report grow with the number of runs, in MLflow's sqlite and in Postgres.

    python benchmarks/report.py [--runs 1000 3000 10000] [--uri postgresql://...] [--keep DIR] [--records FOLDER]

Runs with 300 epochs of four metrics are inserted into the tables of a store that MLflow created; then the commands are
run as a user would run them. Each row has the seconds and peak memory of the command's process; A/A is the first and
the second of two equal commands.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy

from headsweep.exit_codes import one_line_errors
from headsweep.tracking.mlflow.store import prepare
from measuring import AA, Benchmark, parser

EPOCHS = 300
SEEDS = 5
METRICS = ("train/loss", "val/loss", "val/top1", "val/top5")
HEADS = ("seqpool", "ga", "seqattn", "gap", "cait")
BATCH = 200_000  # rows of one insert
COMMANDS = {
    "table": ["table", "params.`dataset.name` = 'cifar100'", "--format", "markdown"],
    "last3": ["table", "params.`dataset.name` = 'cifar100'", "--format", "csv", "--metric", "val_top1_last3"],
    "report": ["report", "params.`dataset.name` = 'cifar100'"],
}


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    bench = Benchmark("report", args)
    for runs in args.runs:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            folder = Path(args.keep or scratch) / str(runs)
            uri = args.uri or f"sqlite:///{folder}/mlflow.db"
            experiment = f"growth-{runs}"
            started = time.perf_counter()
            fill(uri, experiment, folder, runs)
            print(f"{runs} runs written in {time.perf_counter() - started:.0f} s", flush=True)
            store = ["--uri", uri, "--experiment", experiment, "--output", str(folder)]
            for command in args.commands:
                measure(bench, f"{uri.partition(':')[0]} {runs} {command}", [*COMMANDS[command], *store])


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, nargs="+", default=[1000, 3000, 10_000])
    made.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    made.add_argument("--uri", help="an MLflow database, e.g. postgresql://...; default: sqlite files")
    made.add_argument("--keep", help="folder in which the sqlite files stay")
    return made.parse_args(words)


def fill(uri: str, experiment: str, folder: Path, runs: int) -> None:
    """Make a store of `runs` finished runs, five seeds per cell."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment_id = prepare(uri, experiment, folder)
    engine = sqlalchemy.create_engine(uri)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine, only=["runs", "tags", "params", "latest_metrics", "metrics"])
    with engine.begin() as connection:
        for name, rows in _rows(int(experiment_id), runs, random.Random(0)):
            connection.execute(sqlalchemy.insert(tables.tables[name]), rows)


def _rows(experiment_id: int, runs: int, draw: random.Random) -> Iterator[tuple[str, list[dict[str, object]]]]:
    pending: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("runs", "tags", "params", "latest_metrics", "metrics")
    }
    for number in range(runs):
        for name, rows in _run(experiment_id, number, draw).items():
            pending[name] += rows
        if len(pending["metrics"]) >= BATCH:
            yield from ((name, rows) for name, rows in pending.items() if rows)
            pending = {name: [] for name in pending}
    yield from ((name, rows) for name, rows in pending.items() if rows)


def _run(experiment_id: int, number: int, draw: random.Random) -> dict[str, list[dict[str, object]]]:
    run_id, seed, cell = f"{experiment_id:08x}{number:024x}", number % SEEDS, number // SEEDS
    head, heads = HEADS[cell % len(HEADS)], 1 << (cell // len(HEADS) % 4)
    params = _parameters(head, heads, 1e-4 * (1 + cell // (4 * len(HEADS))), seed)
    tags = {
        "kind": "run",
        "fingerprint": f"{number:012x}",
        "group": f"{cell:012x}",
        "sweep": "growth",
        "commit": "0" * 40,
        "dirty": "false",
        "state": "finished",
        "data": "cifar100-00000000",
    }
    tags = {f"headsweep.{name}": value for name, value in tags.items()} | {
        "mlflow.runName": f"{head}{heads}-seed{seed}"
    }
    best = 0.75 + 0.002 * (cell % 7) + draw.gauss(0, 0.003)
    curves = {
        "train/loss": [4.6 * math.exp(-epoch / 80) for epoch in range(EPOCHS)],
        "val/loss": [4.6 * math.exp(-epoch / 90) + 0.5 for epoch in range(EPOCHS)],
        "val/top1": [best * (1 - math.exp(-epoch / 40)) for epoch in range(EPOCHS)],
        "val/top5": [min(1.0, 1.2 * best) * (1 - math.exp(-epoch / 30)) for epoch in range(EPOCHS)],
    }
    last = {name: (values[-1], EPOCHS) for name, values in curves.items()}
    last |= {"test/top1": (best, EPOCHS), "test/top5": (min(1.0, 1.2 * best), EPOCHS)}
    last |= {f"cost/{name}": (value, 0) for name, value in _costs(heads, number).items()}
    start = 1_700_000_000_000 + number
    common = {"run_uuid": run_id}
    return {
        "runs": [{
            **common, "name": tags["mlflow.runName"], "experiment_id": experiment_id, "status": "FINISHED",
            "start_time": start, "end_time": start + 1, "lifecycle_stage": "active", "artifact_uri": "", "user_id": "",
            "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": "",
        }],
        "tags": [{**common, "key": key, "value": value} for key, value in tags.items()],
        "params": [{**common, "key": key, "value": str(value)} for key, value in params.items()],
        "latest_metrics": [
            {**common, "key": key, "value": value, "step": step, "timestamp": start, "is_nan": False}
            for key, (value, step) in last.items()
        ],
        "metrics": [
            {**common, "key": key, "value": value, "step": epoch + 1, "timestamp": start + epoch, "is_nan": False}
            for key, values in curves.items()
            for epoch, value in enumerate(values)
        ],
    }  # fmt: skip


def _parameters(head: str, heads: int, lr: float, seed: int) -> dict[str, object]:
    return {
        "model.name": "cct_7_3x1",
        "head.name": head,
        "heads": heads,
        "dataset.name": "cifar100",
        "dataset.image_size": 32,
        "optimizer.name": "adamw",
        "optimizer.lr": lr,
        "optimizer.weight_decay": 0.06,
        "batch_size": 256,
        "duration": f"{EPOCHS} epochs",
        "decorrelation": 0.0,
        "seed": seed,
    }


def _costs(heads: int, number: int) -> dict[str, float]:
    return {
        "parameters": 3.7e6 + 1e5 * heads,
        "head_parameters": 1e5 * heads,
        "flops": 2.4e9,
        "head_flops": 1e7,
        "images_per_second": 5000 + number % 17,
        "train_seconds": 600.0,
        "peak_memory_gib": 1.5,
    }


def measure(bench: Benchmark, name: str, words: Sequence[str]) -> None:
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "headsweep.cli", *words], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    bench.add(AA, {"first": seconds[:1], "again": seconds[1:]}, "s", of=name)
    bench.add(name, {"seconds": seconds}, "s", peak_gib=peak)
    print(f"{name}: {seconds[0]:.2f} s, {seconds[1]:.2f} s; peak so far {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    with one_line_errors():
        main()

"""How the table and the report grow with the number of runs, in MLflow's sqlite and in Postgres.

    python benchmarks/report.py [--runs 1000,3000,10000] [--uri postgresql://...] [--keep DIR] [--json FILE]

Stores of so many runs with 300 epochs of four metrics are written straight into MLflow's tables (a store that MLflow
itself has made), then the commands are given as a user would. Each row says seconds and peak memory of the command's
process; A/A is the second of two equal commands over the first.
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

from headsweep.credentials import redacted
from headsweep.entry import one_line_errors
from headsweep.errors import UserError
from headsweep.tracking.mlflow.store import prepare, reason
from measuring import AA, Results, positive

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
    options = _options(words)
    if options.uri:
        _reach(options.uri)
    results = Results("report", options)
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(options.keep or scratch) / str(runs)
            uri = options.uri or f"sqlite:///{folder}/mlflow.db"
            experiment = f"growth-{runs}"
            started = time.perf_counter()
            fill(uri, experiment, folder, runs)
            print(f"{runs} runs written in {time.perf_counter() - started:.0f} s", flush=True)
            for command in options.commands:
                _measure(results, command, uri, experiment, folder, runs)


def _reach(uri: str) -> None:
    """Raises UserError where no database answers."""
    try:
        sqlalchemy.create_engine(uri).connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        want = "want that of a database that answers, e.g. postgresql://user:password@host/name"
        raise UserError(f"--uri {redacted(uri)}: {reason(error, uri)}; {want}") from None


def fill(uri: str, experiment: str, folder: Path, runs: int) -> None:
    """Make a store of `runs` finished runs, five seeds a cell."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment_id = prepare(uri, experiment, folder)
    engine = sqlalchemy.create_engine(uri)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine, only=["runs", "tags", "params", "latest_metrics", "metrics"])
    with engine.begin() as connection:
        for name, rows in _rows(int(experiment_id), runs, random.Random(0)):
            connection.execute(sqlalchemy.insert(tables.tables[name]), rows)


def _rows(experiment_id: int, runs: int, draw: random.Random) -> Iterator[tuple[str, list[dict[str, object]]]]:
    waiting: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("runs", "tags", "params", "latest_metrics", "metrics")
    }
    for number in range(runs):
        for name, rows in _run(experiment_id, number, draw).items():
            waiting[name] += rows
        if len(waiting["metrics"]) >= BATCH:
            yield from ((name, rows) for name, rows in waiting.items() if rows)
            waiting = {name: [] for name in waiting}
    yield from ((name, rows) for name, rows in waiting.items() if rows)


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


def _measure(results: Results, command: str, uri: str, experiment: str, folder: Path, runs: int) -> None:
    words = [
        sys.executable,
        "-m",
        "headsweep.cli",
        *COMMANDS[command],
        "--uri",
        uri,
        "--experiment",
        experiment,
        "--output",
        str(folder),
    ]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    kind = uri.partition(":")[0]
    name = f"{kind} {runs} {command}"
    results.add(AA, {"first": seconds[:1], "again": seconds[1:]}, "s", of=name)
    results.add(name, {"seconds": seconds}, "s", peak_gib=peak)
    print(
        f"{name}: {min(seconds):.2f} s, A/A {seconds[1] / seconds[0]:.2f}; peak so far {peak:.2f} GiB",
        flush=True,
    )


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=_numbers, default=[1000, 3000, 10_000], help="with commas between them")
    parser.add_argument("--commands", type=_commands, default=list(COMMANDS), help="with commas between them")
    parser.add_argument("--uri", help="a database of MLflow's, e.g. postgresql://...; default: sqlite files")
    parser.add_argument("--keep", help="folder in which the sqlite files stay")
    parser.add_argument("--json", type=Path, help="write raw samples here")
    return parser.parse_args(words)


def _numbers(text: str) -> list[int]:
    return [positive(word) for word in text.split(",")]


def _commands(text: str) -> list[str]:
    if unknown := [word for word in text.split(",") if word not in COMMANDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: unknown; known: {', '.join(COMMANDS)}")
    return text.split(",")


if __name__ == "__main__":
    with one_line_errors():
        main()

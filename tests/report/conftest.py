"""Run folders with results made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headsweep.cli import main
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run of `head` and `heads` with `seed`; `top1` None leaves it unfinished. Other values are configuration."""

    def make(head: str, heads: int, seed: int, top1: float | None, **options: Any) -> RunFolder:
        config: dict[str, Any] = {
            "model": {"name": "cct_2_3x2", "width": 128},
            "head": {"name": head} | ({"gram_dim": 192} if head == "ga" else {}),
            "dataset": {"name": "digits", "root": None},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "heads": heads,
            "seed": seed,
            "duration": "10 epochs",
        }
        code = options.pop("code", {"commit": "abc123", "dirty": False})
        shown = options.pop("parameters", {})
        place = {"device": options.pop("device", "cpu"), "precision": options.pop("precision", "float32")}
        speed = options.pop("speed", 1000.0 + seed)
        for key, value in options.items():
            _put(config, key.replace("__", "."), value)
        parameters = {"model.name": config["model"]["name"], "head.name": head, "heads": heads, "seed": seed}
        parameters |= {"duration": config["duration"], "optimizer.lr": config["optimizer"]["lr"]} | shown
        group = str({**config, "seed": None})
        record = RunRecord(
            fingerprint=f"{abs(hash((group, seed))):x}"[:12],
            group=group,
            name="",
            sweep="pilot",
            seed=seed,
            config=config,
            parameters=parameters,
            code=code,
            cost={"parameters": 283_723, "head_parameters": 1000, "flops": 7_500_000 * heads, "head_flops": 750_000},
        )
        folder = RunFolder(tmp_path / "runs" / record.fingerprint)
        folder.create(record, "")
        if top1 is not None:
            metrics = {"test/top1": top1, "test/top5": (1 + top1) / 2}
            clock = {"images_per_second": speed}
            folder.finish(RunResult("finished", metrics, 10, 100, clock, place))
        return folder

    return make


@pytest.fixture
def write_log() -> Callable[[RunFolder, list[float]], None]:
    """Let a finished run have reached these test accuracies, one an epoch."""

    def write(folder: RunFolder, top1: list[float]) -> None:
        for epoch, value in enumerate(top1, start=1):
            folder.metrics_log.append(Entry(epoch, epoch, {"test/top1": value, "test/top5": (1 + value) / 2}))
        result = folder.result()
        assert result is not None
        metrics = {"test/top1": top1[-1], "test/top5": (1 + top1[-1]) / 2}
        folder.finish(replace(result, epochs=len(top1), metrics=metrics))

    return write


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
    config[last] = value


@pytest.fixture
def diverge() -> Callable[[RunFolder], None]:
    """Let a finished run have diverged instead."""

    def change(folder: RunFolder) -> None:
        result = folder.result()
        assert result is not None
        folder.finish(replace(result, state="diverged", metrics={}))

    return change


@pytest.fixture
def give(tmp_path, monkeypatch, capsys):
    """Exit code and output of `headsweep table ARGUMENTS`."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["headsweep", "table", "--output", str(tmp_path), *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run

"""Whatever lies in the files of a run or a sweep, no command ends in a traceback, or breaks over other runs.

Each file is garbled in each way, and each command given: it names the file, or does not need it.
"""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from omegaconf import OmegaConf

from commands import give
from composing import compose_run
from headsweep.analysis import explain, power, reproduce
from headsweep.config.parsing import parse
from headsweep.launch import retry
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import run_sweep
from headsweep.plan import frozen
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking import atomic_files
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.screening import Round, Screening
from headsweep.tracking.sweep_folder import SweepFolder

COST = {"parameters": 1234, "head_parameters": 34, "flops": 5678, "head_flops": 78}
NESTED = "[" * 2_000  # twice the depth that Python allows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two heads with three seeds: all runs have ended but the last, which has failed, of the seed of the first."""
    output = tmp_path_factory.mktemp("outputs")
    cells = [compose_run(f"head={head}", "tracking=none", f"paths.output={output}") for head in ("seqpool", "ga")]
    seeds = ((0, 1, 2), (2, 1, 0))
    configs = [replace(cell, seed=seed) for cell, its in zip(cells, seeds, strict=True) for seed in its]
    plan = make_plan(configs)
    freeze(plan, {run.fingerprint: COST for run in plan.runs})
    sweep = SweepFolder(plan.folder)
    sweep.register(plan.folders)
    groups = list(dict.fromkeys(folder.record().group for folder in plan.folders))
    sweep.write_screening(Screening(2, 10, 2, (Round(1, dict.fromkeys(groups, 0.5), groups),)))
    for folder in plan.folders[:-1]:
        metrics = {"test/top1": 0.5 + folder.record().seed ** 2 / 100, "test/top5": 0.9}
        folder.metrics_log.append(Entry(1, 10, metrics, {"time": 1.7e9}))
        folder.write_test_correct(np.array([True, False]))
        atomic_files.write_json(folder.path / "mlflow.json", {"uri": "u", "experiment_id": "1", "run_id": "2"})
        folder.finish(RunResult("finished", metrics, 1, 10, {"train_seconds": 7.0}, {"device": "cpu"}))
    plan.folders[-1].fail("Traceback\nValueError: no")
    return output, configs, [folder.path.name for folder in plan.folders]


class Fake(InProcess):
    """Trains nothing."""

    def check(self, runs):
        return [COST for _ in runs]

    def start(self, missing, display, notify):
        pass

    def log_models(self, folders, config):
        return 0

    def find(self, runs):
        return [{"head": "ga", "seed": "0"} for _ in runs]


@pytest.fixture
def commands(trained, tmp_path, monkeypatch, capsys):
    """Exit code and output of each command over a copy of the sweep, in which a file may be changed first."""
    original, configs, (first, *_, failed) = trained
    output = shutil.copytree(original, tmp_path / "outputs")
    configs = [replace(it, paths=replace(it.paths, output=str(output))) for it in configs]
    monkeypatch.setattr(explain, "is_here", lambda commit, folders=(): True)
    monkeypatch.setattr(explain, "_is_the_same", lambda *_: True)
    for module in (explain, power):
        monkeypatch.setattr(module, "OverrideFinder", lambda compose: Fake())
        monkeypatch.setattr(module, "composer", lambda: nullcontext())
    monkeypatch.setattr(retry, "run_sweep", lambda *_, **__: None)
    monkeypatch.setattr(frozen, "parse", parse_once)
    monkeypatch.setattr(
        reproduce, "_train", lambda run, into, root, data: shutil.copytree(run.path, into / "runs" / run.path.name)
    )

    def run(name, target):
        output_option = ["--output", output]
        arguments = {
            "status": ["status"],
            "status SWEEP": ["status", "latest"],
            "logs": ["logs", target],
            "table": ["table"],
            "explain CELL": ["explain", "head=seqpool"],
            "explain RUN": ["explain", target],
            "power": ["power", "--difference", "1"],
            "retry": ["retry", target],
            "retry SWEEP": ["retry"],
            "reproduce": ["reproduce", target, "--code", "current", "--into", tmp_path / "again"],
        }
        if name == "grid":  # by way of a command that turns a mistake to one line
            monkeypatch.setattr(retry, "train_again", lambda *_: run_sweep(configs, Fake()))
            name = "retry SWEEP"
        code = give(*arguments[name], *output_option)
        monkeypatch.setattr(retry, "train_again", train_again)
        said = capsys.readouterr()
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        return code, said.out, said.err

    train_again = retry.train_again
    return run, output, first, failed


def parse_once(config):
    """The same configurations are read again and again, each time in a tenth of a second."""
    return parsed(pickle.dumps(OmegaConf.to_container(config)))


@cache
def parsed(pickled):
    return parse(OmegaConf.create(pickle.loads(pickled)))


def text(content):
    return lambda path: path.write_text(content)


def changed(**values):
    """A change of the values of a JSON object, or of the last line that has one."""

    def change(path):
        *lines, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        content = {key: value for key, value in (json.loads(last) | values).items() if value is not ...}
        path.write_text("\n".join([*lines, json.dumps(content)]) + "\n")

    return change


def folder(path):
    path.unlink()
    path.mkdir()


def link(path):
    elsewhere = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


ANYWHERE = {
    "empty": text(""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\n"),
    "binary": lambda path: path.write_bytes(b"\xff\x00\xfe\n" * 9),
    "a number": text("3\n"),
    "nested": text(NESTED + "\n"),
    "a folder": folder,
    "a link": link,
}
JSON = ANYWHERE | {"a list": text("[]\n"), "no key": text("{}\n"), "another key": changed(more=1)}
# What is damaged: the ways beside those, and the exit code of each command that needs it; the others end with 0.
READ_BY_ALL = {
    **dict.fromkeys(("status SWEEP", "logs"), 0),
    **dict.fromkeys(("table", "explain CELL", "power"), 1),
    **dict.fromkeys(("retry", "reproduce", "grid"), 2),
}
SWEEP = dict.fromkeys(("table", "explain CELL", "power"), 2) | dict.fromkeys(("status", "status SWEEP"), 0)
FILES = {
    "run.json": (
        JSON
        | {
            "a name outside": changed(fingerprint="../../a"),
            "an option of git": changed(code={"commit": "--upload-pack=x", "dirty": False}),
            "negative": changed(cost=COST | {"parameters": -5}),
            "a text as a number": changed(seed="0"),
            "control characters": changed(name="\x1b[2J"),
            "nested deeply": changed(config={"a": json.loads("[" * 50 + "]" * 50)}),
        },
        READ_BY_ALL | {"explain RUN": 2},
    ),
    "result.json": (
        JSON
        | {
            "impossible": changed(metrics={"test/top1": 7.0}),
            "an unknown end": changed(state="won"),
            "a text as a number": changed(metrics={"test/top1": "0.5"}),
            "beyond floats": changed(metrics={"loss": 10**400}),
        },
        READ_BY_ALL | {"explain RUN": 1},
    ),
    "metrics.jsonl": (
        {way: change for way, change in JSON.items() if way not in ("empty", "binary")}  # as a power cut leaves it
        | {
            "step 0": changed(step=0),
            "an impossible time": changed(clock={"time": 1e300}),
            "impossible": changed(metrics={"test/top1": 7.0}),
        },
        {command: code for command, code in READ_BY_ALL.items() if command not in ("table", "power")}
        | {"explain RUN": 1},
    ),
    "config.yaml": (
        {way: change for way, change in ANYWHERE.items() if way != "truncated"}
        | {
            "nested": text(NESTED[:600] + "\n"),  # three calls each; PyYAML takes the square of it
            "changed": lambda path: path.write_text(path.read_text().replace("heads: 1\n", "heads: 2\n")),
            "no YAML": text("a: [\n"),
            "a command": lambda path: path.write_text(path.read_text() + "+hydra.callbacks.x: {_target_: os.system}\n"),
            "Hydra's": lambda path: path.write_text(path.read_text() + "hydra: {callbacks: {}}\n"),
            "a secret": lambda path: path.write_text(path.read_text().replace("10 percent", "${oc.env:HOME}")),
        },
        {"explain CELL": 1, "retry": 2, "reproduce": 2, "explain RUN": 1},
    ),
    "failure.txt": (
        {way: change for way, change in ANYWHERE.items() if way != "truncated"}
        | {"no number": text("failed tries: many\nno\n")},
        {"status SWEEP": 0, "logs": 2, "retry": 2, "grid": 2},
    ),
    "sweeps.txt": ({"outside": text("../../a\n"), "binary": ANYWHERE["binary"]}, {"retry": 2, "grid": 2}),
    "mlflow.json": (JSON, {"explain CELL": 0, "explain RUN": 0}),
    "plan.json": (
        JSON | {"outside": changed(runs=["../../a"]), "no text": changed(runs=[3])},
        SWEEP | {"retry SWEEP": 2},
    ),
    "screening.json": (JSON | {"impossible": changed(eta=-1)}, SWEEP),
}
CASES = [(name, way) for name, (ways, _) in FILES.items() for way in ways]
# Cheap, and given for every way; `table` for the first way of a file that it does not need.
LIGHT = ("status", "status SWEEP", "logs")
COMMANDS = (*LIGHT, "table", "explain CELL", "explain RUN", "power", "retry", "reproduce")


@pytest.mark.slow
def test_all_is_well_without_damage(commands):
    run, _, first, _ = commands
    codes = {name: run(name, first)[0] for name in COMMANDS}
    assert codes == dict.fromkeys(COMMANDS, 0)
    code, _, err = run("grid", first)
    assert code == 1 and err.splitlines()[-1].endswith("ValueError: no")  # of the run that has failed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), CASES, ids=[f"{name} {way}" for name, way in CASES])
def test_damage_is_one_line_that_names_the_file_and_breaks_nothing_else(name, way, commands):
    run, output, first, failed = commands
    ways, needed = FILES[name]
    target = failed if name == "failure.txt" else first
    places = [output / "runs" / target / name, *output.glob(f"sweeps/*/{name}")]
    (path,) = [place for place in places if place.exists()]
    ways[way](path)
    others = COMMANDS if way == next(iter(ways)) else LIGHT
    # Both explain a run of the cell, and half of all time is theirs: of three ways of damage each is given one.
    given = [("explain RUN",), ("explain CELL",), ()][list(ways).index(way) % 3]
    left_out = {"explain CELL", "explain RUN"} - {*given} if others is LIGHT else ()
    for command in dict.fromkeys((*needed, *others)):
        if command in left_out:
            continue
        if name == "failure.txt" and command == "reproduce":
            continue  # the run has not ended
        code, out, err = run(command, target)
        said = f"{command}: {code} {out}{err}"
        assert code == needed.get(command, 0), said
        assert command not in needed or f"damaged: {path}, " in out + err, said
        assert all(line.startswith(("headsweep: ", target, "6 runs in")) for line in err.splitlines()), said


def test_a_run_whose_duration_has_no_end_breaks_no_look_at_others(commands):
    run, output, first, _ = commands
    path = output / "runs" / first / "run.json"
    config = json.loads(path.read_text())["config"]
    for duration in ("1e400 epochs", "1e300 epochs", "1.e.e epochs", "9e99 steps", "", 3):
        changed(config=config | {"duration": duration})(path)
        for command in ("status", "status SWEEP", "logs"):
            code, out, err = run(command, first)
            assert code == 0 and "finished" in out + err


@pytest.mark.slow
def test_answers_that_are_damaged_leave_a_run_out_where_they_are_needed(commands):
    run, output, *_ = commands
    for path in (output / "runs").iterdir():  # one seed is left of each head
        if json.loads((path / "run.json").read_text())["seed"] != 1:
            shutil.rmtree(path)
    target = min((output / "runs").iterdir())
    for change in (
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
        lambda path: np.save(path, np.array([True] * 7)),
        lambda path: np.save(path, np.array([1.0, 0.0])),
        text(""),
    ):
        change(target / "test_correct.npy")
        code, _, err = run("table", target.name)
        assert code == 1 and "test_correct.npy, expected " in err, err

"""A table of MLflow's runs is the table of their folders, whichever kind of store holds them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from headsweep.errors import UserError
from headsweep.report.read.cells import Cell, read_cells
from headsweep.report.read.tracked import read_tracked
from headsweep.report.table.build import compare
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Question
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import default_uri, prepare
from headsweep.tracking.mlflow.tracker import MlflowTracker
from postgres import postgres


@pytest.fixture(scope="module")
def uri(request, tmp_path_factory, empty_store) -> Iterator[str]:
    """A migrated store, sqlite unless a test asks for another; each test has an experiment of its own."""
    folder = tmp_path_factory.mktemp("store")
    if getattr(request, "param", "") == "postgres":
        with postgres() as address:
            prepare(address, "unused", folder)
            yield address
    else:
        shutil.copy(empty_store, folder)
        yield default_uri(folder)


def read(uri: str, experiment: str, query: str) -> list[Cell]:
    return read_tracked(MlflowTracker(uri, experiment, Path()), query)


STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
on_both = pytest.mark.parametrize("uri", STORES, indirect=True)


@pytest.fixture
def log(uri, request, tmp_path) -> Callable[..., str]:
    """Send runs to an experiment named after the test; its name."""

    def send(folders) -> str:
        experiment_id = prepare(uri, request.node.name, tmp_path)
        for at, folder in enumerate(folders):
            os.utime(folder.config, (at + 1, at + 1))  # MLflow has them in the order in which they were planned
            reconcile(folder, uri, experiment_id)
        return request.node.name

    return send


def numbers(table):
    """The parts of a table that do not depend on measured times."""
    return [
        (row.head, row.heads, row.axes, row.seeds, row.estimates, row.difference, row.p, row.state)
        for row in table.rows
    ]


@pytest.fixture
def study(make_run, write_log, diverge):
    """Two heads, three seeds, a diverged run; 0.1 and a third are no short decimals."""
    folders = [
        make_run(head, heads, seed, 0.9, optimizer__lr=0.1 / 3)
        for head in ("seqpool", "ga")
        for heads in (1, 4)
        for seed in (0, 1, 2)
    ]
    for at, folder in enumerate(folders):
        write_log(folder, [0.1, 1 / (3 + at), 0.5, 0.6])
    diverge(folders[-1])
    return folders


@pytest.mark.slow
@on_both
def test_mlflow_gives_the_table_of_the_folders(study, log, uri):
    question = Question(metric="top1_last3", columns=("top1_best",))
    stored = compare(read(uri, log(study), ""), question)
    assert numbers(stored) == numbers(compare(read_cells(study), question))
    assert stored.rows[0].costs["parameters"] == 283_723
    assert stored.footnotes == compare(read_cells(study), question).footnotes


def test_runs_of_mlflow_have_the_precision_that_they_trained_in(make_run, log, uri):
    folders = [make_run(head, 1, 0, 0.9) for head in ("ga", "gap")]
    folders[0].write_precision("bfloat16")  # that of the other one is only in its result, as of an older version
    folders[0].finish(replace(folders[0].result(), environment={}))
    found = read(uri, log(folders), "")
    assert [run.result.environment for cell in found for run in cell.runs] == [
        {"precision": "bfloat16"},
        {"precision": "float32"},
    ]


def test_runs_of_mlflow_have_the_code_of_their_folders(make_run, log, uri):
    packages = {"packages": {"lab-heads": "1.0 aaaa", "lab-data": "2.0 bbbb"}}
    codes = [
        {"commit": "abc123", "dirty": True, "changes": "0123456789abcdef"},
        {"commit": "abc123", "dirty": True, "changes": "fedcba9876543210"} | packages,
    ]
    folders = [make_run("ga", 1, seed, 0.9, code=code) for seed, code in enumerate(codes)]
    found = [run.record for cell in read(uri, log(folders), "") for run in cell.runs]
    assert [record.code_name for record in found] == ["abc123-dirty-01234567", "abc123-dirty-fedcba98"]
    assert [record.packages for record in found] == [{}, packages["packages"]]


@pytest.mark.slow
@on_both
def test_a_filter_is_mlflows(study, log, uri):
    experiment = log(study)
    store = MlflowClient(uri)
    experiment_id = store.get_experiment_by_name(experiment).experiment_id
    for query in (
        "params.`head.name` = 'ga'",
        "params.heads LIKE '4%' AND tags.`headsweep.seed` != '1'",
        "metrics.`test/top1` > 0.55",
        "attributes.status = 'FINISHED' and attributes.run_name LIKE '%'",
    ):
        wanted = {run.data.tags["headsweep.fingerprint"] for run in store.search_runs([experiment_id], query)}
        found = {run.record.fingerprint for cell in read(uri, experiment, query) for run in cell.runs}
        assert found == wanted != set()


@pytest.mark.slow
def test_deleted_runs_and_runs_of_other_programs_are_left_out(study, log, uri):
    experiment = log(study)
    store = MlflowClient(uri)
    experiment_id = store.get_experiment_by_name(experiment).experiment_id
    first = store.search_runs([experiment_id], order_by=["attributes.start_time"])[0]
    store.delete_run(first.info.run_id)
    stranger = store.create_run(experiment_id, tags={"headsweep.kind": "run"})
    store.log_param(stranger.info.run_id, "heads", "many")
    found = [run.record.fingerprint for cell in read(uri, experiment, "") for run in cell.runs]
    assert len(found) == len(study) - 1
    assert first.data.tags["headsweep.fingerprint"] not in found


def test_a_run_that_was_logged_twice_counts_once_as_the_one_that_finished(make_run, log, uri):
    folder = make_run("ga", 1, 0, 0.9)
    folder.checkpoint.write_bytes(b"")
    (folder.path / "result.json").rename(folder.path / "aside")
    folder.fail("no")
    experiment = log([folder])
    (folder.path / "mlflow.json").unlink()
    (folder.path / "aside").rename(folder.path / "result.json")
    MlflowClient(uri).set_tag(_only(uri, experiment), "headsweep.folder", "/elsewhere")
    log([folder])
    (cell,) = read(uri, experiment, "")
    assert [run.finished for run in cell.runs] == [True]


def _only(uri, experiment):
    store = MlflowClient(uri)
    (run,) = store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
    return run.info.run_id


@on_both
def test_a_number_that_is_not_finite_is_no_point(make_run, log, uri, write_log):
    folder = make_run("ga", 1, 0, 0.9)
    write_log(folder, [0.5, float("nan"), 0.6, 0.7, 0.8])
    (cell,) = read(uri, log([folder]), "")
    assert dict(cell.runs[0].history("test/top1")) == {1: 0.5, 3: 0.6, 4: 0.7, 5: 0.8}
    assert METRICS["top1_last3"].by_seed(cell) == {0: pytest.approx(0.7)}


MISTAKES = [
    ("params.heads = 4", "cannot be read (Expected a quoted string"),
    ("params.heads == '4'", "cannot be read ("),
    ("params.`head.name` = 'gap'", "no runs in experiment"),
]


@pytest.mark.parametrize(("query", "message"), MISTAKES)
def test_a_mistake_is_one_line(make_run, log, uri, query, message):
    experiment = log([make_run("ga", 4, 0, 0.9)])
    with pytest.raises(UserError) as caught:
        read(uri, experiment, query)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_store_or_experiment_that_is_not_there_is_named(uri, tmp_path):
    with pytest.raises(UserError, match=r"no MLflow store at /nowhere/mlflow\.db"):
        read("sqlite:////nowhere/mlflow.db", "headsweep", "")
    with pytest.raises(UserError, match=r"has no experiment none_such; known: Default, .*unused"):
        read(uri, "none_such", "")
    with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 cannot be read \("):
        read("http://127.0.0.1:9", "headsweep", "")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        read(f"sqlite:///{tmp_path}/text.db", "headsweep", "")


def test_a_metric_that_ended_as_nan_has_no_value_in_mlflow_either(make_run, write_log, log, uri):
    """MLflow gets no point for NaN, so its last value is of an earlier epoch."""
    folders = [make_run("ga", 1, seed, 0.9) for seed in (0, 1)]
    for folder in folders:
        write_log(folder, [0.7, 0.8])
    folders[1].metrics_log.append(Entry(3, 3, {"test/top1": float("nan"), "test/top5": 0.9}))
    folders[1].finish(replace(folders[1].result(), epochs=3, metrics={"test/top1": float("nan"), "test/top5": 0.9}))
    (cell,) = read(uri, log(folders), "")
    assert cell.by_seed("test/top1") == {0: 0.8} == read_cells(folders)[0].by_seed("test/top1")
    assert cell.by_seed("test/top5")[1] == 0.9

"""`sync` brings MLflow into agreement with an output folder: identical histories, and nothing twice."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from mlflow.entities import ViewType

from headsweep.errors import FailedRunsError, UserError
from headsweep.tracking import atomic_files
from headsweep.tracking.mlflow.store import client, prepare
from headsweep.tracking.mlflow.sync import sync
from headsweep.tracking.mlflow.tracker import MlflowTracker


@pytest.fixture
def sweep(make_run, make_sweep, result):
    """A sweep that is over: one run finished, one failed, one was stopped, one has no metrics yet."""
    runs = [make_run("a", epochs=3), make_run("b", epochs=2), make_run("c", epochs=1), make_run("d")]
    runs[0].checkpoint.write_bytes(b"weights")
    runs[0].finish(result)
    runs[1].fail("ValueError: no")
    sweep = make_sweep(runs)
    (sweep.path / "table.md").write_text("| head |\n")
    sweep.register(runs)
    return sweep


@pytest.fixture
def pair(make_run, make_sweep, result):
    """A sweep of a run that finished and one that was stopped."""
    runs = [make_run("a", epochs=1), make_run("b", epochs=1)]
    runs[0].finish(result)
    sweep = make_sweep(runs)
    sweep.register(runs)
    return sweep


@pytest.fixture
def synced(output):
    """The lines that `sync` prints."""

    def give(uri=None, experiment=None):
        lines = []
        sync(output, uri, experiment, lines.append)
        return lines

    return give


def live(sweep, uri, experiment, output):
    """Project as the sweep's own command does."""
    with MlflowTracker(uri, experiment, output) as tracker:
        for folder in (sweep, *sweep.runs()):
            tracker.notify(folder)


@pytest.mark.slow
def test_after_a_sweep_without_a_store_the_history_is_the_same(uri, output, sweep, synced, contents):
    live(sweep, uri, "live", output)
    lines = synced()
    assert contents(uri, "study") == contents(uri, "live")
    assert lines == [
        "pilot  new run, 1 parameters, 2 files, status",
        "ga4-a  new run, 8 points, 3 parameters, 3 files, status",
        "ga4-b  new run, 6 points, 3 parameters, 1 files, status",
        "ga4-c  new run, 4 points, 3 parameters, 1 files, status",
        "ga4-d  has no metrics yet",
        f"{uri}, experiment study: 4 of 5 had changes",
    ]


@pytest.mark.slow
def test_twice_changes_nothing(uri, sweep, synced, contents):
    synced()
    before = contents(uri, "study")
    assert [line.split("  ")[-1] for line in synced()[:4]] == ["nothing to send"] * 4
    assert contents(uri, "study") == before


@pytest.mark.slow
@pytest.mark.parametrize("deleted", ["ga4-a", "pilot"])
def test_what_was_deleted_in_mlflow_is_rebuilt(uri, output, sweep, synced, contents, deleted):
    synced()
    before = contents(uri, "study")
    found = client(uri).search_runs([prepare(uri, "study", output)], f"attributes.run_name = '{deleted}'")
    client(uri).delete_run(found[0].info.run_id)
    synced()
    assert contents(uri, "study") == before


def all_runs(uri, output, view=ViewType.ACTIVE_ONLY):
    return client(uri).search_runs([prepare(uri, "study", output)], run_view_type=view)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["experiment", "runs"])
def test_what_comes_back_from_the_trash_is_closed_and_tagged(uri, output, pair, synced, contents, how):
    """Of each fingerprint, and of the sweep, one active run stays, whichever an experiment brings back with it."""
    store = client(uri)
    for late in (2, 1):  # each time all is rebuilt, while the old ones are in the trash, one as RUNNING
        synced()
        before = contents(uri, "study")
        for run in all_runs(uri, output):
            store.update_run(run.info.run_id, status="RUNNING")
            store.delete_run(run.info.run_id)
        assert len(all_runs(uri, output, ViewType.DELETED_ONLY)) == 3 * (3 - late)
    lines = synced()
    assert len(lines) == 4
    if how == "experiment":
        store.delete_experiment(prepare(uri, "study", output))
    else:
        for run in all_runs(uri, output, ViewType.DELETED_ONLY):
            store.restore_run(run.info.run_id)
    assert [line.split("  ")[-1] for line in synced()[:3]] == ["2 duplicates closed"] * 3
    assert contents(uri, "study") == before  # which has one of each name
    kept = {run.info.run_name: run.info.run_id for run in all_runs(uri, output)}
    closed = all_runs(uri, output, ViewType.DELETED_ONLY)
    assert len(closed) == 6 and {run.info.status for run in closed} == {"KILLED"}
    assert all(run.data.tags["headsweep.superseded_by"] == kept[run.info.run_name] for run in closed)
    assert synced()[-1].endswith("0 of 3 had changes")


@pytest.mark.slow
def test_the_last_one_that_came_back_is_a_run_again(uri, output, sweep, synced, contents):
    """As when the one that had taken its place is deleted, too."""
    synced()
    before, store = contents(uri, "study"), client(uri)
    first = {run.info.run_id for run in all_runs(uri, output)}
    for run_id in first:
        store.set_tag(run_id, "headsweep.superseded_by", "gone")
    for path in output.glob("*/*/mlflow.json"):
        path.unlink()
    synced()
    assert {run.info.run_id for run in all_runs(uri, output)} == first
    assert contents(uri, "study") == before


@pytest.mark.slow
def test_runs_that_are_gone_for_good_are_made_anew_with_their_parent(uri, output, sweep, synced, contents):
    synced()
    before, store = contents(uri, "study"), client(uri)._tracking_client.store
    for run in all_runs(uri, output):
        client(uri).delete_run(run.info.run_id)
        store._hard_delete_run(run.info.run_id)  # what `mlflow gc` does
    assert synced()[-1].endswith("4 of 5 had changes")
    assert contents(uri, "study") == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a'b", 'a"b', "a/b; DROP TABLE runs ä %20 ?", "x" * 200])
def test_an_experiment_may_have_any_name(uri, pair, synced, name):
    assert synced(experiment=name)[-1].endswith("3 of 3 had changes")
    assert synced(experiment=name)[-1].endswith("0 of 3 had changes")


@pytest.mark.slow
def test_two_at_once_send_each_thing_once(uri, output, sweep, synced, contents):
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(synced), pool.submit(synced)]:
            done.result()
    assert len(all_runs(uri, output)) == 4
    assert synced()[-1].endswith("0 of 5 had changes")


def test_a_store_that_is_down_does_not_hold_up_the_others(uri, output, sweep, synced, refusing_port, make_run):
    lost = make_run("e", epochs=1)
    record = lost.record()
    record.config["tracking"]["uri"] = f"http://127.0.0.1:{refusing_port}"
    atomic_files.write_json(lost.path / "run.json", asdict(record))
    with pytest.raises(UserError, match="cannot be used"):
        synced()
    assert len(all_runs(uri, output)) == 4


@pytest.mark.slow
def test_another_store_and_experiment_can_be_given(uri, output, tmp_path, sweep, synced, contents):
    (tmp_path / "other").mkdir()
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    (tmp_path / "other" / "mlflow.db").write_bytes((output / "mlflow.db").read_bytes())
    synced()
    assert synced(other, "named")[-1] == f"{other}, experiment named: 4 of 5 had changes"
    assert contents(other, "named") == contents(uri, "study")


def test_a_damaged_run_is_named_and_the_others_are_sent(uri, sweep, synced, contents):
    sweep.runs()[0].metrics_log.path.write_text("not json\n")
    with pytest.raises(
        FailedRunsError, match=r"1 of 5 runs and sweeps failed; all others are in MLflow(.*)\n  ga4-a: "
    ):
        synced()
    assert set(contents(uri, "study")) == {"pilot", "ga4-b", "ga4-c"}


def test_a_store_that_cannot_be_reached_is_one_line_soon(refusing_port, attempts, sweep, synced):
    with pytest.raises(UserError) as mistake:
        synced(f"http://anna:geheim@127.0.0.1:{refusing_port}")
    assert len(attempts) == 2, "by MLflow's defaults it would be eight, within four minutes"
    said = str(mistake.value)
    assert said.startswith(f"MLflow at http://anna:***@127.0.0.1:{refusing_port} cannot be used (")
    assert "start it or give another address with --uri" in said
    assert "\n" not in said and "geheim" not in said


@pytest.mark.parametrize("address", ["./mlruns", "nonsense://x", "sqlite:///{output}/file/mlflow.db"])
def test_an_address_that_is_none_is_one_line(address, output, sweep, synced, monkeypatch):
    monkeypatch.chdir(output)  # some versions of MLflow make ./mlruns
    (output / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used") as mistake:
        synced(address.format(output=output))
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("revision", "hint"),
    [
        ("0584bdc529eb", r"make a copy of it, then run: \S*mlflow db upgrade sqlite:///\S*/mlflow.db\)"),
        ("ffffffffffff", r"a newer MLflow created it; install that version, e.g. pip install --upgrade mlflow\)"),
    ],
)
def test_a_store_of_another_mlflow_is_one_line_with_the_whole_hint(revision, hint, output, sweep, synced):
    with sqlite3.connect(output / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    said = rf"its schema is {revision}, and MLflow \S+ here expects \w+[;:] {hint}"
    with pytest.raises(UserError, match=said) as mistake:
        synced()
    assert "\n" not in str(mistake.value)


def test_a_file_that_is_no_database_is_one_line(output, sweep, synced):
    (output / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"cannot be used .*file is not a database"):
        synced()


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["attempt to write a readonly database", "database or disk is full"])
def test_a_store_that_takes_nothing_is_one_line_each_and_nothing_is_lost(
    problem, uri, output, sweep, synced, contents, monkeypatch
):
    prepare(uri, "study", output)
    with monkeypatch.context() as broken:
        kind = type(client(uri))
        broken.setattr(kind, "create_run", lambda *_, **__: (_ for _ in ()).throw(OSError(problem)))
        with pytest.raises(FailedRunsError, match=f"4 of 5 runs and sweeps failed.*(\n  .*: {problem}  .*){{4}}$"):
            synced()
    synced()
    assert set(contents(uri, "study")) == {"pilot", "ga4-a", "ga4-b", "ga4-c"}


def test_no_runs_is_a_mistake(output, synced):
    with pytest.raises(UserError, match=f"no runs in {output}/runs; give their output folder with --output"):
        synced()


@pytest.mark.slow
def test_a_server_that_comes_up_after_the_sweep_gets_all_of_it(uri, output, sweep, synced, server, contents):
    live(sweep, uri, "live", output)
    assert synced(server, "sync")[-1].endswith("4 of 5 had changes")
    assert synced(server, "sync")[-1].endswith("0 of 5 had changes")
    assert contents(server, "sync") == contents(uri, "live")

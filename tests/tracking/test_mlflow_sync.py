"""`sync` brings MLflow into agreement with an output folder: identical histories, and nothing twice."""

from __future__ import annotations

import time

import pytest

from headsweep.errors import FailedRunsError, UserError
from headsweep.tracking.mlflow_projection import Projector
from headsweep.tracking.mlflow_store import client, prepare
from headsweep.tracking.mlflow_sync import sync


@pytest.fixture
def sweep(make_run, make_sweep, result):
    """A sweep that is over: one run finished, one failed, one was stopped, one has no metrics yet."""
    runs = [make_run("a", epochs=3), make_run("b", epochs=2), make_run("c", epochs=1), make_run("d")]
    runs[0].checkpoint.write_bytes(b"weights")
    runs[0].finish(result)
    runs[1].fail("ValueError: no")
    sweep = make_sweep(runs)
    (sweep.path / "table.md").write_text("| head |\n")
    sweep.launch(runs)
    return sweep


@pytest.fixture
def synced(output):
    """The lines that `sync` says."""

    def give(uri=None, experiment=None):
        lines = []
        sync(output, uri, experiment, lines.append)
        return lines

    return give


def live(sweep, uri, experiment, output):
    """Project as the sweep's own command does."""
    with Projector(uri, experiment, output) as projector:
        for folder in (sweep, *sweep.runs()):
            projector.notify(folder)


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
        f"{uri}, experiment study: 4 of 5 had news",
    ]


def test_twice_changes_nothing(uri, sweep, synced, contents):
    synced()
    before = contents(uri, "study")
    assert [line.split("  ")[-1] for line in synced()[:4]] == ["nothing to send"] * 4
    assert contents(uri, "study") == before


@pytest.mark.parametrize("deleted", ["ga4-a", "pilot"])
def test_what_was_deleted_in_mlflow_is_rebuilt(uri, output, sweep, synced, contents, deleted):
    synced()
    before = contents(uri, "study")
    found = client(uri).search_runs([prepare(uri, "study", output)], f"attributes.run_name = '{deleted}'")
    client(uri).delete_run(found[0].info.run_id)
    synced()
    assert contents(uri, "study") == before


def test_another_store_and_experiment_can_be_said(uri, output, tmp_path, sweep, synced, contents):
    (tmp_path / "other").mkdir()
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    (tmp_path / "other" / "mlflow.db").write_bytes((output / "mlflow.db").read_bytes())
    synced()
    assert synced(other, "named")[-1] == f"{other}, experiment named: 4 of 5 had news"
    assert contents(other, "named") == contents(uri, "study")


def test_a_damaged_run_is_named_and_the_others_are_sent(uri, sweep, synced, contents):
    sweep.runs()[0].spool.path.write_text("not json\n")
    with pytest.raises(
        FailedRunsError, match=r"1 of 5 runs and sweeps failed; all others are in MLflow(.*)\n  ga4-a: "
    ):
        synced()
    assert set(contents(uri, "study")) == {"pilot", "ga4-b", "ga4-c"}


def test_a_store_that_cannot_be_reached_is_one_line_soon(free_port, sweep, synced):
    before = time.monotonic()
    with pytest.raises(UserError) as mistake:
        synced(f"http://anna:geheim@127.0.0.1:{free_port}")
    assert time.monotonic() - before < 30  # by MLflow's defaults it would be 246 s
    said = str(mistake.value)
    assert said.startswith(f"MLflow at http://anna:***@127.0.0.1:{free_port} cannot be used (")
    assert "start it or say another with --uri" in said
    assert "\n" not in said and "geheim" not in said


@pytest.mark.parametrize("address", ["./mlruns", "nonsense://x", "sqlite:///{output}/file/mlflow.db"])
def test_an_address_that_is_none_is_one_line(address, output, sweep, synced):
    (output / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used") as mistake:
        synced(address.format(output=output))
    assert "\n" not in str(mistake.value)


def test_no_runs_is_a_mistake(output, synced):
    with pytest.raises(UserError, match=f"no runs in {output}/runs; say with --output where they are"):
        synced()


@pytest.mark.slow
def test_a_server_that_comes_up_after_the_sweep_gets_all_of_it(uri, output, sweep, synced, server, contents):
    live(sweep, uri, "live", output)
    assert synced(server, "sync")[-1].endswith("4 of 5 had news")
    assert synced(server, "sync")[-1].endswith("0 of 5 had news")
    assert contents(server, "sync") == contents(uri, "live")

"""The store is made once, by however many processes, and without a word."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from headsweep.credentials import redacted
from headsweep.tracking.addresses import database_file
from headsweep.tracking.mlflow import store
from headsweep.tracking.mlflow.store import client, default_uri, opening, prepare, reason
from headsweep.tracking.typed_files import Damaged
from programs import Program

PREPARE = """
import sys
from pathlib import Path
from headsweep.tracking.mlflow.store import default_uri, prepare
output = Path(sys.argv[1])
print(prepare(default_uri(output), "study", output))
"""


@pytest.mark.slow
def test_four_processes_that_touch_a_fresh_store_together_all_succeed(tmp_path):
    output = tmp_path / "out put"  # not there yet, and a space in its name
    processes = [Program(["-c", PREPARE, str(output)]) for _ in range(4)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert [err for _, err in answers] == [""] * 4
    assert client(default_uri(output)).get_experiment_by_name("study") is not None


def test_an_experiment_is_made_once(uri, output):
    assert prepare(uri, "study", output) == prepare(uri, "study", output)
    assert prepare(uri, "other", output) != prepare(uri, "study", output)


def test_an_experiment_that_another_process_makes_first_is_used(uri, output, monkeypatch):
    kind = type(client(uri))
    expected = prepare(uri, "study", output)
    answers = [None]
    real = kind.get_experiment_by_name
    monkeypatch.setattr(
        kind, "get_experiment_by_name", lambda self, name: answers.pop() if answers else real(self, name)
    )
    assert prepare(uri, "study", output) == expected


def test_a_deleted_experiment_comes_back(uri, output):
    expected = prepare(uri, "study", output)
    client(uri).delete_experiment(expected)
    assert prepare(uri, "study", output) == expected
    assert client(uri).get_experiment(expected).lifecycle_stage == "active"


def test_importing_the_tracker_does_not_import_mlflow():
    program = "import sys, headsweep.tracking.mlflow.tracker; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_password_is_never_shown():
    secret = "postgresql://anna:geheim@host/db"
    assert redacted(secret) == "postgresql://anna:***@host/db"
    assert "geheim" not in opening(secret)


def test_the_reason_is_that_of_the_database_and_a_damaged_file_has_all_of_its_line(uri, tmp_path):
    full = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    full.add_detail("raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block")
    assert reason(full, uri) == "(sqlite3.OperationalError) database or disk is full"
    damaged = Damaged(tmp_path / ("a" * 200), "expected JSON", "remove it")
    assert reason(damaged, uri) == str(damaged)


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        ("ResponseError('too many 500 error responses')", "too many 500 error responses"),
        ("""ReadTimeoutError("HTTPConnectionPool(host='h', port=1): Read timed out.")""", "Read timed out."),
        ("NewConnectionError('<a.B object at 0x7f>: [Errno 111] refused')", "[Errno 111] refused"),
    ],
)
def test_the_reason_of_a_request_that_failed_is_its_cause(cause, shown):
    request = "API request to http://h:1/api/2.0/mlflow/experiments/search failed"
    retries = (
        f"with exception HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /api (Caused by {cause})"
    )
    assert reason(ConnectionError(f"{request} {retries}"), "http://h:1") == f"{request}: {shown}"


def test_the_command_that_opens_the_store_can_be_pasted(tmp_path):
    said = opening(default_uri(tmp_path / "out put"))
    assert said.splitlines()[0] == f"MLflow   {tmp_path}/out put/mlflow.db; open it with:"
    command = said.splitlines()[1].strip()
    assert command.endswith(f"ui --backend-store-uri 'sqlite:///{tmp_path}/out put/mlflow.db'")
    assert opening("http://127.0.0.1:5000") == "MLflow   http://127.0.0.1:5000"


@pytest.mark.slow
def test_a_store_whose_making_was_cut_short_is_made_again_in_a_folder_of_any_name(tmp_path, monkeypatch):
    """As after SIGKILL or a full disk within the migration: nothing half built takes the store's place."""
    place = tmp_path / "%20?#[*]"
    uri = default_uri(place)

    def migrate(part):
        return SimpleNamespace(search_experiments=lambda max_results: Path(database_file(part)).write_bytes(b"half"))

    with monkeypatch.context() as cut:
        cut.setattr(store, "client", migrate)
        cut.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            prepare(uri, "headsweep", place)
    assert not (place / "mlflow.db").exists()
    (place / "mlflow.db.0.part").write_bytes(b"half a database")
    assert prepare(uri, "headsweep", place) == prepare(uri, "headsweep", place)
    assert sorted(path.name for path in place.iterdir()) == ["mlflow.db", "mlflow.db.lock"]

"""A server that asks for a password gets it, and nothing else that is written does."""

from __future__ import annotations

import base64
import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from composing import compose_run
from headsweep import credentials
from headsweep.config.command_line import spell_out
from headsweep.errors import UserError
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.mlflow.sync import sync
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.trackers import tracker_of

_WANTED = f"Basic {base64.b64encode(b'anna:geheim').decode()}"


@pytest.fixture
def guarded(server):
    """Host and port of a door to the server that only anna may pass."""

    class Door(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != _WANTED:
                self.answer(401, b"")
                return
            kind = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            request = urllib.request.Request(server + self.path, body or None, kind, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    self.answer(answer.status, answer.read())
            except HTTPError as error:
                self.answer(error.code, error.read())

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = pass_on  # noqa: N815 - as http.server calls them

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever).start()
        yield f"127.0.0.1:{door.server_port}"
        door.shutdown()


@pytest.mark.slow
def test_a_password_on_the_command_line_is_nowhere_but_in_its_file(
    guarded, tmp_path, make_entry, monkeypatch, capfd, history
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(credentials, "_known", {})
    output, shown = tmp_path / "output", f"http://anna:***@{guarded}"
    given = [f"tracking.uri=http://anna:geheim@{guarded}", "tracking.experiment=secret", f"paths.output={output}"]
    words = spell_out(given)
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    config = compose_run(*words)
    plan = make_plan([config])
    with launching(plan.folder):
        freeze(plan, {plan.runs[0].fingerprint: {}})
        (launcher,) = (plan.folder / "launchers").iterdir()
        assert shown in json.loads(launcher.read_text())["command"]
        plan.folders[0].metrics_log.append(make_entry(1))
        with tracker_of(config) as tracker:
            tracker.notify(plan.folders[0])
    assert shown in SweepFolder(plan.folder).commands()[0]
    monkeypatch.setattr(credentials, "_known", {})  # another process, which queued jobs are, too
    sync(output, None, None, print)
    run_id = json.loads((plan.folders[0].path / "mlflow.json").read_text())["run_id"]
    assert history(shown, run_id)["train/loss"] == [(1, 1.0, 1700000001000)]
    uploaded = Path(client(shown).download_artifacts(run_id, "config.yaml", str(tmp_path)))
    assert shown in uploaded.read_text()
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
    assert holding == [credentials.file()]
    assert "geheim" not in "".join(capfd.readouterr())
    credentials.file().unlink()
    monkeypatch.setattr(credentials, "_known", {})
    with pytest.raises(UserError, match=r"401.*credentials\.json has no password for it"):
        sync(output, None, None, print)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    sync(output, None, None, print)

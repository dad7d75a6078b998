"""Where MLflow keeps its runs: the store's address, its first touch, its silence.

The mlflow_* modules are the only ones that know MLflow. It costs seconds to import and is therefore imported inside
functions, which the projector calls in its own thread.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote
from uuid import uuid4

from filelock import FileLock

from headsweep import credentials
from headsweep.credentials import complete, hidden
from headsweep.errors import UserError
from headsweep.tracking.mlflow.artifact_paths import files_of, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FIRST_TOUCH_SECONDS = 120.0  # a migration takes 2 s; several processes may stand in line
_SQLITE = "sqlite:///"
_VERSIONS = re.compile(r"database schema \(found version (\w+), but expected (\w+)\)")
_SETTINGS = {
    # With the defaults (7 retries, 120 s) one call to a server that is down blocks for 246 s.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would speak to the network
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def default_uri(output: Path) -> str:
    """The store that needs no server: `mlflow.db` in the output folder."""
    return sqlite_uri(output.resolve() / "mlflow.db")


def sqlite_uri(database: Path) -> str:
    """The address of a sqlite file: SQLAlchemy decodes what is encoded, and MLflow cuts at # and ?.

    With the driver in an encoded one: without it, MLflow makes a folder of the name as it is encoded.
    """
    path = str(database)
    encoded = re.sub("[%?#]", lambda found: quote(found[0]), path)
    return f"{_SQLITE if encoded == path else 'sqlite+pysqlite:///'}{encoded}"


def database_file(uri: str) -> Path | None:
    """The file of a sqlite store."""
    scheme, _, path = uri.partition(":///")
    return Path(unquote(path.partition("?")[0])) if scheme.partition("+")[0] == "sqlite" else None


def moved_uri(uri: str | None, before: str, output: Path) -> str | None:
    """The store that a run was planned with, now: a sqlite file in its output folder lies where that folder lies."""
    database = database_file(uri) if uri else None
    if database is None or Path(before) == output.resolve() or not database.is_relative_to(before):
        return uri
    return sqlite_uri(output.resolve() / database.relative_to(before))


def planned_uri(config: Mapping[str, Any], output: Path) -> str:
    """The store of a run whose record holds `config`, and whose folder lies in `output` now."""
    uri = moved_uri(config["tracking"]["uri"], config.get("paths", {}).get("output", output), output)
    return uri or default_uri(output)


def opening(uri: str) -> str:
    """Say where the store is and how to look at it."""
    if is_server(uri):
        return f"MLflow   {hidden(uri)}"
    command = shlex.join([*_mlflow(), "ui", "--backend-store-uri", hidden(uri)])
    return f"MLflow   {database_file(uri) or hidden(uri)}; open it with:\n         {command}"


def reason(error: Exception, uri: str) -> str:
    """What went wrong in the store at `uri`, in one short line without its password, which may be what is lacking."""
    if found := _VERSIONS.search(str(error)):
        return _other_schema(uri, *found.groups())
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    full, shown = complete(uri), hidden(uri)
    lost = "" if hidden(full) == shown else f"; {credentials.file()} has no password for it"
    return hidden(line.replace(full, shown))[:160] + lost


def _other_schema(uri: str, found: str, expected: str) -> str:
    """The hint, whole, for a store that another version of MLflow has made."""
    from mlflow.version import VERSION

    said = f"its schema is {found}, and MLflow {VERSION} here expects {expected}"
    if not _is_known(found):
        return f"{said}: a newer MLflow has made it; install that version, e.g. pip install --upgrade mlflow"
    return f"{said}; make a copy of it, then run: {shlex.join([*_mlflow(), 'db', 'upgrade', hidden(uri)])}"


def _is_known(revision: str) -> bool:
    """Can the MLflow that is installed migrate a store of this revision?"""
    import mlflow.store.db_migrations as migrations

    return any((Path(migrations.__path__[0]) / "versions").glob(f"{revision}_*.py"))


def _mlflow() -> list[str]:
    return [str(Path(sys.executable).with_name("mlflow"))]


def is_server(uri: str) -> bool:
    """Is the store behind a server, which decides itself where files lie?"""
    return uri.startswith(("http://", "https://"))


def client(uri: str) -> MlflowClient:
    """A quiet client of the store at `uri`; imports MLflow, sets no global address."""
    return quiet_mlflow().MlflowClient(tracking_uri=complete(uri))


def quiet_mlflow() -> ModuleType:
    """MLflow, imported so that it says nothing: whatever goes wrong is raised as well, and said once, by us."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for chatty in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    return mlflow


def prepare(uri: str, experiment: str, output: Path) -> str:
    """Return the id of `experiment`, creating the store and it where they are absent.

    Where the output folder has moved, or is a copy, the store is told the new place of its files. Any number of
    processes may do so at the same time.

    Raises:
        UserError: the sqlite file is not one of MLflow's.
        Exception: whatever MLflow raises when the store is down or broken.
    """
    with _alone(uri):
        _build_aside(uri)
        store = client(uri)
        store.search_experiments(max_results=1)  # MLflow looks at the store's schema
        if not is_server(uri):
            relocate(complete(uri), output, is_inside=is_inside(uri, output))
        return _experiment_id(store, experiment, None if is_server(uri) else files_of(output))


def is_inside(uri: str, output: Path) -> bool:
    """Is the store a file in the output folder, and moved or copied with it?"""
    database = database_file(uri)
    return database is not None and database.resolve().is_relative_to(output.resolve())


def _alone(uri: str) -> AbstractContextManager[Any]:
    """Hold the store's lock: processes that migrate a fresh sqlite file together all fail."""
    database = database_file(uri)
    if database is None:
        return contextlib.nullcontext()  # a server has migrated its store before it answers
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=_FIRST_TOUCH_SECONDS)


def _build_aside(uri: str) -> None:
    """Migrate a new sqlite file beside its place and rename it: MLflow refuses for ever one that is half built."""
    database = database_file(uri)
    if database is None:
        return
    if database.exists():
        _check(database)
        return
    for left in database.parent.glob(f"{glob.escape(database.name)}.*.part*"):
        left.unlink()
    # A name of its own: MLflow keeps a connection to each address, which would outlive a file that is removed.
    aside = database.with_name(f"{database.name}.{uuid4().hex[:8]}.part")
    client(sqlite_uri(aside)).search_experiments(max_results=1)
    aside.replace(database)


def _check(database: Path) -> None:
    """Raise UserError for a file of another program, to which MLflow would add its tables."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "experiments" not in tables:
        raise UserError(f"{database} is a database of another program (tables {', '.join(sorted(tables)[:3])})")


def _experiment_id(store: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = store.get_experiment_by_name(name)
    if found is None:
        try:
            return str(store.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = store.get_experiment_by_name(name)  # another process was faster
    if found.lifecycle_stage == "deleted":
        store.restore_experiment(found.experiment_id)
    return str(found.experiment_id)

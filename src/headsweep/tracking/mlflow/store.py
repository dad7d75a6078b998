"""The store in which MLflow keeps its runs: its address, its creation, and a client that prints nothing.

MLflow takes seconds to import and is therefore imported inside functions, which the tracker calls in its own thread.
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
from uuid import uuid4

from filelock import FileLock

from headsweep import credentials
from headsweep.credentials import redacted, with_password
from headsweep.errors import UserError
from headsweep.tracking.addresses import database_file, planned_address, sqlite_uri
from headsweep.tracking.mlflow.artifact_paths import artifact_root, relocate
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.sharing import let_group_write

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK_SECONDS = 120.0  # a migration takes 2 s; several processes may wait for it
# By SQLAlchemy, for programmers.
_ADVICE = re.compile(r"^\(raised as a result of Query-invoked autoflush;[^\n]*\n")
_CAUSE = re.compile(r"failed with exception .*\(Caused by \w+\(['\"]?(?:.*[)>]: )?(.*?)['\"]?\)\)$")  # by urllib3
_VERSIONS = re.compile(r"database schema \(found version (\w+), but expected (\w+)\)")
_SETTINGS = {
    # With the defaults (7 retries, 120 s) one call to a server that is down blocks for 246 s.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would use the network
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def quoted(text: str) -> str:
    """Return a text in quotes, as a filter has it."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def default_uri(output: Path) -> str:
    """Return the address of the store that needs no server: `mlflow.db` in the output folder."""
    return sqlite_uri(OutputFolder(output.resolve()).mlflow_database)


def planned_uri(config: Mapping[str, Any], output: Path) -> str:
    """Return the store of a run whose record holds `config`, and whose folder lies in `output` now."""
    return planned_address(config, output) or default_uri(output)


def opening(uri: str) -> str:
    """Return, in lines to print, where the store is and how to open it."""
    if is_server(uri):
        return f"MLflow   {redacted(uri)}"
    command = shlex.join([*mlflow_command(), "ui", "--backend-store-uri", redacted(uri)])
    return f"MLflow   {database_file(uri) or redacted(uri)}; open it with:\n         {command}"


def reason(error: Exception, uri: str) -> str:
    """Return what went wrong in the store at `uri`, in one line, short if it is MLflow's, that hides its password.

    The line adds whether the password is missing, which may be the cause.
    """
    if isinstance(error, UserError):
        return redacted(str(error))
    if found := _VERSIONS.search(str(error)):
        return _other_schema(uri, *found.groups())
    line = _ADVICE.sub("", str(error).strip() or type(error).__name__).splitlines()[0]
    line = _CAUSE.sub(r"failed: \1", line)  # or it would be cut off
    full, shown = with_password(uri), redacted(uri)
    lost = "" if redacted(full) == shown else f"; {credentials.file()} has no password for it"
    return redacted(line.replace(full, shown))[:160] + lost


def _other_schema(uri: str, found: str, expected: str) -> str:
    """Return the whole advice for a store that another version of MLflow created."""
    from mlflow.version import VERSION

    found_schema = f"its schema is {found}, and MLflow {VERSION} here expects {expected}"
    if not _is_known(found):
        return f"{found_schema}: a newer MLflow created it; install that version, e.g. pip install --upgrade mlflow"
    command = shlex.join([*mlflow_command(), "db", "upgrade", redacted(uri)])
    return f"{found_schema}; make a copy of it, then run: {command}"


def _is_known(revision: str) -> bool:
    """Return whether the installed MLflow can migrate a store of this revision."""
    import mlflow.store.db_migrations as migrations

    return any((Path(migrations.__path__[0]) / "versions").glob(f"{revision}_*.py"))


def mlflow_command() -> list[str]:
    return [str(Path(sys.executable).with_name("mlflow"))]


def is_server(uri: str) -> bool:
    """Return whether the store is behind a server, which places files itself."""
    return uri.startswith(("http://", "https://"))


def client(uri: str) -> MlflowClient:
    """Return a client of the store at `uri` that logs nothing; imports MLflow, sets no global address."""
    return quiet_mlflow().MlflowClient(tracking_uri=with_password(uri))


def quiet_mlflow() -> ModuleType:
    """Import MLflow with its loggers off: every error that it logs is raised, too, and reported once by headsweep."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for logger in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return mlflow


def prepare(uri: str, experiment: str, output: Path) -> str:
    """Return the id of `experiment`, after creating the store and the experiment where they are absent.

    Where the output folder has moved or was copied, the paths of its files in the store are updated. Any number of
    processes may call this at the same time.

    Raises:
        UserError: the sqlite file belongs to another program.
        Exception: whatever MLflow raises when the store is down or broken.
    """
    with _lock(uri):
        _create(uri)
        store = client(uri)
        store.search_experiments(max_results=1)  # raises if the schema of the store does not fit
        if not is_server(uri):
            relocate(with_password(uri), output, is_inside=is_inside(uri, output))
        return _experiment_id(store, experiment, None if is_server(uri) else artifact_root(output))


def is_inside(uri: str, output: Path) -> bool:
    """Return whether the store is a file in the output folder, and so moved or copied with it."""
    database = database_file(uri)
    return database is not None and database.resolve().is_relative_to(output.resolve())


def _lock(uri: str) -> AbstractContextManager[Any]:
    """Return the lock of the store: processes that migrate a new sqlite file at the same time all fail."""
    database = database_file(uri)
    if database is None:
        return contextlib.nullcontext()  # a server migrates its store before it answers
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=_LOCK_SECONDS)


def _create(uri: str) -> None:
    """Migrate a new sqlite file under another name, then rename it: MLflow never accepts one half migrated."""
    database = database_file(uri)
    if database is None:
        return
    if database.exists():
        _check(database)
        return
    for left in database.parent.glob(f"{glob.escape(database.name)}.*.part*"):
        left.unlink()
    # A new name each time: MLflow keeps a connection to each address, even if the file was removed.
    part = database.with_name(f"{database.name}.{uuid4().hex[:8]}.part")
    client(sqlite_uri(part)).search_experiments(max_results=1)
    let_group_write(part)  # sqlite creates files that only their owner can write
    part.replace(database)


def _check(database: Path) -> None:
    """Raise UserError for a database of another program, to which MLflow would add its tables."""
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
            found = store.get_experiment_by_name(name)  # another process created it meanwhile
    if found.lifecycle_stage == "deleted":
        store.restore_experiment(found.experiment_id)
    return str(found.experiment_id)

"""Where MLflow keeps its runs: the store's address, its first touch, its silence.

The mlflow_* modules are the only ones that know MLflow. It costs seconds to import and is therefore imported inside
functions, which the projector calls in its own thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FIRST_TOUCH_SECONDS = 120.0  # a migration takes 2 s; several processes may stand in line
_SQLITE = "sqlite:///"
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
    return f"{_SQLITE}{output.resolve() / 'mlflow.db'}"


def shown(uri: str) -> str:
    """`uri` as it may be printed or kept in a file: without a password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def opening(uri: str) -> str:
    """Say where the store is and how to look at it."""
    if uri.startswith(("http://", "https://")):
        return f"MLflow   {shown(uri)}"
    command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", shown(uri)]
    return f"MLflow   {shown(uri).removeprefix(_SQLITE)}; open it with:\n         {shlex.join(command)}"


def reason(error: Exception, uri: str) -> str:
    """What went wrong in the store at `uri`, in one short line without its password."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    password = urlsplit(uri).password
    return (line.replace(f":{password}@", ":***@") if password else line)[:160]


def client(uri: str) -> MlflowClient:
    """A quiet client of the store at `uri`; imports MLflow, sets no global address."""
    return quiet_mlflow().MlflowClient(tracking_uri=uri)


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

    Any number of processes may do so at the same time.

    Raises:
        Exception: whatever MLflow raises when the store is down or broken.
    """
    with _alone(uri):
        _build_aside(uri)
        store = client(uri)
        return _experiment_id(store, experiment, _artifacts(uri, output))


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
    if database is None or database.exists():
        return
    for left in database.parent.glob(f"{database.name}.*.part*"):
        left.unlink()
    # A name of its own: MLflow keeps a connection to each address, which would outlive a file that is removed.
    aside = database.with_name(f"{database.name}.{uuid4().hex[:8]}.part")
    client(f"{_SQLITE}{aside}").search_experiments(max_results=1)
    aside.replace(database)


def database_file(uri: str) -> Path | None:
    """The file of a sqlite store."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def _artifacts(uri: str, output: Path) -> str | None:
    """Where a new experiment keeps its files; a server decides for itself, a database would say ./mlruns."""
    return None if uri.startswith(("http://", "https://")) else (output.resolve() / "mlartifacts").as_uri()


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

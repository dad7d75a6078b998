"""The model of a run as a version of a registered model of MLflow, with the signature and the example of its input."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.credentials import redacted
from headsweep.errors import UserError
from headsweep.tracking.mlflow.desired_state import FINGERPRINT_TAG
from headsweep.tracking.mlflow.model import has_model, log_model
from headsweep.tracking.mlflow.reference import read_reference
from headsweep.tracking.mlflow.store import client, mlflow_command, quoted, reason
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.tracker import Export

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_LOCK_SECONDS = 120.0  # another process may be registering it


def register(run: RunFolder, uri: str, name: str, export: Export) -> str:
    """Register the model of a finished run as a new version of `name`, and log it first if the store lacks it.

    A second call finds the version of the first.

    Returns:
        Lines to print: the version, and how to load and serve it.

    Raises:
        UserError: the run has no model, the store does not have the run, or MLflow refuses the name or is down.
    """
    record = run.record()
    if not has_model(run):
        raise UserError(f"{record.name} ({record.fingerprint}): expected a finished run with its checkpoint")
    reference = read_reference(run.path)
    if reference is None or not reference.is_in(uri):
        where = f"it is in {reference.uri}" if reference else "it is in none"
        raise UserError(
            f"MLflow at {redacted(uri)} does not have {record.name} ({where}); `headsweep sync --uri ADDRESS` sends it"
        )
    try:
        log_model(run, uri, export)
        with FileLock(run.path / "model.lock", timeout=_LOCK_SECONDS):
            version, is_new = _version(client(uri), run, name)
    except UserError:
        raise
    except Exception as error:  # of the store
        raise UserError(f"MLflow at {redacted(uri)} did not register {name!r} ({reason(error, uri)})") from error
    return _usage(uri, name, version.version, f"{record.name} ({record.fingerprint})", is_new)


def _version(store: MlflowClient, run: RunFolder, name: str) -> tuple[ModelVersion, bool]:
    """Return the version of `name` that is the model of the run, and whether it is new."""
    reference, record = read_reference(run.path), run.record()
    assert reference is not None and reference.model_id is not None, "it was just logged"
    # Not models:/ID, which MLflow looks up in the store of its global address.
    source = store.get_logged_model(reference.model_id).artifact_location
    _create(store, name)
    for known in store.search_model_versions(f"name = {quoted(name)}"):
        if known.run_id == reference.run_id and known.source == source:
            return known, False
    tags = {FINGERPRINT_TAG: record.fingerprint, "headsweep.name": record.name}
    text = f"{record.name}: `headsweep explain {record.fingerprint}` shows where its numbers come from."
    options = {"description": text, "model_id": reference.model_id}
    return store.create_model_version(name, source, reference.run_id, tags, **options), True


def _create(store: MlflowClient, name: str) -> None:
    """Create the registered model if there is none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        store.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _usage(uri: str, name: str, version: str, run: str, is_new: bool) -> str:
    address, command = shlex.quote(redacted(uri)), shlex.join(mlflow_command())
    model = shlex.quote(f"models:/{name}/{version}")
    return (
        f"{name} version {version}: the model of {run}{'' if is_new else ', registered before'}\n"
        f"load    mlflow.set_tracking_uri({redacted(uri)!r})\n"
        f"        mlflow.pyfunc.load_model({f'models:/{name}/{version}'!r})\n"
        f"serve   MLFLOW_TRACKING_URI={address} {command} models serve -m {model} --env-manager local"
    )

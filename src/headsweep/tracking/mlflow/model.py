"""The model of a finished run as a logged model of MLflow, which loads and serves it by the id of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.credentials import redacted
from headsweep.errors import UserError
from headsweep.tracking.metric_names import BEST_EPOCH
from headsweep.tracking.mlflow.desired_state import COST, FINGERPRINT_TAG
from headsweep.tracking.mlflow.reference import path_in, read_reference, write_reference
from headsweep.tracking.mlflow.store import client, reason
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.tracker import Export, ExportedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.models import Model

NAME = "model"  # loaded as runs:/RUN_ID/model
_LOCK_SECONDS = 600.0  # another process may be logging it


def has_model(folder: RunFolder) -> bool:
    """Return whether the run is finished and its weights are still there."""
    return folder.state() is RunState.finished and folder.checkpoint.exists()


def is_lacking(folder: RunFolder, uri: str) -> bool:
    """Return, from files alone, whether the run has a model that its MLflow run in the store at `uri` lacks."""
    reference = read_reference(folder.path)
    return reference is not None and reference.is_in(uri) and reference.model_id is None and has_model(folder)


def log_models(folders: Sequence[RunFolder], uri: str, export: Export) -> int:
    """Log the models of finished runs to the store at `uri`; return how many it lacked.

    Raises:
        UserError: some models could not be logged, the others have been.
    """
    logged, failed = 0, []
    for folder in folders:
        try:
            logged += log_model(folder, uri, export)
        except Exception as error:  # of the store, or of a damaged folder
            failed.append(f"{folder.record().name}: {reason(error, uri)}")
    if failed:
        raise UserError(
            f"MLflow at {redacted(uri)} took {logged} of {len(folders)} models ({failed[0]}); the weights are safe in "
            "the runs' folders, and `headsweep sync` sends the others"
        )
    return logged


def log_model(folder: RunFolder, uri: str, export: Export) -> bool:
    """Log the model of a finished run, once, to the MLflow run that `reconcile` created in the store at `uri`.

    Any number of processes may call this at the same time; a partial upload is deleted and done again.

    Returns:
        Whether the store lacked it.

    Raises:
        UserError: the folder names no MLflow run, or one that was deleted.
        Exception: whatever MLflow and `export` raise.
    """
    store = client(uri)
    with FileLock(folder.path / "model.lock", timeout=_LOCK_SECONDS):
        reference = read_reference(folder.path)
        if reference is None:
            raise UserError(f"{path_in(folder.path)} names no MLflow run; `headsweep sync` finds it again")
        run_id, experiment_id = reference.run_id, reference.experiment_id
        found = _find(store, experiment_id, run_id)
        ready = next((model for model in found if model.status == "READY"), None)
        if ready is None:
            if store.get_run(run_id).info.lifecycle_stage == "deleted":
                raise UserError("its MLflow run was deleted; `headsweep sync` creates it again")
            for partial in found:
                store.delete_logged_model(partial.model_id)
        model_id = ready.model_id if ready else _upload(store, folder, experiment_id, run_id, export(folder))
        write_reference(folder.path, replace(reference, model_id=model_id))
    return ready is None


def _find(store: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """Return the logged models of an MLflow run, partial uploads included."""
    return list(store.search_logged_models([experiment_id], f"source_run_id = '{run_id}' AND name = '{NAME}'"))


def _upload(store: MlflowClient, folder: RunFolder, experiment_id: str, run_id: str, exported: ExportedModel) -> str:
    """Log a model with its files and the metrics of its weights; return its id. It is READY once it is complete."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    record, result = folder.record(), folder.result()
    assert result is not None, "the run has ended"
    is_best = BEST_EPOCH in result.metrics
    epoch = int(result.metrics.get(BEST_EPOCH, result.epochs))
    tags = {
        "headsweep.name": record.name,
        FINGERPRINT_TAG: record.fingerprint,
        "headsweep.weights": f"{'best on held-out images' if is_best else 'last'}, epoch {epoch}",
    }
    params = {name: str(value) for name, value in record.parameters.items()}
    model_id = store.create_logged_model(experiment_id, NAME, run_id, tags, params).model_id
    with TemporaryDirectory() as temporary:
        _save(exported, Path(temporary) / NAME, Model(run_id=run_id, model_id=model_id))
        store.log_model_artifacts(model_id, str(Path(temporary) / NAME))
    store.log_outputs(run_id, [LoggedModelOutput(model_id, epoch)])
    store.log_batch(run_id, _metrics(store, run_id, model_id, "best/" if is_best else "test/"))
    store.finalize_logged_model(model_id, "READY")
    return str(model_id)


def _save(exported: ExportedModel, path: Path, described: Model) -> None:
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = TensorSpec(np.dtype(np.float32), (-1, *exported.example.shape[1:]))
    outputs = TensorSpec(np.dtype(np.float32), (-1, exported.classes))
    mlflow.pytorch.save_model(
        exported.module,
        path,
        mlflow_model=described,
        signature=ModelSignature(Schema([inputs]), Schema([outputs])),
        input_example=exported.example,
        pip_requirements=[*mlflow.pytorch.get_default_pip_requirements(), f"timm=={version('timm')}"],
        serialization_format="pickle",  # a traced graph stays on the device that it was traced on
    )


def _metrics(store: MlflowClient, run_id: str, model_id: str, prefix: str) -> list[Metric]:
    """Return the points of the run that also describe the model: those of its weights, and its costs."""
    from mlflow.entities import Metric

    names = [name for name in store.get_run(run_id).data.metrics if name.startswith((prefix, COST))]
    points = [point for name in names for point in store.get_metric_history(run_id, name)]
    return [Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id) for point in points]

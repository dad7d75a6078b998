"""The model of a finished run as MLflow's users know it: a logged model, which loads and serves by its run's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from headsweep.errors import UserError
from headsweep.tracking.mlflow.reference import path_in, read_reference, write_reference
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.run_folder import RunFolder, RunState

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.models import Model
    from numpy.typing import NDArray
    from torch import nn

NAME = "model"  # so that it is runs:/RUN_ID/model
_LOCK_SECONDS = 600.0  # another process may be logging it


@dataclass(frozen=True)
class Built:
    """A model, ready to be logged."""

    module: nn.Module  # on the CPU, in evaluation mode
    example: NDArray[np.float32]  # an input of one image, (1 c h w)
    classes: int


Build = Callable[[RunFolder], Built]


def has_model(folder: RunFolder) -> bool:
    """Has the run ended well, with weights that are still there?"""
    return folder.state() is RunState.finished and folder.checkpoint.exists()


def is_lacking(folder: RunFolder, uri: str) -> bool:
    """Is there a model, and no word of it with the run's MLflow run in the store at `uri`? Asks files alone."""
    reference = read_reference(folder.path)
    return reference is not None and reference.is_in(uri) and reference.model_id is None and has_model(folder)


def log_model(folder: RunFolder, uri: str, build: Build) -> bool:
    """Log the model of a finished run, once, to the MLflow run that `mlflow_run.project` gave it in the store at `uri`.

    Any number of processes may do so at the same time; what one left half done is done anew.

    Returns:
        Whether the store lacked it.

    Raises:
        UserError: the folder names no MLflow run, or one that was deleted.
        Exception: whatever MLflow raises, and what `build` raises.
    """
    store = client(uri)
    with FileLock(folder.path / "model.lock", timeout=_LOCK_SECONDS):
        reference = read_reference(folder.path)
        if reference is None:
            raise UserError(f"{path_in(folder.path)} names no MLflow run; `headsweep sync` finds it again")
        run_id, experiment_id = reference.run_id, reference.experiment_id
        found = _find(store, experiment_id, run_id)
        there = next((model for model in found if model.status == "READY"), None)
        if there is None:
            if store.get_run(run_id).info.lifecycle_stage == "deleted":
                raise UserError("its MLflow run was deleted; `headsweep sync` makes it anew")
            for half in found:
                store.delete_logged_model(half.model_id)
        model_id = there.model_id if there else _upload(store, folder, experiment_id, run_id, build(folder))
        write_reference(folder.path, replace(reference, model_id=model_id))
    return there is None


def _find(store: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """The logged models of an MLflow run, those that are half uploaded included."""
    return list(store.search_logged_models([experiment_id], f"source_run_id = '{run_id}' AND name = '{NAME}'"))


def _upload(store: MlflowClient, folder: RunFolder, experiment_id: str, run_id: str, built: Built) -> str:
    """Log a model with its files and the metrics of its weights; its id. It is READY when all of it is there."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    record, result = folder.record(), folder.result()
    assert result is not None, "the run has ended"
    is_best = "best/epoch" in result.metrics
    epoch = int(result.metrics.get("best/epoch", result.epochs))
    tags = {
        "headsweep.name": record.name,
        "headsweep.fingerprint": record.fingerprint,
        "headsweep.weights": f"{'best on held-out images' if is_best else 'last'}, epoch {epoch}",
    }
    params = {name: str(value) for name, value in record.parameters.items()}
    model_id = store.create_logged_model(experiment_id, NAME, run_id, tags, params).model_id
    with TemporaryDirectory() as place:
        _save(built, Path(place) / NAME, Model(run_id=run_id, model_id=model_id))
        store.log_model_artifacts(model_id, str(Path(place) / NAME))
    store.log_outputs(run_id, [LoggedModelOutput(model_id, epoch)])
    store.log_batch(run_id, _metrics(store, run_id, model_id, "best/" if is_best else "test/"))
    store.finalize_logged_model(model_id, "READY")
    return str(model_id)


def _save(built: Built, path: Path, described: Model) -> None:
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = TensorSpec(np.dtype(np.float32), (-1, *built.example.shape[1:]))
    outputs = TensorSpec(np.dtype(np.float32), (-1, built.classes))
    mlflow.pytorch.save_model(
        built.module,
        path,
        mlflow_model=described,
        signature=ModelSignature(Schema([inputs]), Schema([outputs])),
        input_example=built.example,
        pip_requirements=[*mlflow.pytorch.get_default_pip_requirements(), f"timm=={version('timm')}"],
        serialization_format="pickle",  # a traced graph stays on the device that it was traced on
    )


def _metrics(store: MlflowClient, run_id: str, model_id: str, prefix: str) -> list[Metric]:
    """The run's points that are the model's, too: those of its weights, and what it costs."""
    from mlflow.entities import Metric

    names = [name for name in store.get_run(run_id).data.metrics if name.startswith((prefix, "cost/"))]
    points = [point for name in names for point in store.get_metric_history(run_id, name)]
    return [Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id) for point in points]

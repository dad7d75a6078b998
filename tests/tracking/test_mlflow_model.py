"""A finished run's model is a logged model of its MLflow run: there once, whatever happens, and true to its weights."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from commands import TINY_RUN
from composing import compose_run
from headsweep.data.datasets import open_splits
from headsweep.errors import UserError
from headsweep.launch.run_sweep import log_models
from headsweep.plan.plan import freeze, make_plan
from headsweep.run import predictor
from headsweep.run.predictor import log_models as log_in_this_process
from headsweep.run.train_run import preflight, train_folder
from headsweep.tracking import atomic_files
from headsweep.tracking.mlflow.model import is_lacking, log_model
from headsweep.tracking.mlflow.reconcile import reconcile
from headsweep.tracking.mlflow.store import client
from headsweep.tracking.mlflow.sync import sync
from headsweep.tracking.tracker import ExportedModel


@pytest.fixture
def finished(make_run, result):
    folder = make_run(epochs=3)
    folder.checkpoint.write_bytes(b"weights")
    folder.finish(result)
    return folder


def build(folder) -> ExportedModel:
    return ExportedModel(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), np.zeros((1, 3, 2, 2), np.float32), 3)


def models(uri, experiment_id):
    return client(uri).search_logged_models([experiment_id])


@pytest.mark.slow
def test_it_is_logged_once_with_the_points_of_its_weights(uri, experiment_id, finished, history, contents):
    run_id = reconcile(finished, uri, experiment_id).run_id
    before = contents(uri, "study")
    assert is_lacking(finished, uri)
    assert [log_model(finished, uri, build) for _ in range(2)] == [True, False]
    assert not is_lacking(finished, uri)
    assert contents(uri, "study") == before, "nothing is there twice"
    (logged,) = models(uri, experiment_id)
    assert (logged.status, logged.source_run_id, logged.params["heads"]) == ("READY", run_id, "4")
    assert [output.model_id for output in client(uri).get_run(run_id).outputs.model_outputs] == [logged.model_id]
    assert reconcile(finished, uri, experiment_id).sent.total() == 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model"])
def test_one_that_was_left_half_done_is_done_anew(uri, experiment_id, finished, monkeypatch, call):
    reconcile(finished, uri, experiment_id)
    real = getattr(mlflow.MlflowClient, call)

    def crash(self, *args, **options):
        real(self, *args, **options)
        raise ConnectionError("torn off")

    monkeypatch.setattr(mlflow.MlflowClient, call, crash)
    with pytest.raises(ConnectionError):
        log_model(finished, uri, build)
    monkeypatch.undo()
    assert is_lacking(finished, uri)
    log_model(finished, uri, build)
    assert [model.status for model in models(uri, experiment_id)] == ["READY"]


@pytest.mark.slow
def test_sync_sends_what_is_lacking_and_then_nothing(uri, output, experiment_id, finished, make_run):
    make_run("unfinished", epochs=1)

    def synced() -> str:
        lines: list[str] = []
        sync(output, None, None, lines.append, build)
        return lines[0]

    assert synced() == "ga4-a           new run, 8 points, 3 parameters, 3 files, 1 models, status"
    assert synced().endswith("  nothing to send")
    client(uri).delete_logged_model(models(uri, experiment_id)[0].model_id)
    assert synced().endswith("  1 models")
    assert len(models(uri, experiment_id)) == 1


@pytest.mark.slow
def test_a_deleted_run_does_not_keep_others_from_their_models(
    uri, output, experiment_id, make_run, result, monkeypatch
):
    runs = [make_run("a", epochs=1), make_run("b", epochs=1)]
    for run in runs:
        run.checkpoint.write_bytes(b"weights")
        run.finish(result)
    deleted, kept = (reconcile(run, uri, experiment_id).run_id for run in runs)
    client(uri).delete_run(deleted)
    monkeypatch.setattr(predictor, "predictor", build)
    with pytest.raises(UserError, match=r"took 1 of 2 models \(ga4-a: its MLflow run was deleted; `headsweep sync`"):
        log_in_this_process(runs, compose_run(f"paths.output={output}"))
    assert [model.source_run_id for model in models(uri, experiment_id)] == [kept]
    sync(output, None, None, lambda line: None, build)
    assert len(models(uri, experiment_id)) == 2


def test_a_folder_that_names_no_mlflow_run_is_one_line(uri, experiment_id, finished):
    reconcile(finished, uri, experiment_id)
    (finished.path / "mlflow.json").write_text("[")
    with pytest.raises(UserError, match=r"mlflow\.json names no MLflow run; `headsweep sync` finds it again"):
        log_model(finished, uri, build)


def test_a_run_that_was_planned_without_has_none(uri, output, experiment_id, finished):
    record = finished.record()
    record.config["tracking"]["models"] = False
    atomic_files.write_json(finished.path / "run.json", vars(record))
    sync(output, None, None, lambda line: None, build)
    assert models(uri, experiment_id) == []


def test_what_goes_wrong_at_the_end_of_a_sweep_is_one_line(uri, output, experiment_id, finished, capsys):
    reconcile(finished, uri, experiment_id)
    config = compose_run(f"paths.output={output}")
    log_models([finished], config, log_in_this_process)  # its configuration is none that a model could be built from
    first, said = capsys.readouterr().err.splitlines()
    assert first == "logging 1 model to mlflow" and said.startswith(f"headsweep: MLflow at {uri} took 0 of 1 models (")
    assert "`headsweep sync` sends the others" in said


@pytest.mark.parametrize("options", [["tracking=none"], ["tracking.models=false"]])
def test_nothing_is_logged_where_it_is_not_asked_for(uri, output, experiment_id, finished, options):
    reconcile(finished, uri, experiment_id)
    asked = []

    def log(folders, config):
        asked.append(folders)
        return len(folders)

    log_models([finished], compose_run(f"paths.output={output}", *options), log)
    assert asked == []
    log_models([finished], compose_run(f"paths.output={output}"), log)
    assert asked == [[finished]]


@pytest.mark.slow
def test_the_loaded_model_gets_right_what_the_best_weights_got_right(uri, output, experiment_id, monkeypatch):
    """From raw pixels to the very logits: the accuracy is the recorded one to the last digit."""
    words = TINY_RUN
    plan = make_plan([compose_run(*words, "head=ga", "heads=2", "duration='3 epochs'", f"paths.output={output}")])
    freeze(plan, {plan.runs[0].fingerprint: preflight(plan.runs[0].run)})
    (folder,), run = plan.folders, plan.runs[0].run
    train_folder(folder, lambda progress: None)
    run_id = reconcile(folder, uri, experiment_id).run_id
    assert log_in_this_process([folder], run) == 1
    test = open_splits(run.dataset, run.seed, run.loader, run.debug).test
    pixels = next(iter(test.open(torch.device("cpu"), 0, crop=None).read(0, [torch.arange(len(test))])))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = mlflow.pytorch.load_model(f"runs:/{run_id}/model")
    served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    with torch.inference_mode():
        logits = loaded(pixels.float())
    assert (logits.argmax(-1) == test.labels).double().mean() == folder.result().metrics["best/top1"]
    np.testing.assert_array_equal(served.predict(pixels.float().numpy()), logits.numpy())

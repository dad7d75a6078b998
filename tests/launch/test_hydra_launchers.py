"""Hydra's other launchers train the same runs; they only know nothing of studies."""

import shutil
from pathlib import Path

import pytest
import torch

from commands import TINY_CELL, train_with_interpreter
from composing import compose_run
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.train_run import train_folder
from headsweep.status.render import show
from headsweep.tracking.run_folder import RunFolder
from programs import write_interpreter

pytestmark = pytest.mark.slow

SHORT = ["duration='1 epochs'", "tracking.models=false", *TINY_CELL]


def weights(output: Path) -> dict[str, torch.Tensor]:
    """Fingerprint -> the weights of a run."""
    paths = (output / "runs").iterdir()
    models = {path.name: torch.load(RunFolder(path).checkpoint, weights_only=True)["model"] for path in paths}
    return {name: torch.cat([value.flatten().double() for value in model.values()]) for name, model in models.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The weights of both heads, trained here, as the launcher `local` does with one thread."""
    output = tmp_path_factory.mktemp("expected")
    plan = make_plan([compose_run(f"head={head}", *SHORT, f"paths.output={output}") for head in ("seqpool", "gap")])
    freeze(plan, {planned.fingerprint: {} for planned in plan.runs})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for folder in plan.folders:
        train_folder(folder, lambda progress: None)
    torch.set_num_threads(before)
    return weights(output)


@pytest.mark.parametrize(
    ("launcher", "heads", "tracking"),
    [
        (["basic"], ["seqpool", "gap"], "mlflow"),
        (["joblib", "hydra.launcher.n_jobs=1"], ["gap"], "none"),
        (["submitit_local"], ["gap"], "none"),  # starts a new interpreter for each cell
    ],
    ids=["basic", "joblib", "submitit_local"],
)
def test_it_trains_the_same_runs_and_a_mistake_in_other_cells_is_a_line(
    launcher, heads, tracking, expected, tmp_path, empty_store
):
    """From another folder; a single head cannot be decorrelated."""
    output, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    output.mkdir()
    shutil.copy(empty_store, output / "mlflow.db")
    job = [f"head={','.join(heads)}", "decorrelation=0,-0.5", f"paths.output={output}", f"tracking={tracking}"]
    python = write_interpreter(tmp_path / "python", ".runs")
    words = ["-m", f"hydra/launcher={launcher[0]}", *launcher[1:], *job, *SHORT]
    answer = train_with_interpreter(python, *words, cwd=elsewhere)
    trained = weights(output)
    assert len(trained) == len(heads) and trained.keys() <= expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in trained.items())
    assert show(None, output).count("1 run: 1 finished") == len(heads)  # a cell, a sweep
    if tracking == "mlflow":
        assert logged(output) == {name: RunFolder(output / "runs" / name).result().metrics for name in trained}
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stderr.strip().endswith(
        "decorrelation=-0.5: expected 0 with heads=1, which has no other head to differ from"
    )
    assert list(elsewhere.iterdir()) == []


def logged(output: Path) -> dict[str, dict[str, float]]:
    """Fingerprint -> the metrics of a finished run in MLflow, but for its costs."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return {
        run.data.tags["headsweep.fingerprint"]: {
            name: value for name, value in run.data.metrics.items() if not name.startswith("cost/")
        }
        for run in runs
    }

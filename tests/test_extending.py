"""The package in examples/ adds a head, a backbone, a data set and a metric, as docs/extending.md says."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import programs
from commands import TRAIN, headsweep, headsweep_each, light, train
from headsweep.config import PROJECT_ROOT
from headsweep.tracking.run_folder import RunFolder
from own_package import EXAMPLE, install

pytestmark = pytest.mark.slow

GRID = ["head=gap,normpool", "model=patches", "dataset=squares", "model.width=16", "duration='2 epochs'"]
QUICK = ["debug.train_images=64", "debug.eval_images=32", "tracking=none", "hydra.launcher.threads=1"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("example"))


def test_it_is_listed_and_planned_without_torch(site):
    program = f"import runpy, sys; sys.argv = ['train.py', '--help']; runpy.run_path({TRAIN!r}, run_name='__main__')"
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    shown = light("-c", check + program, PYTHONPATH=str(site)).stdout.splitlines()
    heads, models, sets = (
        next(line for line in shown if line.startswith(f"{group}:") and "," in line)
        for group in ("head", "model", "dataset")
    )
    assert " normpool," in heads and " patches," in models and " squares," in sets
    assert shown[-1] == "False"
    without = train("--help").stdout
    assert "head:" in without and "normpool" not in without


def test_its_options_are_typed_and_checked(site):
    mistakes = {
        ("head=normpool", "head.sharpness=x"): "head.sharpness=x: expected a number",
        ("head=normpool", "head.sharpness=0"): "head.sharpness=0.0: expected a number > 0",
        ("model=patches", "model.depth=2"): "model.depth",
        (
            "dataset.name=circles",
        ): "dataset.name=circles: expected one of digits, cifar10, cifar100, imagefolder, imagenet, squares, or",
    }
    answers = headsweep_each(*((["train", *words], {}) for words in mistakes), PYTHONPATH=str(site))
    for answer, message in zip(answers, mistakes.values(), strict=True):
        assert answer.returncode == 2 and answer.stderr.startswith(f"headsweep: {message}"), answer.stderr
        assert answer.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def trained(site, tmp_path_factory):
    """The output folder of a grid with the example's head beside one of headsweep."""
    output = tmp_path_factory.mktemp("trained")
    answer = train("-m", *GRID, *QUICK, "hydra.launcher.slots=1", f"paths.output={output}", PYTHONPATH=str(site))
    assert answer.returncode == 0, answer.stderr
    return output


def records(output):
    return {(it := RunFolder(path).record()).name: it for path in (output / "runs").iterdir()}


@pytest.mark.slow
def test_it_trains_beside_the_heads_of_headsweep_and_is_recorded(trained):
    found = records(trained)
    assert sorted(found) == ["gap1-patches-squares-seed0", "normpool1-patches-squares-seed0"]
    for record in found.values():
        assert re.fullmatch(r"1\.0 [0-9a-f]{10}", record.packages["own-head"])
    assert found["normpool1-patches-squares-seed0"].parameters["head.sharpness"] == 1.0


@pytest.mark.slow
def test_its_metric_is_measured_and_shown(site, trained):
    for path in (trained / "runs").iterdir():
        assert 0 < RunFolder(path).result().metrics["test/brier"] < 2
    table = headsweep("table", "--metric", "brier", "--output", trained, PYTHONPATH=str(site))
    assert table.returncode == 0 and "Brier" in table.stdout, table.stderr
    assert "mean squared distance of the probabilities from the label's" in table.stdout


@pytest.mark.slow
def test_runs_of_another_version_are_no_silent_part_of_a_table(trained, site, tmp_path):
    output = tmp_path / "outputs"
    shutil.copytree(trained, output)
    other = install(tmp_path, {'version = "1.0"': 'version = "1.1"', "sharpness * tokens": "sharpness * 2 * tokens"})
    more = ["seed=0,1", f"paths.output={output}", "hydra.launcher.slots=1"]
    answer = train("-m", *GRID, *QUICK, *more, PYTHONPATH=str(other))
    assert answer.returncode == 0, answer.stderr
    assert "MIXED VERSIONS OF own-head: 1.0 " in answer.stdout
    name = next(record.fingerprint for record in records(trained).values() if record.name.startswith("normpool"))
    refused = headsweep("reproduce", name, "--output", output, PYTHONPATH=str(other))
    assert refused.returncode == 2 and "expected own-head 1.0 " in refused.stderr, refused.stderr


@pytest.mark.slow
def test_without_the_package_tables_stay_and_runs_say_what_they_need(trained):
    answer = headsweep("table", "--output", trained)
    assert answer.returncode == 0 and "normpool" in answer.stdout, answer.stderr
    name = next(record.fingerprint for record in records(trained).values() if record.name.startswith("normpool"))
    answer = headsweep("inspect", name, "--output", trained)
    assert answer.returncode == 2 and "was planned with own-head 1.0 " in answer.stderr, answer.stderr
    assert answer.stderr.endswith(", which is not installed; install it\n")


SNAPSHOT = """
import sys
from pathlib import Path
from headsweep.launch.slurm import snapshot
home = snapshot.home(Path(sys.argv[1]))
snapshot.snapshot(home)
print(snapshot.search_path(home))
"""


@pytest.mark.slow
def test_a_job_gets_a_copy_of_the_package(site, trained, tmp_path):
    """It reads and builds its run with the copy alone: the package was removed after the submission."""
    copy = program(SNAPSHOT, str(tmp_path / "code"), path=site)
    assert not list(Path(copy).rglob("__pycache__"))
    (folder,) = (path for path in (trained / "runs").iterdir() if RunFolder(path).record().name.startswith("normpool"))
    build = "import sys; from pathlib import Path; from headsweep.run.load_model import trained; "
    build += "from headsweep.tracking.run_folder import RunFolder; "
    build += "print(sys.modules[type(trained(RunFolder(Path(sys.argv[1]))).head).__module__].__file__)"
    assert program(build, str(folder), path=copy) == f"{copy}/own_head/normpool.py"


def program(code: str, *arguments: str, path: object) -> str:
    """What a program prints that finds the modules of a folder before others."""
    answer = programs.run(["-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(path)})
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.slow
def test_it_has_the_invariants_of_a_head(site):
    answer = headsweep("check-head", "normpool", "--json", PYTHONPATH=str(site))
    assert answer.returncode == 0 and json.loads(answer.stdout)["holds"], answer.stdout


def test_the_page_shows_the_files_of_the_example():
    page = (PROJECT_ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    _, *shown = re.findall(r"```\w+ title=\"(.+?)\"\n(.+?)```", page, re.DOTALL)
    assert [name for name, _ in shown] == [
        "pyproject.toml",
        "src/own_head/records.py",
        "src/own_head/normpool.py",
        "src/own_head/patches.py",
        "src/own_head/squares.py",
        "src/own_head/conf/dataset/squares.yaml",
        "src/own_head/brier.py",
    ]
    for name, text in shown:
        assert text == (EXAMPLE / name).read_text(encoding="utf-8"), f"docs/extending.md: {name}"


def test_it_may_be_run_from_any_folder(site, tmp_path):
    """Where PYTHONPATH is all that names the package."""
    answer = train("head=normpool", "--cfg", "job", cwd=tmp_path, **os.environ | {"PYTHONPATH": str(site)})
    assert "sharpness: 1.0" in answer.stdout

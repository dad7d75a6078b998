"""The wheel, installed away from the checkout: it has its configuration, and works in any folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import programs
from commands import TINY, Answer, headsweep_each
from headsweep.folders import PROJECT_ROOT, code_digest
from own_package import build, install
from programs import module, write_interpreter

pytestmark = pytest.mark.slow

SWEEP = "# @package _global_\nhydra: {sweeper: {params: {head: 'ga,wide_ga'}}}\n"
COMPLETE = {"_HEADSWEEP_COMPLETE": "bash_complete"}
JOB = """
import sys
from pathlib import Path
from headsweep.launch.slurm import snapshot
home = snapshot.home(Path(sys.argv[1]))
snapshot.snapshot(home)
print(home)
"""
READ = """
import sys
from pathlib import Path
import headsweep.folders
from headsweep.plan.frozen import frozen
from headsweep.tracking.run_folder import RunFolder
print(headsweep.folders.CONF, frozen(RunFolder(Path(sys.argv[1]))).batch_size)
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> list[Path]:
    """The sdist and the wheel."""
    return build(PROJECT_ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")


@pytest.fixture(scope="module")
def site(distributions, tmp_path_factory) -> Path:
    """A folder into which the wheel is installed."""
    place = tmp_path_factory.mktemp("site")
    options = ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "--target", str(place)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, str(distributions[1])], check=True)
    return place


@pytest.fixture
def here(tmp_path) -> Path:
    """A working directory with a study and a head of its user."""
    (tmp_path / "conf" / "head").mkdir(parents=True)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "conf/head/wide_ga.yaml").write_text("defaults: [ga]\ngram_dim: 128\n")
    (tmp_path / "sweeps/mine.yaml").write_text(SWEEP)
    return tmp_path


@pytest.fixture
def headsweep(site, here):
    """Gives a command of the installed package in the user's folder."""

    def give(*words: str, **environment: str) -> Answer:
        environment = {**os.environ, "PYTHONPATH": str(site), **environment}
        return programs.run(["-m", "headsweep", *words], cwd=here, env=environment)

    return give


def test_the_wheel_has_all_configuration_and_no_script(distributions):
    names = set(zipfile.ZipFile(distributions[1]).namelist())
    for folder in ("conf", "sweeps"):
        for file in (PROJECT_ROOT / folder).rglob("*.yaml"):
            assert f"headsweep/configuration/{file.relative_to(PROJECT_ROOT)}" in names
    assert {"headsweep/py.typed", "headsweep/report/html/style.css", "headsweep/report/html/script.js"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"headsweep", "hydra_plugins"}


def test_sources_without_git_make_the_same_wheel(distributions, tmp_path):
    with tarfile.open(distributions[0]) as archive:
        archive.extractall(tmp_path)
    (root,) = tmp_path.iterdir()
    (again,) = build(root, tmp_path / "dist", "wheel")
    first, second = zipfile.ZipFile(distributions[1]), zipfile.ZipFile(again)
    assert again.name == distributions[1].name
    code = [name for name in first.namelist() if ".dist-info/" not in name]
    assert {name: first.read(name) for name in code} == {name: second.read(name) for name in code}
    (root / "PKG-INFO").unlink()
    assert [file.name for file in build(root, tmp_path / "bare", "wheel")] == ["headsweep-0.1.0.dev0-py3-none-any.whl"]


def test_help_names_the_command_and_completion_has_the_files_of_package_and_user(site, here):
    completions = (
        ("headsweep train head=wi", 2, {"plain,head=wide_ga"}),
        ("headsweep train -m head = wi", 5, {"plain,wide_ga"}),  # as bash splits words
        ("headsweep plan +sweeps=mi", 2, {"plain,+sweeps=mine"}),
        ("headsweep train optimi", 2, {"plain,optimizer=", "plain,optimizer."}),
    )
    given = [((), COMPLETE | {"COMP_WORDS": words, "COMP_CWORD": str(at)}) for words, at, _ in completions]
    words = (["train", "--help"], ["train", "-sc", "install=bash"])
    answer, install, *offered = headsweep_each(*((it, {}) for it in words), *given, cwd=here, PYTHONPATH=str(site))
    assert "headsweep train -m +sweeps=table1" in answer.stdout, answer
    assert "src/train.py" not in answer.stdout and answer.returncode == 0
    groups = dict(line.split(": ", 1) for line in answer.stdout.splitlines() if re.match(r"[\w/]+: \w", line))
    assert "wide_ga" in groups["head"].split(", ") and {"mine", "table1"} <= set(groups["sweeps"].split(", "))
    assert groups.keys().isdisjoint({"conf", "sweeps/published"}), "no other folders beside sweeps are groups"
    for (_, _, expected), found in zip(completions, offered, strict=True):
        assert expected <= set(found.stdout.split()) and (len(expected) > 1 or found.stdout.count("\n") == 1), found
    assert install.returncode == 2 and 'eval "$(_HEADSWEEP_COMPLETE=bash_source headsweep)"' in install.stderr


def test_a_file_with_the_name_of_a_shipped_one_is_not_read_and_named(headsweep, here):
    (here / "conf/head/se.yaml").write_text("defaults: [ga]\n")
    (here / "sweeps/heads.yaml").write_text(SWEEP)
    answer = headsweep("plan", "--list", "head=se,wide_ga", "precision=float32")
    assert " se1-" in answer.stdout and " ga1-" in answer.stdout, answer
    assert answer.stderr.splitlines() == [
        "headsweep: conf/head/se.yaml is not read: headsweep has a head/se of its own; rename the file",
        "headsweep: sweeps/heads.yaml is not read: headsweep has a heads of its own; rename the file",
    ]


def test_a_mistake_is_one_line(site, here):
    words = (["train", "-m", "heads=1,0"], ["status"])
    answer, status = headsweep_each(*((it, {}) for it in words), cwd=here, PYTHONPATH=str(site))
    assert answer.stderr == "headsweep: heads=0: expected an integer >= 1 (1 of 2 cells: heads=0)\n", answer
    assert answer.returncode == 2 and not (here / "outputs").exists()
    found = f"no sweep in {here / 'outputs'} yet; start one with `headsweep train -m head=seqpool,ga heads=1,4`\n"
    assert status.stdout == found and status.returncode == 0, status


@pytest.mark.slow
def test_a_study_is_trained_compared_and_reproduced_in_any_folder(headsweep, site, here):
    outputs = here / "elsewhere"
    place = {"HEADSWEEP_OUTPUT": "elsewhere"}  # relative to the working directory
    answer = headsweep("train", "-m", "+sweeps=mine", "seed=0", *TINY, "duration=4 steps", "tracking=none", **place)
    assert answer.returncode == 0 and "head.gram_dim" in answer.stdout, answer
    (plan,) = (json.loads(file.read_text()) for file in outputs.glob("sweeps/*/plan.json"))
    assert len(plan["runs"]) == 2 and plan["commands"][0].startswith("headsweep train -m +sweeps=mine seed=0")
    assert plan["code"]["commit"] is None and plan["code"]["digest"] == code_digest()
    run = plan["runs"][0]
    words = (["table"], ["explain", run])
    table, answer = headsweep_each(*((it, {}) for it in words), cwd=here, PYTHONPATH=str(site), **place)
    assert table.returncode == 0 and "gram_dim" in table.stdout and "MIXED CODE" not in table.stdout, table
    assert f"code      headsweep {plan['code']['version']} ({code_digest()})" in answer.stdout, answer
    assert f"  headsweep reproduce {run}\n" in answer.stdout and "head=ga" in answer.stdout
    environment = {**os.environ, "PYTHONPATH": str(site)}
    words = [*module(write_interpreter(here / "python"), "headsweep"), "reproduce", run]
    answer = programs.run(words, cwd=here, env=environment | place)
    assert "REPRODUCED bit for bit" in answer.stdout, answer
    home = programs.run(["-c", JOB, str(here / "code")], env=environment).stdout.strip()
    environment["PYTHONPATH"] = f"{home}/src"
    answer = programs.run(["-c", READ, str(outputs / "runs" / run)], cwd=here, env=environment)
    assert answer.stdout == f"{home}/conf 32\n", answer


@pytest.mark.slow
def test_a_head_of_a_package_is_compared_and_its_bundle_has_the_same_table_elsewhere(headsweep, site, here):
    path = {"PYTHONPATH": os.pathsep.join([str(site), str(install(here / "package"))])}
    grid = ["head=gap,normpool", *TINY, "duration=4 steps", "tracking=none"]
    answer = headsweep("train", "-m", *grid, **path)
    assert answer.returncode == 0, answer
    words = (["table", "--format", "csv"], ["bundle", "latest", "--write", "bundle.tar.gz"])
    found, answer = headsweep_each(*((it, {}) for it in words), cwd=here, **path)
    table = found.stdout
    assert {line.split(",")[0] for line in table.splitlines()} == {"head", "gap", "normpool"}, table
    assert answer.returncode == 0, answer
    with tarfile.open(here / "bundle.tar.gz") as archive:
        archive.extractall(here / "unpacked")
    (root,) = (here / "unpacked").iterdir()
    elsewhere = root.rename(here / "another name")
    shutil.rmtree(here / "outputs")
    assert headsweep("table", "--format", "csv", "--output", str(elsewhere), **path).stdout == table

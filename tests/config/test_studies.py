"""Every study is a document, and every cell of it can be planned and built."""

import re
import shlex
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from commands import train
from composing import expand_grid
from headsweep.config import PROJECT_ROOT, RunConfig
from headsweep.data.locate import CIFAR_FILES
from headsweep.plan.plan import make_plan
from headsweep.report.read.cells import Cell, Run
from headsweep.report.table.published import load, matching
from headsweep.tracking.run_record import RunRecord, RunState

pytestmark = pytest.mark.slow

SWEEPS = PROJECT_ROOT / "sweeps"
STUDIES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
PUBLISHED = sorted(path.name for path in (SWEEPS / "published").glob("*.yaml"))


@cache
def cells(*overrides: str) -> tuple[RunConfig, ...]:
    """The runs of `python src/train.py OVERRIDES`, without cells that a study excludes."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return tuple(expand_grid(*(override for override in overrides if override != "-m")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders that a plan accepts as the data sets."""
    root = tmp_path_factory.mktemp("data")
    for folder, names in CIFAR_FILES.values():
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).touch()
    for split, number in product(("train", "val"), range(1000)):
        folder = root / "imageNet" / split / f"n{number:08}"
        folder.mkdir(parents=True)
        for name in ("image.JPEG", "other.JPEG"):  # together more than a batch
            (folder / name).touch()
    return root


def located(study: str, data: Path) -> list[RunConfig]:
    """The runs of a study, with `data` as paths.data."""
    runs = cells("-m", f"+sweeps={study}")
    roots = [data / "imageNet" if run.dataset.kind == "imagenet" else data for run in runs]
    return [replace(run, dataset=replace(run.dataset, root=str(root))) for run, root in zip(runs, roots, strict=True)]


@pytest.mark.parametrize("study", STUDIES)
def test_every_cell_of_every_study_is_a_run_of_its_own(study, data):
    runs = located(study, data)
    plan = make_plan(runs)
    assert len(plan.runs) == len(runs) > 1


def shallow(run: RunConfig) -> RunConfig:
    """With one block in the place of those that are equal."""
    model = run.model
    if hasattr(model, "depth"):
        return replace(run, model=replace(model, depth=1))
    few = {"layers": [1, 1, 1, 1]} if model.name == "resnet50" else {"depth": 1}
    return replace(run, model=replace(model, options={**(model.options or {}), **few}))


@pytest.mark.slow
@pytest.mark.usefixtures("shapes_unchecked")  # every head's are checked in tests/heads
def test_every_model_of_every_study_can_be_built(data):
    """Each backbone with each head, with the most heads that a study gives it; of the same blocks, one."""
    from headsweep.run.train_run import preflight

    planned = make_plan([run for study in STUDIES for run in located(study, data)]).runs
    by_heads = sorted((shallow(it.run) for it in planned), key=lambda run: run.heads)
    runs = {str((run.model, run.head, run.dataset.num_classes)): run for run in by_heads}
    costs = [preflight(run) for run in runs.values()]
    assert all(0 < cost["head_parameters"] < cost["parameters"] for cost in costs)


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_a_document(study):
    text = (SWEEPS / f"{study}.yaml").read_text()
    for word in ("Question", "Command", "Cost", "Expected"):
        assert f"\n# {word} " in text
    assert f"python src/train.py -m +sweeps={study}" in text
    count = re.search(r"\n# Cost +(\d+) (?:cells|runs)", text)
    assert int(count[1]) == len(cells("-m", f"+sweeps={study}"))


def test_published_multi_head_models_have_eight_heads_under_every_name():
    heads = {run.head.name: run.heads for run in cells("-m", "+sweeps=as_published")}
    assert heads == {"seqpool": 1, "sg": 8, "at": 8, "ga": 8, "seqattn": 8}


def test_the_gramian_study_has_the_rows_of_table_2():
    rows = {(run.model.name, run.head.name, run.heads, run.decorrelation) for run in cells("-m", "+sweeps=ga_table2")}
    gram = [(1, 0), (5, 0), (5, -0.4), (5, -0.8)]
    expected = {("resnet50", "gap", heads, 0) for heads in (1, 10)}
    expected |= {("vit_small_patch16_224", head, heads, 0) for head in ("gap", "cls") for heads in (1, 20)}
    for model in ("resnet50", "vit_small_patch16_224"):
        expected |= {(model, "cait", heads, 0) for heads in (1, 5)}
        expected |= {(model, "ga", heads, weight) for heads, weight in gram}
    assert rows == expected


def test_a_study_is_found_from_any_folder_and_its_axes_can_be_overridden(tmp_path):
    answer = train("-m", "+sweeps=main", "heads=0", f"paths.output={tmp_path}", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == "headsweep: heads=0: expected an integer >= 1\n"


def test_exclusions_of_a_study_can_be_overridden(tmp_path):
    """An excluded cell need not be valid, so the command fails only at the absent data."""
    command = ["-m", "+sweeps=table1", "heads=0,8", "hydra.launcher.exclude=['heads=0']"]
    answer = train(*command, f"paths.output={tmp_path}", f"paths.data={tmp_path}")
    assert "3 of 6 cells left out" in answer.stdout
    assert answer.stderr.startswith("headsweep: cifar100: no ")


def recorded(run: RunConfig) -> Cell:
    """The cell of a run, as read from its folder."""
    config = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    return Cell((Run(RunRecord("", "", "", "", run.seed, config, {}, {}, {}), RunState.finished, None),))


def commanded(name: str) -> list[tuple[str, ...]]:
    """The overrides of the commands in the head of a file of published numbers."""
    comment = (SWEEPS / "published" / name).read_text().replace("\\\n#", "")
    command = re.search(r"^# Command +python src/train.py (.*)", comment, re.MULTILINE)[1]
    variants = re.findall(r"^# with +(.*)", comment, re.MULTILINE) or [""]
    return [tuple(shlex.split(f"{command} {variant}")) for variant in variants]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_of_published_numbers_reaches_them(name):
    source = load(SWEEPS / "published")[PUBLISHED.index(name)]
    runs = [run for overrides in commanded(name) for run in cells(*overrides)]
    reached = [row for run in runs for row in matching(recorded(run), [source])]
    assert [row.printed_as for row in source.rows if row not in reached] == []


@pytest.mark.parametrize(
    "overrides", [("-m", "+sweeps=main"), ("+sweeps=table1", "debug=quick"), ("+sweeps=table1", "duration='30 epochs'")]
)
def test_a_demo_matches_no_published_number(overrides):
    sources = load(SWEEPS / "published")
    assert not [row for run in cells(*overrides) for row in matching(recorded(run), sources)]

import shutil
import sys
import threading
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from composing import compose_run
from headsweep.credentials import with_password
from headsweep.data.datasets import load_tree, split
from headsweep.errors import UserError
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.frozen import frozen
from headsweep.plan.lookup import Lookup
from headsweep.plan.plan import freeze, make_plan
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

COST = {"parameters": 1, "head_parameters": 1, "flops": 1, "head_flops": 1}


def grid(output, heads=("seqpool", "ga"), counts=(1, 4), seeds=(0,)):
    return [
        compose_run(f"head={head}", f"heads={count}", f"seed={seed}", f"paths.output={output}")
        for head in heads
        for count in counts
        for seed in seeds
    ]


@pytest.mark.slow
def test_a_plan_keeps_the_order_of_the_grid_and_drops_repetitions(tmp_path):
    configs = grid(tmp_path)
    plan = make_plan([*configs, configs[0]])
    assert [(run.run.head.name, run.run.heads) for run in plan.runs] == [
        ("seqpool", 1),
        ("seqpool", 4),
        ("ga", 1),
        ("ga", 4),
    ]
    assert plan.axes == ("head.name", "heads")


def test_planning_writes_nothing(tmp_path):
    make_plan(grid(tmp_path / "outputs"))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_more_seeds_stay_in_the_same_sweep_and_keep_their_runs(tmp_path):
    few, more = make_plan(grid(tmp_path)), make_plan(grid(tmp_path, seeds=(0, 1)))
    assert more.name == few.name
    assert {run.fingerprint for run in few.runs} < {run.fingerprint for run in more.runs}


@pytest.fixture
def plan_seeds(tmp_path):
    """Two cells with some seeds, planned by a command of their own."""
    one = compose_run(f"paths.output={tmp_path}")

    def plan(*seeds: int):
        planned = make_plan([replace(one, heads=heads, seed=seed) for heads in (4, 1) for seed in seeds])
        freeze(planned, {run.fingerprint: COST for run in planned.runs})
        return planned

    return plan


def frozen_order(plan) -> list[tuple[int, int]]:
    """Heads and seed of the runs in the sweep's plan."""
    runs = [folder.record() for folder in SweepFolder(plan.folder).runs()]
    return [(run.config["heads"], run.seed) for run in runs]


@pytest.mark.slow
def test_a_sweep_keeps_the_seeds_of_earlier_commands_in_the_order_of_cells_and_seeds(plan_seeds):
    for seeds in ((2,), (10, 0), (1,)):
        plan_seeds(*seeds)
    plan = plan_seeds(2)
    assert frozen_order(plan) == [(heads, seed) for heads in (4, 1) for seed in (0, 1, 2, 10)]
    assert SweepFolder(plan.folder).plan()["axes"] == ["heads", "seed"]


def test_a_sweep_keeps_the_commands_that_planned_it_each_once(plan_seeds, monkeypatch):
    for seeds in ("0", "1", "0"):
        monkeypatch.setattr(sys, "argv", ["src/train.py", "-m", f"seed={seeds}"])
        plan = plan_seeds(int(seeds))
    assert SweepFolder(plan.folder).commands() == [f"python src/train.py -m seed={seed}" for seed in "01"]


@pytest.mark.slow
def test_a_run_that_was_removed_leaves_the_plan_of_its_sweep_and_a_damaged_one_is_refused(plan_seeds):
    first = plan_seeds(0, 1)
    shutil.rmtree(first.folders[0].path)
    (first.folders[1].path / "run.json").write_text('{"fingerprint": ')
    with pytest.raises(Damaged, match=rf"{first.folders[1].path}/run.json, expected JSON"):
        plan_seeds(2)
    shutil.rmtree(first.folders[1].path)
    last = first.folders[-1]
    shutil.copytree(last.path, first.folders[1].path)  # by hand, to name the run's results as those of another one
    with pytest.raises(
        Damaged, match=rf"expected that of run {first.folders[1].path.name}, found that of {last.path.name}"
    ):
        plan_seeds(2)
    shutil.rmtree(first.folders[1].path)
    second = plan_seeds(2)
    assert frozen_order(second) == [(4, 2), (1, 0), (1, 1), (1, 2)]
    (second.folder / "plan.json").write_text('{"runs": ["a')
    assert frozen_order(plan_seeds(2)) == [(4, 2), (1, 2)]


@pytest.mark.slow
def test_commands_that_plan_at_a_time_keep_each_others_runs(plan_seeds):
    threads = [threading.Thread(target=plan_seeds, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(frozen_order(plan_seeds(8))) == 18


@pytest.mark.slow
def test_a_frozen_run_is_what_was_planned_whatever_is_planned_later(tmp_path):
    plan = make_plan(grid(tmp_path))
    freeze(plan, {run.fingerprint: COST for run in plan.runs})
    assert [frozen(folder) for folder in plan.folders] == [run.run for run in plan.runs]
    before = [folder.record() for folder in plan.folders]
    freeze(plan, {run.fingerprint: {**COST, "flops": 2} for run in plan.runs})
    assert [folder.record() for folder in plan.folders] == before


def test_a_frozen_run_lies_where_its_folder_lies_now(tmp_path):
    was, now = tmp_path / "was", tmp_path / "now"
    plan = make_plan([compose_run(f"tracking.uri=sqlite:///{was}/mine.db", f"paths.output={was}")])
    freeze(plan, {run.fingerprint: COST for run in plan.runs})
    was.rename(now)
    run = frozen(RunFolder(now / "runs" / plan.runs[0].fingerprint))
    assert (run.paths.output, run.tracking.uri) == (str(now), f"sqlite:///{now}/mine.db")
    assert fingerprint(run) == plan.runs[0].fingerprint


def test_a_password_in_a_configuration_of_before_works_and_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    plan = make_plan([compose_run(f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: COST})
    (folder,) = plan.folders
    folder.config.write_text(folder.config.read_text().replace("uri: null", "uri: http://anna:geheim@host"))
    assert frozen(folder).tracking.uri == "http://anna:***@host"
    assert with_password("http://anna:***@host") == "http://anna:geheim@host"


@pytest.mark.parametrize(
    ("section", "key", "value"), [("loader", "stage", None), ("loader", "workers", 2), ("tracking", "models", True)]
)
def test_a_run_of_before_a_key_that_says_where_it_trains_is_the_same_run(tmp_path, section, key, value):
    folder = frozen_without(tmp_path, section, key)
    run = frozen(folder)
    assert getattr(getattr(run, section), key) == value
    assert fingerprint(run) == folder.path.name


@pytest.mark.parametrize(("section", "key"), [(None, "decorrelation"), ("loader", "resident_gib"), (None, "head")])
def test_a_run_of_before_a_key_that_its_numbers_depend_on_is_refused_in_one_line(tmp_path, section, key):
    """No default is taken for it: what the version of then did is not known (laws 1 and 3)."""
    folder = frozen_without(tmp_path, section, key)
    with pytest.raises(UserError) as caught:
        frozen(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder.path} was planned by another version of headsweep (")
    assert key in said and said.endswith("; give the sweep's command again") and "\n" not in said


def test_a_run_with_a_key_that_is_no_more_is_refused(tmp_path):
    folder = frozen_without(tmp_path, None)
    folder.config.write_text(f"{folder.config.read_text()}loops: 3\n")
    with pytest.raises(UserError, match=r"another version of headsweep \(loops: unknown key"):
        frozen(folder)


def frozen_without(output, section, *keys):
    """The folder of a planned run whose frozen configuration lacks some keys of a section."""
    plan = make_plan([compose_run(f"paths.output={output}")])
    freeze(plan, {plan.runs[0].fingerprint: COST})
    (folder,) = plan.folders
    config = OmegaConf.load(folder.config)
    for key in keys:
        del (config[section] if section else config)[key]
    OmegaConf.save(config, folder.config)
    return folder


def test_a_record_names_the_run_and_its_swept_keys(tmp_path):
    plan = make_plan([*grid(tmp_path), compose_run("optimizer.lr=1e-3", f"paths.output={tmp_path}")])
    freeze(plan, {run.fingerprint: COST for run in plan.runs})
    records = [folder.record() for folder in plan.folders]
    assert records[2].name == "ga1-cct_2_3x2-digits-lr=0.0005-seed0"
    assert records[2].parameters["head.gram_dim"] == 64
    assert records[4].parameters["optimizer.lr"] == 1e-3
    assert len({record.name for record in records}) == 5


def test_absent_data_stops_the_plan(tmp_path):
    run = compose_run("dataset=cifar100", f"paths.data={tmp_path}", f"paths.output={tmp_path / 'outputs'}")
    with pytest.raises(UserError, match=f"{tmp_path}.*dataset.download=true"):
        make_plan([run])
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("sizes", "share", "splits"), [((9, 12), 0.1, "2"), ((6, 6, 6), 0.3, "2"), ((9, 12), 0.1, "3")]
)
def test_more_than_the_training_images_is_not_valid(sizes, share, splits, tmp_path):
    for name in ("train", "test", "val")[: int(splits)]:
        for label, size in enumerate(sizes):
            folder = tmp_path / name / str(label)
            folder.mkdir(parents=True)
            for number in range(size):
                (folder / f"{number}.png").write_bytes(b"not read")
    data = ["dataset=imagefolder", f"dataset.root={tmp_path}", "dataset.image_size=16"]
    frozen_head = ["backbone=random", "augmentation=none", "head=knn"]

    def found(*words: str) -> list[str]:
        return [str(it) for it in Lookup().resolve([compose_run(*data, f"dataset.validation={share}", *words)])]

    config = Lookup().resolved([compose_run(*data, "batch_size=1")])[0]
    dataset = replace(config.dataset, validation=share)
    most = len(split(load_tree(dataset), dataset, 0, config.debug).train)
    expected = f"expected at most {most}, the number of training images"
    assert found(f"batch_size={most + 1}") == [f"batch_size={most + 1}: {expected}"]
    assert found(*frozen_head, "batch_size=1", f"head.k={most + 1}") == [f"head.k={most + 1}: {expected}"]
    assert found(*frozen_head, f"batch_size={most + 1}", "head.k=1") == [f"batch_size={most + 1}: {expected}"]
    assert found(f"batch_size={most}")[0].startswith("RunConfig(")
    assert found(*frozen_head, f"batch_size={most}", f"head.k={most}")[0].startswith("RunConfig(")


def test_a_share_that_holds_out_no_image_is_not_valid(tmp_path):
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(b"not read")
    run = compose_run("dataset=imagefolder", f"dataset.root={tmp_path}", "batch_size=1")
    with pytest.raises(UserError, match=r"^dataset.validation=0.1: .* it holds out none of 2 training images$"):
        make_plan([run])

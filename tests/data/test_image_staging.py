"""A staged set is the set: copied once, whole or not at all, and no number of a run changes."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from headsweep.config import DebugConfig, LoaderConfig
from headsweep.data import staging as staging
from headsweep.data.datasets import open_splits
from headsweep.data.loader import TrainLoader
from headsweep.data.locate import image_sizes, planned_tree, resolve
from headsweep.data.staging import stage
from headsweep.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

WHOLE = DebugConfig(None, None, False)


@pytest.fixture(params=["imagefolder", "imagenet"])
def dataset(request, make_dataset, write_folder, tmp_path):
    """Both layouts; imagenet in torchvision's, with its file names."""
    root, ending = tmp_path / "set", "JPEG" if request.param == "imagenet" else "jpg"
    splits = ["train", "val"] if request.param == "imagenet" else ["train", "val", "test"]
    write_folder(root, splits, ending=ending)
    return resolve(make_dataset(request.param, root=str(root), num_classes=None, image_size=32, validation=0.25))


def files(folder):
    """Names and contents of all images below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.[jJ]*")}


def when_changed(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.[jJ]*")}


def batches(dataset, make_augmentation, where):
    splits = open_splits(dataset, 0, LoaderConfig(0, 0.0, where), WHOLE)
    loader = TrainLoader(splits.train, dataset, make_augmentation("paper_imagenet"), 0, 6, torch.device("cpu"), 0)
    return splits, list(loader.epoch(0))


def test_a_run_reads_the_copy_and_sees_the_same_batches(dataset, make_augmentation, tmp_path):
    _, expected = batches(dataset, make_augmentation, None)
    splits, got = batches(dataset, make_augmentation, str(tmp_path / "disk"))
    for one, other in zip(expected, got, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for split in splits:
        assert split.paths and all(Path(path).is_relative_to(tmp_path / "disk") for path in split.paths)


def test_the_copy_has_every_image_and_a_second_run_copies_nothing(dataset, tmp_path):
    copy = stage(dataset, str(tmp_path / "disk"))
    assert files(copy) == files(dataset.root) and not list(copy.rglob("*.part"))
    before = when_changed(copy)
    assert stage(dataset, str(tmp_path / "disk")) == copy and when_changed(copy) == before


def test_a_small_set_lives_on_the_device_and_is_not_copied(dataset, tmp_path):
    open_splits(dataset, 0, LoaderConfig(0, 1.0, str(tmp_path / "disk")), WHOLE)
    assert not (tmp_path / "disk").exists()


def test_variables_are_those_of_the_machine_that_trains(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    assert stage(dataset, "$NODE_DISK/images").parent == tmp_path / "disk/images"
    monkeypatch.delenv("NODE_DISK")
    with pytest.raises(ConfigError, match=r"loader.stage=\$NODE_DISK/images: expected variables that are set"):
        stage(dataset, "$NODE_DISK/images")


def test_what_a_cleaner_removed_or_a_crash_cut_off_is_copied_again(dataset, tmp_path):
    copy = stage(dataset, str(tmp_path / "disk"))
    first, second, *others = sorted(copy.rglob("*.[jJ]*"))
    first.unlink()
    second.write_bytes(b"cut off")
    before = [path.stat().st_mtime_ns for path in others]
    assert files(stage(dataset, str(tmp_path / "disk"))) == files(dataset.root)
    assert [path.stat().st_mtime_ns for path in others] == before


# Copies slowly, so that it can be killed or run beside another; prints a line after the first image.
SLOWLY = """
import sys, time
from pathlib import Path
from omegaconf import OmegaConf
from headsweep.config import DatasetConfig
from headsweep.data import staging as staging
values, folder, delay = OmegaConf.create(sys.argv[1]), sys.argv[2], float(sys.argv[3])
copy_one, staging._COPIES = staging._copy, 1
def slowly(source, target, size):
    time.sleep(delay)
    copy_one(source, target, size)
    with Path(folder).with_suffix(".copied").open("a") as log:
        log.write(f"{target.name}\\n")
    print("copied", flush=True)
staging._copy = slowly
staging.stage(DatasetConfig(**values), folder)
"""


def process(dataset, folder, delay):
    values = vars(dataset)
    arguments = [OmegaConf.to_yaml(OmegaConf.create(values)), str(folder), str(delay)]
    return subprocess.Popen([sys.executable, "-c", SLOWLY, *arguments], stdout=subprocess.PIPE, text=True)


def test_a_killed_copy_is_completed(dataset, tmp_path):
    copying = process(dataset, tmp_path / "disk", 0.2)
    assert copying.stdout.readline() == "copied\n"
    copying.kill()
    copying.communicate()
    (copy,) = (tmp_path / "disk").glob("*/")
    held = when_changed(copy)
    assert 0 < len(held) < len(image_sizes(dataset, planned_tree(dataset)))
    assert stage(dataset, str(tmp_path / "disk")) == copy and files(copy) == files(dataset.root)
    assert held.items() <= when_changed(copy).items()  # what was whole is not copied again


@pytest.mark.slow
def test_two_at_once_share_one_copy(dataset, tmp_path):
    two = [process(dataset, tmp_path / "disk", 0.01) for _ in range(2)]
    assert [one.wait(60) for one in two] == [0, 0]
    for one in two:
        one.stdout.close()
    (copy,) = (tmp_path / "disk").glob("*/")
    assert files(copy) == files(dataset.root)
    copied = (tmp_path / "disk.copied").read_text().splitlines()
    assert len(copied) == len(image_sizes(dataset, planned_tree(dataset)))


def test_a_disk_that_is_too_small_is_one_line_with_both_numbers(dataset, tmp_path, monkeypatch):
    # Creating a disk of a given size needs root: only its reported size is replaced.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5000))
    needed = sum(-(-size // 4096) * 4096 for size in image_sizes(dataset, planned_tree(dataset)).values())
    with pytest.raises(ConfigError) as caught:
        stage(dataset, str(tmp_path / "disk"))
    expected = f"loader.stage={tmp_path}/disk: expected {needed:,} free bytes, found 5,000; give"
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    monkeypatch.undo()
    stage(dataset, str(tmp_path / "disk"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    stage(dataset, str(tmp_path / "disk"))  # what is there already needs no room


def test_images_that_are_not_those_of_the_plan_are_refused(make_dataset, write_folder, tmp_path):
    dataset = resolve(make_dataset("imagefolder", root=str(write_folder(tmp_path / "set", ["train", "test"]))))
    (tmp_path / "set/train/class0/000.jpg").write_bytes(b"another")
    with pytest.raises(DataError, match="set has changed since the run was planned"):
        stage(dataset, str(tmp_path / "disk"))


def test_a_file_that_changes_while_it_is_copied_is_not_taken(tmp_path):
    (tmp_path / "image.jpg").write_bytes(b"longer than it was")
    with pytest.raises(DataError, match=r"image\.jpg changed while it was copied"):
        staging._copy(tmp_path / "image.jpg", tmp_path / "copy.jpg", 3)
    assert not (tmp_path / "copy.jpg").exists()

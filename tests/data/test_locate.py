"""Errors in locating a data set are one line, without loading torch."""

import re
import subprocess
import sys

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from headsweep.data.listing import IMAGE_SUFFIXES
from headsweep.data.locate import resolve
from headsweep.errors import ConfigError, DataError


def fails(kind, pattern, dataset):
    with pytest.raises(kind) as caught:
        resolve(dataset)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_named_sets_are_filled_in(make_dataset, write_cifar, tmp_path):
    write_cifar(tmp_path, "cifar10")
    write_cifar(tmp_path, "cifar100")
    root = str(tmp_path)
    found = [resolve(make_dataset("digits", num_classes=None))]
    found += [resolve(make_dataset(name, root=root, num_classes=None)) for name in ("cifar10", "cifar100")]
    assert [(dataset.num_classes, dataset.digest) for dataset in found] == [(10, None), (10, None), (100, None)]


def test_image_folder_is_counted_and_digested(make_dataset, write_folder, tmp_path):
    dataset = make_dataset("imagefolder", root=str(write_folder(tmp_path, ["train", "val"])))
    first = resolve(dataset)
    assert first.num_classes == 3 and dataset.num_classes is None
    assert resolve(dataset) == first == resolve(first)
    (tmp_path / "train/class1/000.jpg").rename(tmp_path / "train/class1/zzz.jpg")
    assert resolve(dataset).digest != first.digest


def test_digest_does_not_depend_on_where_the_folder_is(make_dataset, write_folder, tmp_path):
    roots = [str(write_folder(tmp_path / name, ["train", "test"])) for name in "ab"]
    one, other = (resolve(make_dataset("imagefolder", root=root)).digest for root in roots)
    assert one == other


def test_imagenet_layout(make_dataset, write_folder, tmp_path):
    dataset = make_dataset("imagenet", root=str(write_folder(tmp_path, ["train", "val"])), num_classes=None)
    assert (resolve(dataset).num_classes, resolve(dataset).digest) == (3, None)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_cifar(name, make_dataset, tmp_path):
    dataset = make_dataset(name, root=str(tmp_path))
    fails(DataError, rf"{tmp_path}.*dataset.download=true.*folder cifar-", dataset)
    assert resolve(make_dataset(name, root=str(tmp_path), download=True)).num_classes


def test_incomplete_cifar(make_dataset, write_cifar, tmp_path):
    (write_cifar(tmp_path, "cifar10") / "data_batch_3").unlink()
    fails(DataError, "lacks data_batch_3", make_dataset("cifar10", root=str(tmp_path)))


def test_absent_imagenet(make_dataset, tmp_path):
    fails(DataError, rf"no {tmp_path}/train; get ILSVRC2012", make_dataset("imagenet", root=str(tmp_path)))


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "imagefolder"])
def test_root_is_needed(name, make_dataset):
    fails(ConfigError, "dataset.root: .*dataset.root=PATH", make_dataset(name))


def test_absent_train(make_dataset, tmp_path):
    fails(DataError, rf"no {tmp_path}/train", make_dataset("imagefolder", root=str(tmp_path)))


def test_absent_test(make_dataset, write_folder, tmp_path):
    root = write_folder(tmp_path, ["train"])
    fails(DataError, "expected test/ or val/", make_dataset("imagefolder", root=str(root)))


def test_splits_that_disagree(make_dataset, write_folder, tmp_path):
    root = write_folder(tmp_path, ["train", "test"])
    (root / "test/class2").rename(root / "test/class9")
    fails(DataError, "test/ lacks 'class2'", make_dataset("imagefolder", root=str(root)))


def test_class_without_images(make_dataset, write_folder, tmp_path):
    root = write_folder(tmp_path, ["train", "test"])
    for path in (root / "test/class1").iterdir():
        path.rename(path.with_suffix(".txt"))
    fails(DataError, "test/class1 has no image", make_dataset("imagefolder", root=str(root)))


def test_fewer_than_two_classes(make_dataset, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    dataset = make_dataset("imagefolder", root=str(tmp_path))
    fails(DataError, "has 0 class folders; expected", dataset)
    for split in ("train", "test"):
        (tmp_path / split / "only").mkdir()
    fails(DataError, "has 1 class folder; expected", dataset)


def test_wrong_number_of_classes(make_dataset, write_folder, tmp_path):
    root = str(write_folder(tmp_path, ["train", "test"]))
    fails(ConfigError, r"dataset.num_classes=7: expected 3, ", make_dataset("imagefolder", root=root, num_classes=7))
    fails(ConfigError, r"dataset.num_classes=7: expected 10, ", make_dataset("digits", num_classes=7))


def test_channels(make_dataset):
    fails(ConfigError, "dataset.channels=2", make_dataset("digits", channels=2, mean=[0, 0], std=[1, 1]))


def test_endings_are_those_of_the_loader():
    assert set(IMAGE_SUFFIXES) == set(IMG_EXTENSIONS)


def test_locating_data_imports_neither_torch_nor_numpy():
    code = "import sys, headsweep.data.locate; print({'torch', 'torchvision', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "set()\n", answer.stderr

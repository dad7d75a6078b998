"""The real loaders on small real files, and invariants of the splits."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from headsweep import rng
from headsweep.config import DATASETS, PROJECT_ROOT, DatasetFormat, DebugConfig, LoaderConfig
from headsweep.data.datasets import open_splits, stratified
from headsweep.data.formats import FORMATS
from headsweep.data.locate import resolve
from headsweep.data.sources import ResidentSource, StreamedSource
from headsweep.errors import ConfigError, DataError

RESIDENT = LoaderConfig(workers=0, resident_gib=1.0, stage=None)
STREAMED = LoaderConfig(workers=0, resident_gib=0.0, stage=None)
WHOLE = DebugConfig(train_images=None, eval_images=None, detect_anomaly=False)


def load(dataset, seed=0, loader=RESIDENT, debug=WHOLE):
    return open_splits(resolve(dataset), seed, loader, debug)


def rows(source):
    """Images as a multiset that can be compared."""
    return sorted(image.numpy().tobytes() for image in source.images)


def test_each_data_set_has_all_its_places():
    """Those that docs/data.md lists."""
    names = set(DATASETS)
    assert set(FORMATS) == set(DatasetFormat) and {it.value for it in DatasetFormat} <= names
    assert {path.stem for path in (PROJECT_ROOT / "conf/dataset").glob("*.yaml")} >= names
    for page in ("data.md", "configuration.md"):
        text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
        assert [name for name in names if f"`{name}`" not in text] == []


def test_digits(make_dataset):
    splits = load(make_dataset("digits"))
    assert [len(split) for split in splits] == [1294, 144, 359]
    assert splits.train.images.shape[1:] == (1, 16, 16) and splits.train.images.dtype == torch.uint8
    assert splits.train.images.max() == 255
    share = splits.test.labels.bincount() / 359
    assert share.min() > 0.09 and share.max() < 0.11


def test_the_digits_are_those_of_scikit_learn(make_dataset):
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    splits = load(make_dataset("digits", image_size=8, validation=0.0))
    found = [
        (image.tobytes(), int(label))
        for split in (splits.train, splits.test)
        for image, label in zip(split.images.numpy(), split.labels, strict=True)
    ]
    assert sorted(found) == sorted((image.tobytes(), label) for image, label in zip(images, digits.target, strict=True))


def test_test_split_is_the_same_for_all_seeds_and_validation_is_not(make_dataset):
    one, other = (load(make_dataset("digits"), seed) for seed in (0, 1))
    assert torch.equal(one.test.images, other.test.images)
    assert rows(one.validation) != rows(other.validation)
    assert rows(load(make_dataset("digits"), 0).validation) == rows(one.validation)


def test_validation_and_train_are_a_partition(make_dataset):
    splits = load(make_dataset("digits"))
    whole = load(make_dataset("digits", validation=0.0))
    assert whole.validation is None
    assert sorted(rows(splits.train) + rows(splits.validation)) == rows(whole.train)


def test_stratified():
    labels = torch.arange(1003) % 10 * (torch.arange(1003) % 7 > 1)
    chosen = stratified(labels, 0.1, torch.Generator().manual_seed(3))
    assert chosen.sum() == 100
    assert ((labels[chosen].bincount() - labels.bincount() * 0.1).abs() < 1).all()
    again = stratified(labels, 0.1, rng.generator(5, "validation split"))
    assert not torch.equal(chosen, again) and torch.equal(labels[chosen].bincount(), labels[again].bincount())


def test_stratified_leaves_one_of_each_class():
    labels = torch.tensor([0, 0, 0, 0, 1])
    assert labels[~stratified(labels, 0.9, torch.Generator())].unique().tolist() == [0, 1]


def test_validation_that_holds_out_nothing(make_dataset, write_folder, tmp_path):
    root = str(write_folder(tmp_path, ["train", "test"]))
    with pytest.raises(
        ConfigError, match=r"dataset\.validation=0\.001: expected a larger share, or 0: it holds out none of 24"
    ):
        load(make_dataset("imagefolder", root=root, validation=0.001))


@pytest.mark.parametrize(("name", "train"), [("cifar10", 100), ("cifar100", 20)])
def test_cifar(name, train, make_dataset, write_cifar, tmp_path, pictures):
    write_cifar(tmp_path, name)
    splits = load(make_dataset(name, root=str(tmp_path), validation=0.0))
    assert (len(splits.train), len(splits.test)) == (train, 20)
    assert np.array_equal(splits.test.images.permute(0, 2, 3, 1).numpy(), pictures[:20])
    assert splits.test.labels.tolist() == [i % (10 if name == "cifar10" else 100) for i in range(20)]


def test_cifar_at_another_size_and_grey(make_dataset, write_cifar, tmp_path, pictures):
    write_cifar(tmp_path, "cifar10")
    changes = {"image_size": 16, "channels": 1, "mean": [0.5], "std": [0.2]}
    splits = load(make_dataset("cifar10", root=str(tmp_path), **changes))
    expected = Image.fromarray(pictures[4]).convert("L").resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(splits.test.images[4, 0].numpy(), np.asarray(expected))


def test_corrupted_cifar_is_one_line(make_dataset, write_cifar, tmp_path):
    path = write_cifar(tmp_path, "cifar10") / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError) as caught:
        load(make_dataset("cifar10", root=str(tmp_path)))
    assert re.search(r"cifar-10-batches-py cannot be read: .*corrupted.*download=true", str(caught.value))
    assert "\n" not in str(caught.value)


def test_download_reports_failure_in_one_line(make_dataset, tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/none")
    with pytest.raises(DataError, match=r"cannot be downloaded to .*refused.*check the network"):
        load(make_dataset("cifar10", root=str(tmp_path / "new"), download=True))


def test_what_is_there_is_not_downloaded_again(make_dataset, write_cifar, tmp_path, monkeypatch):
    import torchvision

    folder = write_cifar(tmp_path, "cifar10")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/none")
    assert len(load(make_dataset("cifar10", root=str(tmp_path), download=True)).test) == 20
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_image_folder(ending, make_dataset, write_folder, tmp_path):
    dataset = make_dataset("imagefolder", root=str(write_folder(tmp_path, ["train", "val", "test"], ending=ending)))
    splits = load(dataset)
    assert [len(split) for split in splits] == [24, 24, 24]
    assert all(isinstance(split, ResidentSource) for split in splits)
    assert splits.train.labels[:3].tolist() == [0, 1, 2]  # the first so many hold all classes
    with Image.open(tmp_path / f"test/class1/000.{ending}") as image:
        small = image.convert("RGB").resize((42, 32), Image.Resampling.BICUBIC).crop((5, 0, 37, 32))
    assert np.array_equal(splits.test.images[1].permute(1, 2, 0).numpy(), np.asarray(small))


def test_val_is_the_test_set_without_one(make_dataset, write_folder, tmp_path):
    root = str(write_folder(tmp_path, ["train", "val"]))
    for dataset in (make_dataset("imagefolder", root=root), make_dataset("imagenet", root=root, num_classes=None)):
        dataset.validation, dataset.image_size = 0.25, 32
        splits = load(dataset)
        assert [len(split) for split in splits] == [18, 6, 24]
        assert splits.validation.labels.bincount().tolist() == [2, 2, 2]


def test_large_sets_are_streamed(make_dataset, write_folder, tmp_path):
    splits = load(make_dataset("imagefolder", root=str(write_folder(tmp_path, ["train", "test"]))), loader=STREAMED)
    assert all(isinstance(split, StreamedSource) for split in splits)


def test_debug_keeps_the_first(make_dataset):
    debug = DebugConfig(train_images=50, eval_images=20, detect_anomaly=False)
    few, whole = load(make_dataset("digits"), debug=debug), load(make_dataset("digits"))
    assert [len(split) for split in few] == [50, 20, 20]
    for some, everything in zip(few, whole, strict=True):
        assert torch.equal(some.images, everything.images[: len(some)])


def test_unreadable_image_is_named(make_dataset, write_folder, tmp_path):
    root = write_folder(tmp_path, ["train", "test"])
    (root / "train/class0/003.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/class0/003.jpg cannot be decoded"):
        load(make_dataset("imagefolder", root=str(root)))

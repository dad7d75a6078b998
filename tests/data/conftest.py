"""Real images for the data tests, cut from the photographs that ship with scikit-learn, and small true data sets."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images

from headsweep.config import PROJECT_ROOT, AugmentationConfig, AugmentationOrder, DatasetConfig, DatasetFormat


def _values(path):
    return OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / "conf" / path), resolve=False)


@pytest.fixture(autouse=True)
def one_thread():
    """Many small operations: on a busy machine threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_dataset():
    def make(name, /, **changes):
        values = _values(f"dataset/{name}.yaml") | {"root": None} | changes
        values["format"] = values["format"] and DatasetFormat(values["format"])
        return DatasetConfig(**values)

    return make


@pytest.fixture(scope="session")
def make_augmentation():
    def make(name="none", **changes):
        values = _values(f"augmentation/{name}.yaml")
        return replace(AugmentationConfig(**values | {"order": AugmentationOrder(values["order"])}), **changes)

    return make


@pytest.fixture(scope="session")
def photos():
    return load_sample_images().images


@pytest.fixture(scope="session")
def pictures(photos):
    """(60, 32, 32, 3) uint8 tiles of two photographs."""
    small = [np.asarray(Image.fromarray(photo).resize((192, 160))) for photo in photos]
    return np.stack([p[y : y + 32, x : x + 32] for p in small for y in range(0, 160, 32) for x in range(0, 192, 32)])


@pytest.fixture
def tiles(pictures):
    """The same as (60, 3, 32, 32) uint8, free to be changed."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="session")
def write_folder(photos):
    """Write <root>/<split>/<class>/*.jpg, sizes of the images varying unless given."""

    def write(root, splits, classes=3, per_class=8, side=None, ending="jpg"):
        for number, split in enumerate(splits):
            for label in range(classes):
                folder = Path(root, split, f"class{label}")
                folder.mkdir(parents=True)
                for i in range(per_class):
                    y, x = 40 * label + 7 * i, 30 * number + 11 * i
                    h, w = (side, side) if side else (36 + 2 * i, 48 - i)
                    Image.fromarray(photos[i % 2][y : y + h, x : x + w]).save(folder / f"{i:03}.{ending}")
        return Path(root)

    return write


def _cifar_rows(pictures, count):
    return pictures[np.arange(count) % len(pictures)].transpose(0, 3, 1, 2).reshape(count, -1)


@pytest.fixture
def write_cifar(pictures, monkeypatch):
    """Write a small CIFAR in the true pickle format; torchvision's checksums are replaced by those of the new files."""

    def write(root, name, per_batch=20):
        classes = 10 if name == "cifar10" else 100
        kind = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
        key, meta_key = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
        folder = Path(root, kind.base_folder)
        folder.mkdir(parents=True)

        def dump(file_name, content):
            (folder / file_name).write_bytes(pickle.dumps(content, protocol=2))
            return hashlib.md5((folder / file_name).read_bytes()).hexdigest()

        def batch(file_name):
            labels = [i % classes for i in range(per_batch)]
            return [file_name, dump(file_name, {"data": _cifar_rows(pictures, per_batch), key: labels})]

        for attribute in ("train_list", "test_list"):
            monkeypatch.setattr(kind, attribute, [batch(file_name) for file_name, _ in getattr(kind, attribute)])
        md5 = dump(kind.meta["filename"], {meta_key: [f"name{i}" for i in range(classes)]})
        monkeypatch.setattr(kind, "meta", {"filename": kind.meta["filename"], "key": meta_key, "md5": md5})
        return folder

    return write

"""Data sets of other formats by name, on small files in their true formats."""

import gzip
import io
import json
import re
import struct
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from headsweep.config import DebugConfig, LoaderConfig
from headsweep.data.datasets import open_splits
from headsweep.data.locate import count_images, has_validation, resolve
from headsweep.errors import ConfigError, DataError

RESIDENT = LoaderConfig(workers=0, resident_gib=1.0, stage=None)
STREAMED = LoaderConfig(workers=0, resident_gib=0.0, stage=None)
WHOLE = DebugConfig(train_images=None, eval_images=None, detect_anomaly=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(label: int, side: int = 12) -> Image.Image:
    """A grey image whose value is that of its label."""
    return Image.fromarray(np.full((side, side), 20 * label + 10, np.uint8))


def encoded(label: int, kind: str = "PNG") -> bytes:
    memory = io.BytesIO()
    picture(label).convert("RGB").save(memory, kind)
    return memory.getvalue()


def write_torchvision_mnist(root, train=20, test=10):
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = np.repeat((20 * labels + 10)[:, None], 28 * 28, axis=1).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
        )
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


def write_dtd(root):
    folder = root / "dtd/dtd"
    (folder / "labels").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 3), ("test", 6)):
        names = [f"class{at % 3}/{split}{at}.png" for at in range(count)]
        for at, name in enumerate(names):
            (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            picture(at % 3).save(folder / "images" / name)
        (folder / f"labels/{split}1.txt").write_text("\n".join(names))


def write_eurosat(root):
    for label in range(10):
        folder = root / f"eurosat/2750/Class{label}"
        folder.mkdir(parents=True)
        for at in range(10):
            picture(label).save(folder / f"Class{label}_{at}.png")


def write_gtsrb(root):
    for label in range(3):
        folder = root / f"gtsrb/GTSRB/Training/{label:05d}"
        folder.mkdir(parents=True)
        for at in range(4):
            picture(label).convert("RGB").save(folder / f"{at:05d}.ppm")
    test = root / "gtsrb/GTSRB/Final_Test/Images"
    test.mkdir(parents=True)
    for label in range(3):
        picture(label).convert("RGB").save(test / f"{label:05d}.ppm")
    rows = "\n".join(f"{label:05d}.ppm;12;12;0;0;12;12;{label}" for label in range(3))
    (root / "gtsrb/GT-final_test.csv").write_text(
        f"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n{rows}\n"
    )


def write_medmnist(root, name="pathmnist", **changes):
    arrays = {}
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        labels = np.arange(count, dtype=np.uint8) % 3
        arrays[f"{split}_images"] = np.repeat((20 * labels + 10)[:, None], 784, axis=1).reshape(count, 28, 28)
        arrays[f"{split}_labels"] = labels[:, None]
    np.savez_compressed(root / f"{name}.npz", **arrays | changes)


def hugging_face(counts=(("train", 12), ("validation", 3), ("test", 6)), label=None):
    features = datasets.Features(
        {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=["cat", "dog", "emu"])}
    )
    rows = {
        split: {
            "image": [{"bytes": encoded(at % 3), "path": None} for at in range(count)],
            "label": [at % 3 for at in range(count)],
        }
        for split, count in counts
    }
    return datasets.DatasetDict({split: datasets.Dataset.from_dict(of, features) for split, of in rows.items()})


def write_saved(root, **options):
    hugging_face(**options).save_to_disk(str(root / "pets"))


def write_parquet(root, name="data/{}-00000-of-00001.parquet", **options):
    for split, rows in hugging_face(**options).items():
        path = root / "pets" / name.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(str(path))


def write_shards(root, name="birds", counts=(("train", 12), ("val", 3), ("test", 6)), labels=lambda at: str(at % 3)):
    (root / name).mkdir(parents=True)
    for split, count in counts:
        for shard in range(3):
            with webdataset.TarWriter(str(root / name / f"birds-{split}-{shard:05d}.tar")) as writer:
                for at in range(shard, count, 3):
                    more = {"json": json.dumps({"kind": at % 3}).encode()}
                    writer.write(
                        {"__key__": f"{split}{at:04d}", "jpg": encoded(at % 3, "JPEG"), "cls": labels(at).encode()}
                        | more
                    )


SETS = {
    "MNIST": ("torchvision", write_torchvision_mnist, (18, 2, 10), False),
    "DTD": ("torchvision", write_dtd, (6, 3, 6), True),
    "EuroSAT": ("torchvision", write_eurosat, (72, 8, 20), False),
    "GTSRB": ("torchvision", write_gtsrb, (11, 1, 3), False),
    "pathmnist": ("medmnist", write_medmnist, (12, 6, 6), True),
    "pets": ("huggingface", write_saved, (12, 3, 6), True),
    "birds": ("webdataset", write_shards, (12, 3, 6), True),
}


@pytest.mark.parametrize("loader", [RESIDENT, STREAMED], ids=["resident", "streamed"])
@pytest.mark.parametrize("name", SETS)
def test_images_belong_to_their_labels_in_every_split(name, loader, make_dataset, tmp_path):
    kind, write, counts, has_own = SETS[name]
    write(tmp_path)
    dataset = resolve(make_dataset(kind, name=name, root=str(tmp_path), image_size=12, crop_ratio=1.0))
    splits = open_splits(dataset, 0, loader, WHOLE)
    assert tuple(map(len, splits)) == counts
    assert has_validation(replace(dataset, validation=0.0)) is has_own
    for split in splits:
        (images,) = split.open(torch.device("cpu"), 0, None).read(0, [torch.arange(len(split))])
        assert images.shape[1:] == (3, 12, 12)
        values = images.double().mean(dim=(1, 2, 3))
        assert (values - (20 * split.labels + 10)).abs().max() <= 2


@pytest.mark.parametrize("name", ["data/{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
def test_parquet_files_are_read_as_a_saved_folder(name, make_dataset, tmp_path):
    (tmp_path / "saved").mkdir()
    write_saved(tmp_path / "saved")
    write_parquet(tmp_path / "parquet", name)
    saved, parquet = (
        open_splits(
            resolve(make_dataset("huggingface", name="pets", root=str(tmp_path / it), image_size=12)),
            0,
            RESIDENT,
            WHOLE,
        )
        for it in ("saved", "parquet")
    )
    for one, other in zip(saved, parquet, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_parquet_files_are_read_as_timm_reads_them(make_dataset, tmp_path):
    from timm.data import create_dataset

    write_parquet(tmp_path)
    theirs = create_dataset("hfds/" + str(tmp_path / "pets"), root=str(tmp_path / "cache"), split="train")
    dataset = resolve(make_dataset("huggingface", name="pets", root=str(tmp_path), image_size=12, crop_ratio=1.0))
    found = open_splits(dataset, 0, RESIDENT, WHOLE).train
    assert pairs_of(found) == pairs_in(theirs[at] for at in range(len(theirs)))


def test_shards_are_read_as_timm_reads_them(make_dataset, tmp_path):
    from timm.data import create_dataset

    write_shards(tmp_path)
    shards = "birds-train-{00000..00002}.tar|12"
    theirs = create_dataset("wds/birds", root=str(tmp_path / "birds"), split=shards)
    dataset = resolve(make_dataset("webdataset", name="birds", root=str(tmp_path), image_size=12, crop_ratio=1.0))
    assert pairs_of(open_splits(dataset, 0, RESIDENT, WHOLE).train) == pairs_in(theirs)


def pairs_of(split):
    """The images and labels of a split of ours, in an order that depends on them alone."""
    return sorted(
        (image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)
    )


def pairs_in(samples):
    """The images and labels of timm, in the same order."""
    return sorted((np.asarray(image).transpose(2, 0, 1).tobytes(), int(label)) for image, label in samples)


def test_planning_loads_neither_torch_nor_datasets(make_dataset, tmp_path):
    import subprocess
    import sys

    write_saved(tmp_path), write_shards(tmp_path), write_medmnist(tmp_path), write_eurosat(tmp_path)
    lines = [
        "import sys",
        "from headsweep.config import DatasetConfig, DatasetFormat",
        "from headsweep.data.locate import *",
    ]
    for name, kind in (
        ("pets", "huggingface"),
        ("birds", "webdataset"),
        ("pathmnist", "medmnist"),
        ("EuroSAT", "torchvision"),
    ):
        values = vars(make_dataset(kind, name=name, root=str(tmp_path))) | {"format": kind}
        lines.append(f"found = resolve(DatasetConfig(**{{**{values}, 'format': DatasetFormat('{kind}')}}))")
        lines.append("print(found.num_classes, count_images(found))")
    lines.append("print([it for it in ('torch', 'torchvision', 'datasets', 'mlflow') if it in sys.modules])")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3 21", "3 21", "3 24", "10 27000", "[]"]


CHANGES = {
    "pathmnist": (
        "medmnist",
        write_medmnist,
        lambda root: write_medmnist(root, test_labels=np.zeros((6, 1), np.uint8)),
    ),
    "pets": ("huggingface", write_saved, lambda root: (root / "pets/train/more.arrow").write_bytes(b"1")),
    "birds": ("webdataset", write_shards, lambda root: (root / "birds/birds-test-00001.tar").write_bytes(b"1")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_another_data_set_and_a_planned_one_is_refused(name, make_dataset, tmp_path):
    kind, write, change = CHANGES[name]
    write(tmp_path)
    dataset = resolve(make_dataset(kind, name=name, root=str(tmp_path), image_size=12))
    assert dataset.digest and resolve(dataset) == dataset
    change(tmp_path)
    with pytest.raises(DataError, match=r"has changed since the run was planned|cannot be read"):
        open_splits(dataset, 0, RESIDENT, WHOLE)


@pytest.mark.parametrize("name", ["pets", "birds", "EuroSAT"])
def test_a_staged_copy_has_the_same_images(name, make_dataset, tmp_path):
    kind, write, *_ = SETS[name]
    write(tmp_path)
    dataset = resolve(make_dataset(kind, name=name, root=str(tmp_path), image_size=12))
    direct = open_splits(dataset, 0, STREAMED, WHOLE)
    staged = open_splits(dataset, 0, replace(STREAMED, stage=str(tmp_path / "disk")), WHOLE)
    assert [str(path) for path in staged.train.paths] != [str(path) for path in direct.train.paths]
    assert all(str(tmp_path / "disk") in str(path) for path in staged.train.paths)
    for one, other in zip(direct, staged, strict=True):
        assert torch.equal(one.resident().images, other.resident().images) and torch.equal(one.labels, other.labels)


def fails(kind, pattern, call):
    with pytest.raises(kind) as caught:
        call()
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "pattern"),
    [
        ("torchvision", "Flower102", r"dataset.name=Flower102: expected a classification .*; close to it: Flowers102"),
        ("torchvision", "Flowers102", r"no .*/flowers-102; give dataset.download=true, or put flowers-102 there"),
        ("medmnist", "pathminst", r"no .*pathminst.npz; close to it: pathmnist; download"),
        ("huggingface", "pet", r"no .*/pet; close to it: pets; put a folder of save_to_disk"),
        ("webdataset", "bird", r"no .*/bird; close to it: birds; put the shards"),
    ],
)
def test_wrong_names(kind, name, pattern, make_dataset, tmp_path):
    write_medmnist(tmp_path), write_saved(tmp_path), write_shards(tmp_path)
    fails((ConfigError, DataError), pattern, lambda: resolve(make_dataset(kind, name=name, root=str(tmp_path))))


def test_a_built_in_name_is_needed_without_a_format(make_dataset):
    fails(
        ConfigError,
        r"dataset.name=cifar11: expected one of digits, .*dataset=torchvision",
        lambda: make_dataset("cifar10", name="cifar11"),
    )


def test_keys_without_an_effect_are_refused(make_dataset):
    fails(ConfigError, "dataset.label=x: expected null", lambda: make_dataset("medmnist", name="pathmnist", label="x"))
    fails(ConfigError, "dataset.download=True: .*only", lambda: make_dataset("webdataset", name="birds", download=True))


def test_without_network_one_line_names_the_folder(make_dataset, tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host\nsomewhere")

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", offline)
    dataset = resolve(make_dataset("torchvision", name="DTD", root=str(tmp_path), download=True))
    fails(
        DataError,
        rf"DTD cannot be downloaded to {tmp_path}: no route to host somewhere; check the network, or put dtd there",
        lambda: open_splits(dataset, 0, RESIDENT, WHOLE),
    )


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "found 14 .a multi-label data set."),
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, "3D sets cannot be used"),
        ({"train_images": np.zeros((12, 28, 28), np.float32)}, "of uint8, .*of float32"),
        ({"test_labels": np.zeros((0, 1), np.uint8)}, "test_labels is empty"),
    ],
)
def test_unusable_files_of_medmnist(changes, pattern, make_dataset, tmp_path):
    write_medmnist(tmp_path, **changes)
    dataset = make_dataset("medmnist", name="pathmnist", root=str(tmp_path), image_size=12)
    fails(DataError, pattern, lambda: open_splits(resolve(dataset), 0, RESIDENT, WHOLE))


def test_a_file_that_is_no_medmnist(make_dataset, tmp_path):
    dataset = make_dataset("medmnist", name="pathmnist", root=str(tmp_path))
    (tmp_path / "pathmnist.npz").write_bytes(b"1234")
    fails(DataError, "pathmnist.npz cannot be read: .*; download it again", lambda: resolve(dataset))
    np.savez(tmp_path / "pathmnist.npz", x=np.zeros(3))
    fails(DataError, "found x.npy, without test_images.npy, ", lambda: resolve(dataset))


@pytest.mark.parametrize("write", [write_saved, write_parquet])
def test_unusable_data_sets_of_hugging_face(write, make_dataset, tmp_path):
    dataset = make_dataset("huggingface", name="pets", root=str(tmp_path), image_size=12)
    write(tmp_path, counts=(("train", 6),))
    fails(DataError, "expected a split for test, found splits: train; expected a folder", lambda: resolve(dataset))


def test_splits_without_images_and_a_missing_package(make_dataset, tmp_path, monkeypatch):
    write_parquet(tmp_path, counts=(("train", 6), ("test", 0)))
    dataset = make_dataset("huggingface", name="pets", root=str(tmp_path))
    fails(DataError, "pets in .* has no image for test", lambda: resolve(dataset))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fails(DataError, "expected the package datasets, found none; pip install datasets", lambda: resolve(dataset))


def test_the_split_for_validation_takes_the_place_of_a_missing_test_split(make_dataset, tmp_path):
    write_saved(tmp_path, counts=(("train", 30), ("validation", 6)))
    dataset = resolve(make_dataset("huggingface", name="pets", root=str(tmp_path), image_size=12))
    assert [len(it) for it in open_splits(dataset, 0, RESIDENT, WHOLE)] == [27, 3, 6]


def test_the_column_of_the_labels(make_dataset, tmp_path):
    write_saved(tmp_path, label=datasets.Value("int64"))
    make = lambda **changes: make_dataset("huggingface", name="pets", root=str(tmp_path), **changes)  # noqa: E731
    assert resolve(make()).num_classes == 3
    fails(
        ConfigError,
        "dataset.label=lable: expected a column of .*; close to it: label",
        lambda: resolve(make(label="lable")),
    )
    write_saved(tmp_path, label=datasets.Value("string"))
    fails(DataError, "expected integers in the column label", lambda: resolve(make()))


def test_the_list_of_shards_of_timm(make_dataset, tmp_path):
    write_shards(tmp_path)
    shards = {it: [f"birds-{it}-{at:05d}.tar" for at in range(2)] for it in ("train", "test")}
    splits = {
        it: {"name": it, "filenames": names, "shard_lengths": [4, 4], "num_samples": 8} for it, names in shards.items()
    }
    (tmp_path / "birds/_info.json").write_text(json.dumps({"splits": splits}))
    dataset = make_dataset("webdataset", name="birds", root=str(tmp_path), validation=0.0)
    assert count_images(resolve(dataset)) == 8 + 4
    (tmp_path / "birds/birds-train-00001.tar").unlink()
    fails(DataError, "no birds-train-00001.tar, which its list of shards names", lambda: resolve(dataset))


def test_labels_from_the_json_files(make_dataset, tmp_path):
    write_shards(tmp_path, labels=lambda at: "x")
    make = lambda **changes: make_dataset("webdataset", name="birds", root=str(tmp_path), **changes)  # noqa: E731
    assert resolve(make(label="kind")).num_classes == 3
    fails(DataError, "0000.cls: expected an integer, found 'x'", lambda: resolve(make()))
    fails(DataError, "0000.json: expected an integer at 'sort', found", lambda: resolve(make(label="sort")))


def test_damaged_shards(make_dataset, tmp_path):
    write_shards(tmp_path)
    dataset = make_dataset("webdataset", name="birds", root=str(tmp_path), image_size=12)
    shard = tmp_path / "birds/birds-train-00000.tar"
    whole = shard.read_bytes()
    for content, pattern in (
        (whole[:700], "empty header"),
        (whole[:2048], "its end is missing"),
        (gzip.compress(whole), "cannot be read"),
        (b"", "empty|no files"),
    ):
        shard.write_bytes(content)
        fails(DataError, rf"birds-train-00000.tar.*({pattern})", lambda: resolve(dataset))
    shard.write_bytes(whole.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    fails(
        DataError,
        r"train0000.jpg in .*birds-train-00000.tar cannot be decoded",
        lambda: open_splits(resolve(dataset), 0, RESIDENT, WHOLE),
    )


def test_labels_are_those_of_the_classes(make_dataset, tmp_path):
    write_shards(tmp_path, labels=lambda at: str(at % 3 - 1))
    dataset = make_dataset("webdataset", name="birds", root=str(tmp_path), image_size=12)
    fails(
        DataError,
        "split (train|test): expected labels from 0 to 1, found -1 to 1",
        lambda: open_splits(resolve(dataset), 0, RESIDENT, WHOLE),
    )


def test_facts_are_those_of_torchvision():
    import inspect

    from torchvision import datasets as theirs

    from headsweep.data.formats.torchvision_facts import FACTS

    for name, facts in FACTS.items():
        kind = getattr(theirs, name)
        for split in facts.images:
            inspect.signature(kind).bind("root", **facts.arguments.get(split, {}), download=False)
        assert set(facts.images) in ({"all"}, {"train", "test"}, {"train", "validation", "test"})

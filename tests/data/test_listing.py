"""Each real file of an image tree counts once, for the digest, the splits, the loaders and staging alike."""

import os
import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from headsweep.config import DebugConfig, LoaderConfig
from headsweep.data.datasets import open_splits
from headsweep.data.listing import read_tree
from headsweep.data.locate import image_sizes, planned_tree, resolve, split_folders
from headsweep.data.staging import stage
from headsweep.errors import DataError

NAMES = ("a/0.jpg", "a/b/1.PNG", "a-b/2.tiff", "a/é/3.webp", "a/b-c/4.bmp", "B/5.JPEG", "a/b/c/6.jpg")
# Sorting whole paths, folders or names gives different orders of these.
WHOLE = DebugConfig(None, None, False)


@pytest.fixture(params=["imagefolder", "imagenet"])
def dataset(request, make_dataset, tmp_path):
    """Both layouts. The files are no images: only listing looks at them."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        for size, name in enumerate(NAMES, 1):
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(split.encode() + b"x" * size)
    return make_dataset(request.param, root=str(root), num_classes=None)


def listed(dataset, split="train"):
    return [(path, label) for path, label, _ in read_tree(split_folders(dataset)).splits[split]]


def refused(dataset):
    """Planning refuses it in one line."""
    with pytest.raises(DataError) as caught:
        resolve(dataset)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_digest_of_ordinary_folders_is_what_it_was(make_dataset, tmp_path):
    for split in ("train", "val", "test"):
        for size, name in enumerate(NAMES, 1):
            path = tmp_path / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
    assert resolve(make_dataset("imagefolder", root=str(tmp_path))).digest == "5094ce82bd776192"


def test_the_order_is_that_of_torchvision(dataset):
    for use, folder in split_folders(dataset).items():
        assert listed(dataset, use) == ImageFolder(str(folder)).samples


def test_hidden_files_are_left_out_and_counted(dataset, caplog):
    expected, digest = listed(dataset), resolve(dataset).digest
    train = Path(dataset.root, "train")
    shutil.copytree(train / "a", train / ".ipynb_checkpoints")
    shutil.copytree(train / "a", train / "a/.ipynb_checkpoints")
    (train / "a/._0.jpg").write_bytes(b"of macOS")
    (train / "a/.DS_Store").write_bytes(b"likewise")
    (train / "a/notes.txt").write_text("no image")
    (train / "stray.jpg").write_bytes(b"in no class")
    assert not caplog.messages and listed(dataset) == expected
    assert resolve(dataset).digest == resolve(dataset).digest == digest
    skipped = "*.txt: 1, hidden folders: 2, hidden images: 1, images outside of the class folders: 1"
    assert caplog.messages == [f"{dataset.root}: left out {skipped}"]  # once, and not .DS_Store, which all Macs have


def test_class_folders_beside_the_splits_are_named(write_folder, make_dataset, tmp_path, caplog, monkeypatch):
    root = write_folder(tmp_path, ["train", "test", "valid", ".cache"])
    (root / "notes/drafts").mkdir(parents=True)
    (root / "lost+found").mkdir()
    is_dir = Path.is_dir

    def is_dir_of_others(path: Path) -> bool:
        if path.parent.name == "lost+found":  # that of a disk
            raise PermissionError
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", is_dir_of_others)
    resolve(make_dataset("imagefolder", root=str(root)))
    expected = "expected validation images in val/ and test images in test/"
    assert caplog.messages == [f"{root}: class folders in valid/ are not read; {expected}"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../a/b/.."])
def test_a_link_to_a_folder_that_holds_it_is_refused(target, dataset):
    link = Path(dataset.root, "train/a/link")
    link.symlink_to(target)
    assert refused(dataset).startswith(f"{link} is a link to {link.resolve()}, a folder that contains the link")


def test_a_loop_by_way_of_another_disk_is_refused(dataset, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/back").symlink_to(Path(dataset.root, "train"))
    Path(dataset.root, "train/a/out").symlink_to(tmp_path / "store")
    assert "out/back is a link to" in refused(dataset)


def test_a_data_set_of_links_is_the_data_set(dataset, tmp_path):
    root, store = Path(dataset.root), tmp_path / "store"
    expected, digest = listed(dataset), resolve(dataset).digest
    shutil.move(root / "train/a", store)  # a class
    (root / "train/a").symlink_to(store)
    shutil.move(root / "train/a-b/2.tiff", tmp_path / "blob")  # an image
    (root / "train/a-b/2.tiff").symlink_to(tmp_path / "blob")
    shutil.move(root / "val", tmp_path / "other")  # a split
    (root / "val").symlink_to(tmp_path / "other")
    assert listed(dataset) == expected and resolve(dataset).digest == digest


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_counts_once_in_its_class(link, dataset, caplog):
    expected = listed(dataset)
    link(Path(dataset.root, "train/a/0.jpg"), Path(dataset.root, "train/a/z.jpg"))
    assert listed(dataset) == expected
    resolve(dataset)
    assert caplog.messages == [f"{dataset.root}: left out links to images that are counted already: 1"]


def test_a_linked_folder_counts_once_in_its_class(dataset):
    expected = {Path(path).name for path, _ in listed(dataset)}
    Path(dataset.root, "train/a/link").symlink_to("b-c")
    found = [Path(path).name for path, _ in listed(dataset)]
    assert set(found) == expected and len(found) == len(expected)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("other", ["train/B/z.jpg", "val/a/z.jpg"])
def test_a_file_in_two_classes_or_splits_is_refused(link, other, dataset):
    path, other = Path(dataset.root, "train/a/0.jpg"), Path(dataset.root, other)
    link(path, other)
    message = refused(dataset)
    assert str(path) in message and str(other) in message and "each file in one class of one split" in message


@pytest.mark.parametrize(("name", "target"), [("train/a/link", "../B"), ("train/B", "a"), ("val", "train")])
def test_a_linked_folder_in_two_classes_or_splits_is_refused(name, target, dataset):
    path = Path(dataset.root, name)
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(target)
    assert "is the same file as" in refused(dataset)


@pytest.mark.parametrize("name", ["train/a/9.jpg", "train/a/more", "train/C", "val"])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_link_that_leads_nowhere_is_named(name, target, dataset):
    path = Path(dataset.root, name)
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(path.name if target == "itself" else target)
    assert refused(dataset).startswith(f"{path} ")


def test_a_pipe_is_refused(dataset):
    os.mkfifo(Path(dataset.root, "train/a/9.jpg"))
    assert "a/9.jpg has an image's suffix but is not a regular file" in refused(dataset)


def test_a_folder_that_cannot_be_read_is_named(dataset, monkeypatch):
    scandir = os.scandir

    def forbidden(folder):  # root may read everything
        if str(folder).endswith("a/b"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert "train/a/b cannot be read: Permission denied" in refused(dataset)


def test_a_root_that_no_disk_takes(make_dataset):
    assert "cannot be read: File name too long" in refused(make_dataset("imagefolder", root="/" + "x" * 300))


def test_classes_that_are_files_or_differ_in_case_are_refused(dataset):
    val = Path(dataset.root, "val")
    (val / "B").rename(val / "b")
    assert "val/ lacks 'B'" in refused(dataset)
    shutil.rmtree(val / "b")
    (val / "B").write_text("a file")
    assert "val/ lacks 'B'" in refused(dataset)


def test_empty_images_are_refused_where_sizes_are_looked_up(make_dataset, write_folder, tmp_path):
    dataset = make_dataset("imagefolder", root=str(write_folder(tmp_path, ["train", "test"])))
    for name in ("000", "001", "002"):
        (tmp_path / f"train/class1/{name}.jpg").write_bytes(b"")
    assert refused(dataset).startswith(f"{tmp_path}/train/class1/000.jpg is empty (0 bytes), the first of 3 such")


def test_names_that_are_not_utf8(dataset, tmp_path):
    before = resolve(dataset).digest
    for name in (b"train/a/\xff.jpg", b"train/a/two\nlines.jpg", b"train/B/\xe9/0.jpg"):
        path = os.path.join(os.fsencode(dataset.root), name)  # noqa: PTH118 - of bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        Path(os.fsdecode(path)).write_bytes(name)
    planned = resolve(dataset)
    assert planned == resolve(dataset) and (planned.digest is None or planned.digest != before)
    copy = stage(planned, str(tmp_path / "disk"))
    assert (copy / os.fsdecode(b"train/a/\xff.jpg")).read_bytes() == b"train/a/\xff.jpg"
    os.link(os.path.join(copy, os.fsdecode(b"train/a/\xff.jpg")), copy / "train/B/0.jpg")  # noqa: PTH118
    dataset.root = str(copy)
    assert r"train/a/\xff.jpg" in refused(dataset)


@pytest.mark.parametrize("stage_in", [None, "disk"])
def test_digest_splits_and_copy_have_one_list(stage_in, dataset, tmp_path):
    """Of a tree with links, hidden and stray files and folders in folders."""
    root = Path(dataset.root)
    shutil.copytree(root / "train/a", root / "train/.hidden")
    (root / "train/a/.1.jpg").write_bytes(b"hidden")
    (root / "train/stray.jpg").write_bytes(b"in no class")
    (root / "train/a/twice.jpg").symlink_to("0.jpg")
    shutil.copytree(root / "train/B", tmp_path / "store")
    (root / "train/B/more").symlink_to(tmp_path / "store")
    planned = resolve(dataset)
    planned.validation = 0.0
    names = sorted(image_sizes(planned, planned_tree(planned)))
    where = stage_in and str(tmp_path / stage_in)
    splits = open_splits(planned, 0, LoaderConfig(0, 0.0, where), WHOLE)
    (below,) = (tmp_path / "disk").glob("*/") if stage_in else (root,)
    paths = [Path(path) for split in (splits.train, splits.test) for path in split.paths]
    assert sorted(str(path.relative_to(below)) for path in paths) == names
    assert len(names) == 2 * len(NAMES) + 1  # and that of the store
    if stage_in:
        assert sorted(str(path.relative_to(below)) for path in below.rglob("*.*")) == names


def test_a_run_does_not_train_on_other_images_than_planned(dataset):
    planned = resolve(dataset)
    folder = Path(dataset.root, "train", "C") if planned.digest is None else Path(dataset.root, "train", "a")
    for split in ("train", "val"):
        added = Path(dataset.root, split, folder.name)
        added.mkdir(exist_ok=True)
        (added / "new.jpg").write_bytes(split.encode())
    with pytest.raises(DataError, match="has changed since the run was planned"):
        open_splits(planned, 0, LoaderConfig(0, 0.0, None), WHOLE)


def test_images_that_were_copied_to_another_split_are_counted(make_dataset, write_folder, tmp_path, caplog):
    root = write_folder(tmp_path / "set", ["train", "val"])
    dataset = make_dataset("imagefolder", root=str(root), num_classes=None)
    before = resolve(dataset)
    assert not caplog.messages
    shutil.copy(root / "train/class1/000.jpg", root / "val/class1/000.jpg")
    (root / "val/class0/001.jpg").write_bytes(b"x" * (root / "train/class0/001.jpg").stat().st_size)
    assert resolve(dataset).num_classes == before.num_classes
    shutil.copy(root / "train/class2/003.jpg", root / "val/class2/003.jpg")
    resolve(dataset)
    first, second = caplog.messages
    assert first.startswith(f"{root}: 1 image in two splits, e.g. train/class1/000.jpg and val/class1/000.jpg")
    assert second.startswith(f"{root}: 2 images in two splits, e.g. train/class1/000.jpg and val/class1/000.jpg")

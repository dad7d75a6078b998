"""The images of a tree of class folders: one list for the plan, the digest, the splits and staging.

Links are followed, because data sets are often links into a store; a file that is reached twice counts once. Nothing
here imports torch, torchvision or numpy.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple

from headsweep.errors import DataError
from headsweep.text import plural

# The endings that torchvision's ImageFolder loads.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_HIDDEN_FOLDERS, _HIDDEN_IMAGES = "hidden folders", "hidden images"
_OUTSIDE, _REPEATED = "images outside of the class folders", "links to images that are counted already"


class ImageFile(NamedTuple):
    """One image of a split."""

    path: str  # a string: a million Paths are slow
    label: int
    inode: int


class Tree(NamedTuple):
    """The images of a data set."""

    classes: list[str]  # sorted, which is the order of the labels
    splits: dict[str, list[ImageFile]]  # in the order of torchvision's ImageFolder
    skipped: Counter[str]  # kind of file or folder -> number left out


def read_tree(folders: Mapping[str, Path]) -> Tree:
    """List the images of the split folders, of which one is called "train".

    Hidden files and folders (.ipynb_checkpoints, ._x.jpg), files that are no images, images outside of the class
    folders and repeated links to an image of the same class are left out and counted.

    Raises:
        DataError: the splits do not have the same two or more classes, a class is empty, a link leads nowhere or to a
            folder that holds it, or a file is in two classes or splits.
        OSError: a folder cannot be read.
    """
    skipped: Counter[str] = Counter()
    classes = {use: _class_folders(folder, skipped) for use, folder in folders.items()}
    names = list(classes["train"])
    if len(names) < 2:
        raise DataError(f"{folders['train']} has {plural(len(names), 'class folder')}; expected at least 2")
    for use, folder in folders.items():
        _same_classes(names, list(classes[use]), folder, folders["train"])
    splits = {
        use: [image for label, folder in enumerate(of_split.values()) for image in _of_class(folder, label, skipped)]
        for use, of_split in classes.items()
    }
    return Tree(names, _once(splits, skipped), skipped)


class _Folder(NamedTuple):
    """A folder, and the real paths of it and of the folders that lead to it."""

    path: str
    real: tuple[str, ...]

    def enter(self, entry: os.DirEntry[str]) -> _Folder:
        """Return a subfolder. Raises DataError for a link back to a parent."""
        real = os.path.realpath(entry.path) if entry.is_symlink() else f"{self.real[-1]}/{entry.name}"
        if any(f"{holder}/".startswith(f"{real.rstrip('/')}/") for holder in self.real):
            raise DataError(f"{entry.path} is a link to {real}, a folder that contains the link; remove the link")
        return _Folder(entry.path, (*self.real, real))


def _class_folders(folder: Path, skipped: Counter[str]) -> dict[str, _Folder]:
    split = _Folder(str(folder), (os.path.realpath(folder),))
    folders, images = _look(split.path, skipped)
    skipped[_OUTSIDE] += len(images)
    return {entry.name: split.enter(entry) for entry in folders}


def _same_classes(names: list[str], found: list[str], folder: Path, train: Path) -> None:
    if differing := sorted(set(names) ^ set(found)):
        side = "lacks" if differing[0] in names else "alone has"
        raise DataError(
            f"{folder} has {plural(len(found), 'class folder')}, {train} has {len(names)}; {folder.name}/ {side} "
            f"{differing[0]!r}; expected the same classes in both"
        )


def _of_class(folder: _Folder, label: int, skipped: Counter[str]) -> list[ImageFile]:
    listed = sorted(_walk(folder, skipped), key=itemgetter(0))
    images = [ImageFile(entry.path, label, _inode(entry)) for _, entries in listed for entry in entries]
    if not images:
        raise DataError(f"{folder.path} has no image (known suffixes: {' '.join(IMAGE_SUFFIXES)})")
    return images


def _walk(folder: _Folder, skipped: Counter[str]) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield each folder below `folder`, itself included, and its images."""
    folders, images = _look(folder.path, skipped)
    yield folder.path, images
    for entry in folders:
        yield from _walk(folder.enter(entry), skipped)


def _look(folder: str, skipped: Counter[str]) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """List the folders and the images directly in `folder`, each sorted by name."""
    folders: list[os.DirEntry[str]] = []
    images: list[os.DirEntry[str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_image = entry.name.lower().endswith(IMAGE_SUFFIXES)
            if entry.name.startswith("."):
                is_folder = entry.is_dir(follow_symlinks=False)
                skipped[_HIDDEN_FOLDERS] += is_folder
                skipped[_HIDDEN_IMAGES] += is_image and not is_folder
            elif _is_folder(entry):
                folders.append(entry)
            elif is_image:
                images.append(_regular(entry))
            else:
                skipped[f"*{os.path.splitext(entry.name)[1]}"] += 1  # noqa: PTH122 - a Path for each file is slow
    return sorted(folders, key=attrgetter("name")), sorted(images, key=attrgetter("name"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        try:
            entry.stat()
        except OSError as error:
            found = f"{entry.path} is a link to {os.readlink(entry.path)}: {error.strerror}"  # noqa: PTH115 - as above
            raise DataError(f"{found}; repair or remove the link") from error
    return entry.is_dir()


def _regular(entry: os.DirEntry[str]) -> os.DirEntry[str]:
    if not entry.is_file():  # reading a pipe may never end
        raise DataError(f"{entry.path} has an image's suffix but is not a regular file; remove it")
    return entry


def _inode(entry: os.DirEntry[str]) -> int:
    """Return the inode of the file; only links need a stat call."""
    return entry.stat().st_ino if entry.is_symlink() else entry.inode()


def _once(splits: dict[str, list[ImageFile]], skipped: Counter[str]) -> dict[str, list[ImageFile]]:
    """Keep the first path to each file. Raises DataError if its paths are in different classes or splits."""
    inodes = Counter(image.inode for images in splits.values() for image in images)
    if len(inodes) == sum(map(len, splits.values())):
        return splits
    known: dict[tuple[int, ...], tuple[str, ImageFile]] = {}
    return {
        use: [image for image in images if inodes[image.inode] == 1 or _is_new(use, image, known, skipped)]
        for use, images in splits.items()
    }


def _is_new(
    use: str, image: ImageFile, known: dict[tuple[int, ...], tuple[str, ImageFile]], skipped: Counter[str]
) -> bool:
    state = os.stat(image.path)  # noqa: PTH116 - as above
    # An inode is unique only on one disk, and on some network disks not even there.
    real = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    first_use, first = known.setdefault(real, (use, image))
    if first is image:
        return True
    if (first_use, first.label) != (use, image.label):
        raise DataError(
            f"{image.path} is the same file as {first.path}: expected each file in one class of one split; "
            "remove one of the two, or the link that leads there"
        )
    skipped[_REPEATED] += 1
    return False

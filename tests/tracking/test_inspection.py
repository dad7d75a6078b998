"""An inspection is written whole or not at all, is outdated by another checkpoint, and reported when damaged."""

from __future__ import annotations

import pytest

from headsweep.errors import UserError
from headsweep.tracking.inspection import (
    Inspection,
    Question,
    checkpoint_digest,
    last_inspection,
    read_inspection,
    write_inspection,
)


@pytest.fixture
def folder(make_run):
    """A run with a checkpoint."""
    run = make_run("a", epochs=1)
    run.checkpoint.write_bytes(b"weights")
    return run


@pytest.fixture
def found(folder):
    """What an inspection of it may have found."""
    return Inspection(
        checkpoint=checkpoint_digest(folder),
        question=Question("test", None, 8),
        images=100,
        heads=[0.5, 0.6],
        metrics={"top1": 0.7, "kl": 0.1},
        matrices={"cka": [[1.0, None], [None, 1.0]]},
        meaning={"kl": "mean KL"},
        earlier=[{"top1": 0.6, "kl": 0.2}],
    )


def picture(file):
    file.write(b"png")


def test_what_is_read_is_what_was_written(folder, found):
    written = write_inspection(folder.path, found, {"attention.png": picture})
    read = read_inspection(folder.path)
    assert read == written == found
    assert read.attention == folder.path / "inspection" / "attention.png" and read.attention.read_bytes() == b"png"
    assert read.diversity is None
    assert [path.name for path in read.files] == ["inspection.json", "attention.png"]


def test_a_run_without_an_inspection_has_none(folder):
    assert read_inspection(folder.path) is None


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"trained on"), lambda path: path.unlink()])
def test_another_checkpoint_makes_it_outdated(folder, found, change):
    write_inspection(folder.path, found, {})
    change(folder.checkpoint)
    assert read_inspection(folder.path) is None
    assert last_inspection(folder.path) == found


def test_a_new_one_replaces_all_files_of_the_old(folder, found):
    write_inspection(folder.path, found, {"attention.png": picture, "diversity.png": picture})
    write_inspection(folder.path, found, {})
    assert [path.name for path in (folder.path / "inspection").iterdir()] == ["inspection.json"]
    assert not list(folder.path.glob("*.part"))


def test_one_that_cannot_be_written_leaves_the_old(folder, found):
    def full_disk(file):
        raise OSError(28, "No space left on device")

    write_inspection(folder.path, found, {"attention.png": picture})
    with pytest.raises(OSError, match="No space left"):
        write_inspection(folder.path, Inspection(**vars(found) | {"images": 7}), {"attention.png": full_disk})
    assert read_inspection(folder.path) == found
    assert not list(folder.path.glob("*.part"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": 3}', '{"folder": "x"}'])
def test_a_damaged_one_is_a_line_that_names_the_fix(folder, found, content):
    write_inspection(folder.path, found, {})
    (folder.path / "inspection" / "inspection.json").write_text(content)
    with pytest.raises(
        UserError, match=r"damaged: .*inspection.json, .*; `headsweep inspect .* --again` writes it again"
    ):
        read_inspection(folder.path)

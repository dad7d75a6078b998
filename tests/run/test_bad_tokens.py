"""What may go wrong with stored tokens: each is one line, and nothing that is stored already is lost."""

import errno
import logging
import os

import pytest
from PIL import Image

import factories
from commands import TINY_RUN, give
from composing import compose_run
from headsweep.data import token_cache
from headsweep.data.token_folder import Speed, TokenFolder, folders_in
from headsweep.errors import UserError
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.lookup import Lookup
from headsweep.plan.stored_tokens import token_folders
from headsweep.run.train_run import train_folder
from headsweep.text import size_of

KEYS = ["backbone=random", "augmentation=none", "duration='1 epoch'", "schedule.warmup='0 epochs'", "head=gap"]
KEYS += ["dataset.validation=0"]


def train(tmp_path, *overrides: str) -> None:
    train_folder(factories.planned(tmp_path, *KEYS, *overrides), lambda progress: None)


def tokens_in(tmp_path) -> TokenFolder:
    (folder,) = folders_in(tmp_path / "cache")
    return folder


@pytest.mark.slow
def test_a_disk_that_is_full_keeps_whole_files_and_the_same_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD_BYTES", 100 * 16 * 32 * 2)  # 100 images
    write, written = token_cache.atomic_files.write_with, []

    def bounded(path, fill):
        written.extend([path] * (path.suffix == ".bin"))
        write(path, fill if len(written) < 3 or path.suffix != ".bin" else fill_up)

    def fill_up(file):
        file.write(b"part of a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    with monkeypatch.context() as patch:
        patch.setattr(token_cache.atomic_files, "write_with", bounded)
        with pytest.raises(UserError, match=r"\.part: No space left on device; fix this and give the command again"):
            train(tmp_path)
    tokens = tokens_in(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tokens.path.glob("*.bin")}
    assert len(kept) == 2 and list(tokens.path.glob("*.part")) == []
    train(tmp_path)
    assert len(list(tokens.path.glob("*.bin"))) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokens.json", "labels.npz"])
def test_a_damaged_description_is_named_and_written_again(tmp_path, caplog, name):
    train(tmp_path)
    path = tokens_in(tmp_path).path / name
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with caplog.at_level(logging.WARNING):
        train(tmp_path, "optimizer.lr=0.01")
    assert f"damaged: {path}, " in caplog.text and "it is written again" in caplog.text
    assert len(path.read_bytes()) == len(before)


def test_the_time_for_a_few_tokens_replaces_no_better_estimate(tmp_path):
    folder = TokenFolder(tmp_path)
    for images, seconds in ((300, 30.0), (1, 9.0)):
        folder.record_speed(Speed(images, seconds))
    assert folder.speed() == Speed(300, 30.0)
    (tmp_path / "speed.json").write_text("no JSON")
    assert folder.speed() is None, "estimates alone need it: no run fails"
    folder.record_speed(Speed(1, 9.0))
    assert folder.speed() == Speed(1, 9.0)


@pytest.mark.slow
def test_images_that_changed_have_new_tokens_and_it_is_written_that_they_have(tmp_path, caplog):
    for number in range(8):
        for split in ("train", "test"):
            path = tmp_path / "images" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 30, 0, 0)).save(path)
    keys = ["dataset=imagefolder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=16", "batch_size=4"]
    train(tmp_path, *keys)
    before = tokens_in(tmp_path)
    assert "have changed" not in caplog.text
    Image.new("RGB", (16, 16), (0, 9, 0)).save(tmp_path / "images" / "train" / "a" / "new.png")
    run = Lookup().resolved([compose_run(*TINY_RUN, *KEYS, *keys, f"paths.output={tmp_path}")])[0]
    (line,) = [it.line for it in token_folders([run], {fingerprint(run): {"token_bytes": 1024}})]
    assert line.endswith(f"; the images have changed since {before.path.name}")
    train(tmp_path, *keys)
    assert f"the images of imagefolder have changed since {before.path.name}: their tokens are computed" in caplog.text
    assert len(list(folders_in(tmp_path / "cache"))) == 2


def test_folders_without_a_whole_record_are_listed_as_incomplete_and_removed(tmp_path, capsys):
    cache = tmp_path / "cache"
    absent, damaged = (cache / f"vit-digits-{digit * 12}" for digit in "ab")
    others = [cache / "mine", cache / "holds-other-files-cccccccccccc"]
    for folder in (absent, damaged, *others):
        folder.mkdir(parents=True)
        (folder / "train-00000.bin").write_bytes(bytes(1000))
    (absent / "train-00001.bin.host-1.part").write_bytes(bytes(500))
    (damaged / "tokens.json").write_text("{")
    (others[1] / "notes.txt").touch()
    assert give("cache", "list", "--output", tmp_path) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == [absent.name, *size_of(1500).split(), "incomplete:", "tokens.json", "is", "absent"]
    assert second.split() == [damaged.name, *size_of(1000).split(), "incomplete:", "tokens.json", "is", "damaged"]
    assert give("cache", "remove", absent.name, "--output", tmp_path) == 0
    assert capsys.readouterr().out == f"removed {absent.name} ({size_of(1500)})\n"
    assert give("cache", "remove", "--all", "--output", tmp_path) == 0
    assert sorted(cache.iterdir()) == sorted(others)

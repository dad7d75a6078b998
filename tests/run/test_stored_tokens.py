"""Runs on stored tokens of a frozen backbone: as with a live one, computed once, whatever happens meanwhile."""

import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import factories
from commands import TINY_RUN, give
from comparing import differences
from composing import compose_run
from factories import weights
from headsweep.config import ModelConfig
from headsweep.data import token_cache, token_folder, token_staging
from headsweep.data.token_folder import Speed, TokenFolder, TokenRecord, folders_in, source_of
from headsweep.errors import ConfigError, DataError
from headsweep.models import model_of
from headsweep.models.frozen import FrozenBackbone
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.stored_tokens import token_folders
from headsweep.run.train_run import train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Stopped

pytestmark = pytest.mark.slow

TINY_MODEL = ["model.width=32", "model.depth=1", "model.attention_heads=1"]
KEYS = ["backbone=frozen", "augmentation=none", "duration='2 epochs'", "schedule.warmup='0 epochs'"]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Weights of a backbone."""
    path = tmp_path_factory.mktemp("weights") / "pretrained.pt"
    torch.save({"model": model_of(compose_run(*TINY_MODEL, "seed=7")).state_dict()}, path)
    return path


FEW = ["head=gap", "dataset.validation=0"]  # the first 128 images for training, and 128 for the test


@pytest.fixture
def small_shards(monkeypatch):
    """Files of 100 images."""
    monkeypatch.setattr(token_cache, "SHARD_BYTES", 100 * 16 * 32 * 2)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The number of images in each call of a backbone."""
    calls, call = [], FrozenBackbone.__call__

    def counted(self, images):
        calls.append(len(images))
        return call(self, images)

    monkeypatch.setattr(FrozenBackbone, "__call__", counted)
    return calls


def planned(tmp_path, file: Path, *overrides: str) -> RunFolder:
    return factories.planned(tmp_path, *KEYS, f"model.checkpoint={file}", *overrides)


def trained(tmp_path, file: Path, *overrides: str) -> RunFolder:
    folder = planned(tmp_path, file, *overrides)
    train_folder(folder, lambda progress: None)
    return folder


def tokens_of(output: Path) -> TokenFolder:
    (folder,) = folders_in(output / "cache")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("head", "are_large"), [("seqpool", True), ("ga", False)])
def test_stored_and_live_tokens_train_the_same_bits_in_float32(tmp_path, file, head, are_large, monkeypatch):
    """Whether images are read one by one or together, and batches ahead or when they are asked for."""
    if are_large:
        monkeypatch.setattr(token_cache, "_LARGE_ROW", 0)
        monkeypatch.setattr(token_cache, "_LARGE_BATCH", 0)
    overrides = [f"head={head}", "heads=2", "seed=3", "augmentation.label_smoothing=0.1"]
    stored = trained(tmp_path / "stored", file, *overrides, "tokens.cache=float32")
    live = trained(tmp_path / "live", file, *overrides, "tokens.cache=off")
    assert differences(stored, live) == []


@pytest.mark.slow
def test_stored_and_live_tokens_of_other_blocks_train_the_same_bits_in_float32(tmp_path):
    keys = ["backbone=random", "model.depth=2", "tokens.layer=-1", "tokens.last=2", "tokens.norm=false"]
    keys += ["tokens.class_token=true", "classifier_norm=true", "duration='1 epoch'", "head=seqattn"]
    stored = factories.planned(tmp_path / "stored", *KEYS, *keys, "tokens.cache=float32")
    live = factories.planned(tmp_path / "live", *KEYS, *keys, "tokens.cache=off")
    for folder in (stored, live):
        train_folder(folder, lambda progress: None)
    assert differences(stored, live) == []
    record = tokens_of(tmp_path / "stored").record()
    assert (record.tokens, record.width) == (17, 64)
    assert record.source["tokens.last"] == 2 and "tokens.layer" not in record.source


@pytest.mark.slow
def test_a_second_head_and_a_second_seed_compute_nothing(tmp_path, file, computed):
    first = trained(tmp_path, file, "debug.train_images=null", "debug.eval_images=null", "batch_size=512")
    assert sum(computed) == 1797
    trained(tmp_path, file, "head=gap", "seed=1")
    assert sum(computed) == 1797
    record = tokens_of(tmp_path).record()
    assert record.splits == {"train": 1438, "test": 359} and record.bytes == 1797 * 16 * 32 * 2
    assert tokens_of(tmp_path).held() == record.bytes + 2 * 4
    assert weights(first).keys() == {name for name in weights(first) if name.startswith("head.")}


@pytest.mark.slow
def test_few_images_need_few_tokens_and_a_damaged_file_is_computed_again(
    tmp_path, file, small_shards, computed, caplog
):
    first = trained(tmp_path / "one", file, *FEW)
    assert sum(computed) == 4 * 100, "two files of the training images, two of the test images"
    shard = tokens_of(tmp_path / "one").shard("train", 1)
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shutil.copytree(tmp_path / "one" / "cache", tmp_path / "two" / "cache")
    damaged = tokens_of(tmp_path / "two").shard("train", 1)
    damaged.write_bytes(content)
    second = trained(tmp_path / "two", file, *FEW)
    assert sum(computed) == 5 * 100
    assert f"{damaged} is damaged: its tokens are computed again" in caplog.text
    assert damaged.read_bytes() == shard.read_bytes()
    assert differences(first, second) == []


@pytest.mark.slow
def test_stopped_while_tokens_are_computed_it_goes_on_where_it_was(tmp_path, file, small_shards, computed):
    folder, asked = planned(tmp_path, file, *FEW), iter([False] * 2)
    with pytest.raises(Stopped):
        train_folder(folder, lambda progress: None, lambda: next(asked, True))
    assert sorted(path.suffix for path in tokens_of(tmp_path).path.iterdir()).count(".part") == 0
    done = sum(computed)
    assert 0 < done < 400
    train_folder(folder, lambda progress: None)
    assert sum(computed) <= 400 + 100, "no more than one file is computed twice"


@pytest.mark.slow
def test_two_processes_compute_each_file_once(tmp_path, file, small_shards):
    folders = [planned(tmp_path, file, *FEW, f"head={head}") for head in ("gap", "seqpool")]
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        written = manager.list()
        processes = [context.Process(target=_train_and_count, args=(folder, written)) for folder in folders]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        assert len(written) == len(set(written)) == 4


def _train_and_count(folder: RunFolder, written) -> None:
    write = token_cache.atomic_files.write_with

    def counted(path, fill):
        if path.suffix == ".bin":
            written.append(path.name)
        write(path, fill)

    token_cache.atomic_files.write_with = counted
    train_folder(folder, lambda progress: None)
    os._exit(0)


@pytest.mark.slow
def test_tokens_of_other_weights_pixels_or_types_are_in_other_folders(file, tmp_path):
    given = [*TINY_MODEL, *KEYS, f"model.checkpoint={file}", f"paths.output={tmp_path}"]
    same = [[], ["head=ga"], ["seed=1"], ["optimizer.lr=0.1"], ["debug=quick"], ["dataset.validation=0.5"]]
    same += [["classifier_norm=true"], ["tokens.layer=-1"]]
    other = [["head=cls"], ["tokens.cache=float32"], ["dataset.image_size=32"], ["dataset.mean=[0.4]"]]
    other += [["model.depth=2"], ["precision=bfloat16"], ["tokens.norm=false"]]
    assert len({TokenFolder.of(compose_run(*given, *overrides)).path for overrides in same}) == 1
    assert len({TokenFolder.of(compose_run(*given, *overrides)).path for overrides in (*other, [])}) == len(other) + 1


@dataclass
class OwnConfig(ModelConfig):
    """The options of a package's backbone."""


def test_backbones_of_timm_alone_have_the_same_tokens_for_heads_that_read_the_class_token():
    own = OwnConfig(family="own", name="own", checkpoint=None, checkpoint_digest=None)
    given = ["backbone=random", "augmentation=none"]
    timm = ["model=timm", "model.name=vit_tiny_patch16_224", "dataset.image_size=224"]
    for keys, model, count in ([], None, 2), ([], own, 2), (timm, None, 1):
        runs = [compose_run(*given, *keys, f"head={head}") for head in ("gap", "cls")]
        folders = {TokenFolder.of(replace(run, model=model or run.model)).path for run in runs}
        assert len(folders) == count


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augmentation=light"], r"augmentation.crop_scale=\[0.8, 1.0\]: expected no augmentation"),
        (["augmentation.flip=0.5"], "augmentation.flip=0.5: expected no augmentation: .* or tokens.cache=off"),
        (
            ["augmentation.mixup=1", "augmentation.mix_probability=1"],
            "augmentation.mixup=1.0: expected no",
        ),
        (
            ["tokens.cache=float32", "backbone=train"],
            "tokens.cache=float32: expected bfloat16, the default",
        ),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run("backbone=random", "augmentation=none", *overrides)


def test_a_disk_that_is_too_small_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(token_folder.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**8))
    with pytest.raises(ConfigError, match=r"paths.cache=.*: expected 18.2 GB free for tokens, found 100.0 MB; give a"):
        token_folder.check_room(tmp_path / "cache" / "vit", 60_000 * 197 * 768 * 2)


def test_a_plan_states_the_size_of_its_tokens_and_cache_lists_and_removes_them(tmp_path, file, capsys):
    def token_lines(runs, costs):
        return [it.line for it in token_folders(runs, costs)]

    run = compose_run(*TINY_RUN, *KEYS, f"model.checkpoint={file}", f"paths.output={tmp_path}")
    folder, costs = TokenFolder.of(run), {fingerprint(run): {"token_bytes": 1024}}
    start = f"tokens in {folder.path}: 1.8 MB"
    assert token_lines([run, run], {}) == [f"tokens in {folder.path}: size unknown"]
    unknown = "time unknown: none of this backbone were computed yet"
    assert token_lines([run], costs) == [f"{start}, of which 1.8 MB to compute once, {unknown}"]
    folder.write_record(TokenRecord(dict(source_of(run)), {"train": 1438, "test": 359}, 16, 32, "bfloat16"))
    folder.record_speed(Speed(100, 10.0))
    folder.shard("train", 0).write_bytes(bytes(1024 * 797 + 4))
    assert token_lines([run], costs) == [f"{start}, of which 1.0 MB to compute once, about 100 s"]
    folder.shard("test", 0).write_bytes(bytes(1024 * 1000 + 4))
    assert token_lines([run], costs) == [f"{start}, stored already"]
    assert give("cache", "list", "--output", tmp_path) == 0
    name = folder.path.name
    assert capsys.readouterr().out.splitlines()[1].split() == [name, *("1.8", "MB") * 2]
    assert give("cache", "remove", "nothing", "--output", tmp_path) == 2
    assert give("cache", "remove", name, "--output", tmp_path) == 0
    assert capsys.readouterr().out == f"removed {name} (1.8 MB)\n"
    assert give("cache", "list", "--cache", tmp_path / "cache") == 0
    assert capsys.readouterr().out == f"no tokens in {tmp_path / 'cache'}\n"


def test_the_json_of_a_plan_has_the_tokens(tmp_path, file, capsys):
    words = [*TINY_RUN, *KEYS, f"model.checkpoint={file}", f"paths.output={tmp_path}"]
    run = compose_run(*words)
    for known in ({"bytes": None, "missing_bytes": None}, {"bytes": 1797 * 1024, "missing_bytes": 1797 * 1024}):
        assert give("plan", "--list", "--json", *words) == 0
        (tokens,) = json.loads(capsys.readouterr().out)["tokens"]
        folder = TokenFolder(Path(tokens.pop("folder")))
        assert folder.path.parent == tmp_path / "cache" and tokens == {"seconds": None, "changed_since": None, **known}
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_record(TokenRecord(dict(source_of(run)), {"train": 1438, "test": 359}, 16, 32, "bfloat16"))


def test_a_plan_names_no_tokens_of_cells_that_it_refuses(tmp_path, file, capsys):
    words = ["--list", "--json", *TINY_RUN, *KEYS, f"model.checkpoint={file}", f"paths.output={tmp_path}"]
    assert give("plan", *words) == 0
    good = json.loads(capsys.readouterr().out)
    run = tmp_path / "runs" / good["rows"][0]["fingerprint"]
    run.mkdir(parents=True)
    (run / "run.json").write_text("[")
    assert give("plan", *words) == 2
    refused = json.loads(capsys.readouterr().out)
    assert [(len(it["bad"]), len(it["tokens"])) for it in (good, refused)] == [(0, 1), (1, 0)]


def copy_of(disk: Path) -> TokenFolder:
    (path,) = disk.glob("tokens-*/")
    return TokenFolder(path)


def staged(tmp_path: Path, file: Path, *overrides: str) -> RunFolder:
    """A run on a copy of the tokens in `tmp_path`/disk."""
    return trained(tmp_path, file, *FEW, *overrides, f"loader.stage={tmp_path / 'disk'}")


@pytest.mark.slow
def test_runs_read_a_local_copy_of_their_tokens_that_is_made_once(tmp_path, file, small_shards, computed, monkeypatch):
    direct = trained(tmp_path / "direct", file, *FEW)
    first = staged(tmp_path, file)
    assert differences(direct, first) == []
    copy, stored = copy_of(tmp_path / "disk"), tokens_of(tmp_path)
    names = sorted(path.name for path in stored.path.glob("*.bin"))
    assert names and names == sorted(path.name for path in copy.path.glob("*.bin"))
    count = len(computed)
    monkeypatch.setattr(token_staging, "_copy", None)  # neither computed nor copied again
    for path in stored.path.glob("*.bin"):
        path.unlink()
    staged(tmp_path, file, "seed=1")
    assert len(computed) == count


@pytest.mark.slow
def test_a_copy_that_is_cut_off_or_damaged_is_copied_again(tmp_path, file, small_shards, computed, caplog):
    staged(tmp_path, file)
    copy, count = copy_of(tmp_path / "disk"), len(computed)
    contents = {path: path.read_bytes() for path in sorted(copy.path.glob("*.bin"))}
    damaged, cut, absent, *_ = contents
    damaged.write_bytes(b"\1" + contents[damaged][1:])
    cut.write_bytes(contents[cut][:-10])
    absent.unlink()
    again = staged(tmp_path, file, "seed=5")
    assert {path: path.read_bytes() for path in contents} == contents and len(computed) == count
    assert f"{damaged} is damaged: it is copied again" in caplog.text and "computed again" not in caplog.text
    assert again.result() is not None


@pytest.mark.slow
def test_a_run_waits_while_another_copies_its_tokens(tmp_path, file):
    folder = planned(tmp_path, file, *FEW, f"loader.stage={tmp_path / 'disk'}")
    run = compose_run(*TINY_RUN, *KEYS, *FEW, f"model.checkpoint={file}", f"paths.output={tmp_path}")
    copy = token_staging.place_of_copy(TokenFolder.of(run), str(tmp_path / "disk"))
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 1

    with copy.lock(), pytest.raises(Stopped):
        train_folder(folder, lambda progress: None, stop)
    assert not list(copy.path.glob("*.bin"))


@pytest.mark.slow
def test_copies_that_are_damaged_again_and_again_are_one_line(tmp_path, file, monkeypatch):
    monkeypatch.setattr(token_staging, "_copy", lambda source, target: target.write_bytes(b"x"))
    with pytest.raises(DataError, match=r"disk/tokens-.*\.bin is damaged in each copy; check the disk"):
        staged(tmp_path, file)


@pytest.mark.slow
def test_a_local_disk_that_is_too_small_is_one_line(tmp_path, file, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    free = {"disk": 1000}

    def disk_usage(path):
        return usage._replace(free=free["disk"]) if "disk" in Path(path).parts else usage

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(ConfigError, match=r"loader.stage=.*disk: expected [\d,]+ free bytes, found 1,000") as caught:
        staged(tmp_path, file)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_result_has_the_cost_of_its_tokens_and_of_a_live_backbone(tmp_path, file):
    folder = trained(tmp_path, file, *FEW)
    result, stored = folder.result(), tokens_of(tmp_path)
    record, speed = stored.record(), stored.speed()
    by_image = speed.seconds / speed.images
    assert result.clock["token_bytes"] == stored.held() and result.environment["tokens"] == stored.path.name
    assert result.clock["token_seconds"] == pytest.approx(by_image * (stored.held() // record.row_bytes))
    run = compose_run(*TINY_RUN, *KEYS, *FEW, f"model.checkpoint={file}")
    assert result.clock["live_seconds"] == pytest.approx(result.steps * run.batch_size * by_image)
    live = trained(tmp_path / "live", file, *FEW, "tokens.cache=off").result()
    assert "live_seconds" not in live.clock

"""Stored augmented views: those that live augmentation would make, one after the other, shared by all seeds."""

import itertools
from contextlib import nullcontext
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from PIL import Image

import factories
from comparing import differences
from composing import compose_run
from headsweep import rng
from headsweep.config import Precision
from headsweep.data.datasets import open_splits, open_views
from headsweep.data.loader import TrainLoader
from headsweep.data.mixing import Mixer
from headsweep.data.token_folder import TokenFolder, folders_in
from headsweep.errors import ConfigError
from headsweep.models import model_of
from headsweep.models.frozen import FrozenBackbone
from headsweep.plan.fingerprint import fingerprint
from headsweep.plan.frozen import frozen
from headsweep.plan.stored_tokens import token_folders
from headsweep.run.stored_tokens import stored_tokens
from headsweep.run.train_run import train_folder

CPU = torch.device("cpu")
KEYS = ["tokens.views=2", "tokens.cache=float32", "augmentation=light", "augmentation.erasing=0.5", "head=gap"]
KEYS += ["dataset.validation=0"]


@pytest.mark.slow
def test_each_epoch_has_the_tokens_of_the_view_that_is_its_turn(tmp_path):
    run = frozen(factories.planned(tmp_path, "backbone=random", *KEYS))
    sizes = (run.augmentation, run.seed, run.batch_size, CPU, 0)
    splits = stored_tokens(run, model_of(run), CPU, Precision.float32, lambda: None)
    stored = TrainLoader(splits.train, run.dataset, *sizes)
    live = TrainLoader(open_splits(run.dataset, run.seed, run.loader, run.debug).train, run.dataset, *sizes)
    backbone = FrozenBackbone(model_of(run).backbone, CPU, nullcontext)
    places, found = torch.arange(128).view(4, 32), []
    for epoch in range(3):
        by_place = {}
        for batch in stored.epoch(epoch):
            by_place |= dict(zip(batch.indices.tolist(), batch.images.clone(), strict=True))
        mixes = repeat(Mixer(run.augmentation).draw(16, 16, rng.python_random(0, "any")))
        made = live.maker.make(rng.derive(0, "stored views", epoch % 2), places, mixes)
        found.append(torch.stack([by_place[place] for place in range(128)]))
        assert torch.equal(found[-1], torch.cat([backbone(batch.images) for batch in made]))
    assert not torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert splits.test.names == ["test"]


@pytest.mark.slow
def test_a_live_backbone_trains_the_same_bits_on_the_same_views(tmp_path):
    """In three epochs, the third with the first view again; validation images are some of the training images."""
    keys = ["backbone=random", *KEYS, "dataset.validation=0.2", "duration='3 epochs'", "schedule.warmup='0 epochs'"]
    stored = factories.planned(tmp_path / "stored", *keys)
    live = factories.planned(tmp_path / "live", *keys, "tokens.cache=off")
    for folder in (stored, live):
        train_folder(folder, lambda progress: None)
    assert differences(stored, live) == []
    assert not (tmp_path / "live" / "cache").exists()


def test_live_views_are_those_of_files_in_their_own_size_as_are_stored_ones(tmp_path):
    """Though the images of a small data set are else kept in the size of the model."""
    for split, name in itertools.product(("train", "test"), "ab"):
        folder = tmp_path / "images" / split / name
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(256, (24, 30), generator=rng.generator(number, f"{split} {name}")).byte()
            Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    keys = ["dataset=imagefolder", f"dataset.root={tmp_path / 'images'}", "dataset.channels=1", "dataset.mean=[0.5]"]
    keys += ["dataset.std=[0.5]", "dataset.image_size=16", "augmentation.order=crop_first", "batch_size=4", *KEYS]
    run = frozen(factories.planned(tmp_path, "backbone=random", *keys))
    tokens = stored_tokens(run, model_of(run), CPU, Precision.float32, lambda: None).train.open(CPU, 0, None)
    given = (run.augmentation, run.tokens.views, run.seed)
    backbone = FrozenBackbone(model_of(run).backbone, CPU, nullcontext)
    staged = replace(run.loader, stage=str(tmp_path / "disk"))
    for loader in (run.loader, staged):
        images = open_views(run.dataset, *given, loader, run.debug).train.open(CPU, 0, None)
        for epoch in range(3):
            (found,) = images.read(epoch, [torch.arange(8)])
            (expected,) = tokens.read(epoch, [torch.arange(8)])
            assert torch.equal(backbone(found), expected)
    assert (tmp_path / "disk").exists()


@pytest.mark.slow
def test_seeds_share_views_and_a_plan_states_their_size(tmp_path):
    keys = [
        "backbone=frozen",
        f"model.checkpoint={weights(tmp_path)}",
        "duration='3 epochs'",
        "schedule.warmup='0 epochs'",
    ]
    runs = []
    for seed in (0, 1):
        folder = factories.planned(tmp_path, *keys, *KEYS, f"seed={seed}")
        train_folder(folder, lambda progress: None)
        runs.append(frozen(folder))
    (tokens,) = folders_in(tmp_path / "cache")
    record = tokens.record()
    assert record.views == 2 and record.bytes == (1797 + 2 * 1438) * record.row_bytes
    assert sorted(path.name for path in tokens.path.glob("*.bin")) == [
        "test-00000.bin", "view0-00000.bin", "view1-00000.bin"
    ]  # fmt: skip
    (line,) = [it.line for it in token_folders(runs, {})]
    assert line.endswith("stored already")
    unknown = compose_run(*keys, *KEYS, "tokens.views=3", f"paths.output={tmp_path}")
    (line,) = [it.line for it in token_folders([unknown], {fingerprint(unknown): {"token_bytes": 1000}})]
    assert "7.2 MB, of which 7.2 MB to compute once" in line


def weights(tmp_path: Path) -> Path:
    run = compose_run("model.width=32", "model.depth=1", "model.attention_heads=1", "seed=7")
    torch.save({"model": model_of(run).state_dict()}, tmp_path / "pretrained.pt")
    return tmp_path / "pretrained.pt"


def test_what_a_view_depends_on_is_in_the_name_of_its_folder():
    keys = ["backbone=random", *KEYS]
    same = [[], ["augmentation.label_smoothing=0.3"], ["optimizer.lr=0.1"]]
    other = [["tokens.views=3"], ["augmentation.flip=0.1"], ["augmentation=none", "augmentation.flip=0.5"]]
    other += [["tokens.views=0", "augmentation=none", "augmentation.erasing=0"]]
    names = [[TokenFolder.of(compose_run(*keys, *overrides)).path for overrides in each] for each in (same, other)]
    assert len(set(names[0])) == 1 and len({*names[0], *names[1]}) == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=train", "tokens.cache=bfloat16"], "tokens.views=2: expected 0 with backbone=train"),
        (["tokens.views=-1"], "tokens.views=-1: expected an integer >= 0"),
        (["augmentation=none", "augmentation.erasing=0"], "tokens.views=2: expected 0 without augmentation"),
        (
            ["augmentation.mixup=1", "augmentation.mix_probability=1"],
            "augmentation.mixup=1.0: expected 0 with tokens.v",
        ),
        (["head=knn"], "tokens.views=2: expected 0 with head=knn, which compares images without augmentation"),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run("backbone=random", *KEYS, *overrides)

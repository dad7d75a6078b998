"""Batches are a function of (seed, epoch) alone."""

import itertools
import os
from pathlib import Path

import pytest
import torch

from headsweep.config import DebugConfig, LoaderConfig
from headsweep.data import sources
from headsweep.data.datasets import open_splits
from headsweep.data.loader import EvalLoader, Share, TrainLoader
from headsweep.data.locate import resolve
from headsweep.data.sources import ResidentSource, StreamedSource
from headsweep.errors import ConfigError, DataError

CPU = torch.device("cpu")
UNMIXED = {"mix_probability": 0.0}


@pytest.fixture
def resident(tiles):
    return ResidentSource(tiles, torch.arange(len(tiles)) % 10)


@pytest.fixture
def streamed(make_dataset, write_folder, tmp_path):
    def make(side=None, loader=LoaderConfig(workers=0, resident_gib=0.0, stage=None)):  # noqa: B008
        root = tmp_path / str(side)
        dataset = resolve(
            make_dataset(
                "imagefolder", root=str(root if root.exists() else write_folder(root, ["train", "test"], side=side))
            )
        )
        dataset.validation = 0.0
        return dataset, open_splits(dataset, 0, loader, DebugConfig(None, None, False))

    return make


def make_loader(source, dataset, augmentation, seed=0, batch_size=10, workers=0, share=Share()):  # noqa: B008
    return TrainLoader(source, dataset, augmentation, seed, batch_size, CPU, workers, share)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def by_index(batches):
    return {int(i): image for batch in batches for i, image in zip(batch.indices, batch.images, strict=True)}


def test_shapes_and_ranges(resident, make_dataset, make_augmentation):
    loader = make_loader(resident, make_dataset("cifar100"), make_augmentation("paper"), batch_size=16)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == loader.steps_per_epoch == 3
    for batch in batches:
        assert batch.images.shape == (16, 3, 32, 32) and batch.images.dtype == torch.float32
        assert batch.targets.shape == (16, 100) and batch.targets.dtype == torch.float32
        assert batch.indices.dtype == torch.int64
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(16))
    indices = torch.cat([batch.indices for batch in batches])
    assert len(indices.unique()) == 48


def test_epoch_is_a_function_of_seed_and_epoch(resident, make_dataset, make_augmentation):
    paper, dataset = make_augmentation("paper"), make_dataset("cifar100")
    loader = make_loader(resident, dataset, paper)
    forward = [list(loader.epoch(epoch)) for epoch in (0, 1)]
    torch.manual_seed(99)
    backward = [list(make_loader(resident, dataset, paper).epoch(epoch)) for epoch in (1, 0)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_seeds_and_epochs_differ(resident, make_dataset, make_augmentation):
    paper, dataset = make_augmentation("paper", **UNMIXED), make_dataset("cifar100")
    views = [
        by_index(make_loader(resident, dataset, paper, seed).epoch(epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    orders = [list(view) for view in views]
    for a, b in itertools.combinations(range(3), 2):
        assert orders[a] != orders[b]
        changed = [not torch.equal(views[a][i], views[b][i]) for i in views[a]]
        assert sum(changed) > 0.9 * len(changed)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_pixels_do_not_depend_on_the_batch_size(batch_size, resident, make_dataset, make_augmentation):
    paper, dataset = make_augmentation("paper", **UNMIXED), make_dataset("cifar100")
    expected = by_index(make_loader(resident, dataset, paper, batch_size=10).epoch(3))
    got = by_index(make_loader(resident, dataset, paper, batch_size=batch_size).epoch(3))
    assert all(torch.equal(image, expected[i]) for i, image in got.items()) and len(got) > 50


def test_global_generators_are_neither_read_nor_moved(resident, streamed, make_dataset, make_augmentation):
    dataset, splits = streamed()
    for source, its_dataset in ((resident, make_dataset("cifar100")), (splits.train, dataset)):
        before = torch.get_rng_state()
        list(make_loader(source, its_dataset, make_augmentation("paper")).epoch(0))
        list(EvalLoader(source, its_dataset, 10, CPU, 0))
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["none", "paper", "paper_imagenet"])
def test_streamed_is_the_same_with_workers(name, streamed, make_augmentation):
    dataset, splits = streamed()
    assert isinstance(splits.train, StreamedSource)
    alone, helped = (make_loader(splits.train, dataset, make_augmentation(name), workers=n) for n in (0, 2))
    for epoch in (0, 1):
        expected, got = list(alone.epoch(epoch)), list(helped.epoch(epoch))
        assert len(expected) == 2 and all(same(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_is_its_rest_and_opens_no_image_before_it(workers, streamed, make_augmentation):
    dataset, splits = streamed()
    paper = make_augmentation("paper_imagenet")
    whole = list(make_loader(splits.train, dataset, paper, batch_size=4, workers=workers).epoch(1))
    assert len(whole) == 6
    for first in (1, 4):
        for skipped in torch.cat([batch.indices for batch in whole[:first]]).tolist():
            Path(splits.train.paths[skipped]).unlink(missing_ok=True)
        rest = list(make_loader(splits.train, dataset, paper, batch_size=4, workers=workers).epoch(1, first))
        assert len(rest) == 6 - first and all(same(a, b) for a, b in zip(whole[first:], rest, strict=True))


@pytest.mark.slow
def test_workers_live_on_after_an_abandoned_epoch(streamed, make_augmentation):
    dataset, splits = streamed()
    loader = make_loader(splits.train, dataset, make_augmentation("paper"), batch_size=4, workers=2)
    next(loader.epoch(0))
    workers = [worker.pid for worker in loader.maker.reader.loader._iterator._workers]
    got = list(loader.epoch(1))
    expected = make_loader(splits.train, dataset, make_augmentation("paper"), batch_size=4).epoch(1)
    assert all(same(a, b) for a, b in zip(expected, got, strict=True))
    assert workers == [worker.pid for worker in loader.maker.reader.loader._iterator._workers]


@pytest.mark.parametrize(("name", "side"), [("paper_imagenet", 32), ("paper", 32), ("paper", None)])
def test_streamed_equals_resident(name, side, streamed, make_augmentation):
    """Where the files have the model's size; where the crop comes last, of whatever size they are."""
    dataset, splits = streamed(side)
    recipe = make_augmentation(name)
    one, other = (make_loader(source, dataset, recipe).epoch(0) for source in (splits.train, splits.train.resident()))
    assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_evaluation_is_all_images_in_order(resident, make_dataset):
    dataset = make_dataset("cifar100")
    loader = EvalLoader(resident, dataset, 16, CPU, 0)
    batches = list(loader)
    assert len(loader) == 4 and [len(batch.labels) for batch in batches] == [16, 16, 16, 12]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), resident.labels)
    images = torch.cat([batch.images for batch in batches])
    restored = images * torch.tensor(dataset.std).view(3, 1, 1) + torch.tensor(dataset.mean).view(3, 1, 1)
    torch.testing.assert_close(restored * 255, resident.images.float(), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_evaluation_streamed_equals_resident(streamed):
    dataset, splits = streamed()
    for workers in (0, 2):
        one = EvalLoader(splits.test, dataset, 7, CPU, workers)
        other = EvalLoader(splits.test.resident(), dataset, 7, CPU, 0)
        for _ in range(2):
            assert all(same(a, b) for a, b in zip(one, other, strict=True))


def test_grey_through_the_paper_recipe(make_dataset, make_augmentation):
    dataset = resolve(make_dataset("digits"))
    splits = open_splits(dataset, 0, LoaderConfig(0, 1.0, None), DebugConfig(64, None, False))
    batch = next(make_loader(splits.train, dataset, make_augmentation("paper"), batch_size=64).epoch(0))
    assert batch.images.shape == (64, 1, 16, 16) and batch.images.isfinite().all()


def test_labels_follow_images(resident, make_dataset, make_augmentation):
    for batch in make_loader(resident, make_dataset("cifar100"), make_augmentation("none")).epoch(0):
        assert torch.equal(batch.targets.argmax(1), resident.labels[batch.indices])


def test_batch_larger_than_the_split(resident, make_dataset, make_augmentation):
    with pytest.raises(ConfigError, match="batch_size=61: expected at most 60, the number of training images"):
        make_loader(resident, make_dataset("cifar100"), make_augmentation(), batch_size=61)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_file_is_one_line(workers, streamed, make_augmentation, tmp_path):
    dataset, splits = streamed()
    at = splits.train.paths.index(f"{tmp_path}/None/train/class2/004.jpg")
    bad = Path(splits.train.paths[at]).with_name(os.fsdecode(b"\xff DataError: two\nlines.jpg"))
    bad.write_bytes(b"no image")
    splits.train.paths[at] = str(bad)
    loader = make_loader(splits.train, dataset, make_augmentation(), batch_size=4, workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader.epoch(0))
    if workers:  # or the garbage collector does it in a later test, and waits five seconds for each of them
        loader.maker.reader.loader._iterator._shutdown_workers()
    expected = rf"{tmp_path}/None/train/class2/\xff DataError: two\nlines.jpg cannot be decoded"
    assert str(caught.value).startswith(expected) and str(caught.value).isprintable()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_gpu_sees_the_same_pixels_without_waiting(precision, resident, make_dataset, make_augmentation):
    paper, dataset, gpu = make_augmentation("paper"), make_dataset("cifar100"), torch.device("cuda")
    expected = make_loader(resident, dataset, paper).epoch(0)
    loader = TrainLoader(resident, dataset, paper, 0, 10, gpu, 0)
    torch.set_float32_matmul_precision(precision)
    list(loader.epoch(1))  # first use of kernels may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = list(loader.epoch(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.set_float32_matmul_precision("highest")
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other.images.cpu(), one.images, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.targets.cpu(), one.targets)


@pytest.mark.parametrize(("ranks", "parts"), [(1, 1), (2, 1), (4, 1), (2, 3), (3, 4)])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_shares_of_all_ranks_are_the_batches_of_one(resident, make_dataset, make_augmentation, ranks, parts, kind):
    """Byte for byte, mixed with the same images, in the order of the micro-batches."""
    paper, dataset = make_augmentation("paper", **{kind: 0.0}, mix_probability=1.0), make_dataset("cifar100")
    whole = make_loader(resident, dataset, paper, batch_size=12)
    shares = [
        make_loader(resident, dataset, paper, batch_size=12, share=Share(rank, ranks, parts)) for rank in range(ranks)
    ]
    for batch, *pieces in zip(whole.epoch(1), *(share.epoch(1) for share in shares), strict=True):
        for field, values in batch._asdict().items():
            by_rank = [getattr(piece, field).unflatten(0, (parts, -1)) for piece in pieces]
            assert torch.equal(torch.cat(by_rank, dim=1).flatten(0, 1), values), field


def test_a_streamed_share_is_that_of_one_rank_and_decodes_little_more(streamed, make_augmentation, monkeypatch):
    dataset, splits = streamed()
    decoded = []
    decode = sources.decode
    monkeypatch.setattr(sources, "decode", lambda *given: decoded.append(given) or decode(*given))
    light = make_augmentation("light")
    whole = next(make_loader(splits.train, dataset, light, batch_size=24).epoch(0))
    assert len(decoded) == 24
    second = next(make_loader(splits.train, dataset, light, batch_size=24, share=Share(1, 4)).epoch(0))
    assert len(decoded) == 24 + 6 + 1
    assert all(torch.equal(mine, all_[6:12]) for mine, all_ in zip(second, whole, strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_each_image_is_evaluated_on_one_rank(resident, make_dataset, ranks):
    shares = [EvalLoader(resident, make_dataset("cifar100"), 16, CPU, 0, Share(rank, ranks)) for rank in range(ranks)]
    (every,) = EvalLoader(resident, make_dataset("cifar100"), len(resident), CPU, 0)
    for rank, share in enumerate(shares):
        images, labels = (torch.cat(parts) for parts in zip(*share, strict=True))
        assert len(share) == -(-len(labels) * ranks // 16)
        assert torch.equal(images, every.images[rank::ranks]) and torch.equal(labels, every.labels[rank::ranks])


def test_more_ranks_than_images_are_refused(resident, make_dataset):
    with pytest.raises(DataError, match="expected at most 2 ranks, one per image to evaluate, found 3"):
        EvalLoader(resident.subset(torch.arange(2)), make_dataset("cifar100"), 16, CPU, 0, Share(0, 3))

"""Invariant 4: with one seed, runs of different heads start from the same backbone and batches, byte for byte."""

import hashlib
from itertools import chain, islice

import pytest
import torch

from commands import TINY_RUN
from composing import compose_run
from headsweep.data.datasets import open_splits
from headsweep.data.loader import TrainLoader
from headsweep.models import model_of
from headsweep.plan.plan import make_plan

SHORT = TINY_RUN
BATCHES = 12  # of three epochs


def fingerprints(tmp_path, *overrides: str) -> tuple[str, str]:
    """Of the backbone's initial weights and of the first batches."""
    config = compose_run(*SHORT, "augmentation=paper", f"paths.output={tmp_path}", *overrides)
    run = make_plan([config]).runs[0].run
    backbone = {k: v for k, v in model_of(run).state_dict().items() if not k.startswith("head.")}
    assert backbone
    splits = open_splits(run.dataset, run.seed, run.loader, run.debug)
    loader = TrainLoader(
        splits.train, run.dataset, run.augmentation, run.seed, run.batch_size, torch.device("cpu"), run.loader.workers
    )
    batches = islice(chain.from_iterable(map(loader.epoch, range(BATCHES))), BATCHES)
    seen = [tensor for batch in batches for tensor in (batch.images, batch.targets)]
    assert len(seen) == 2 * BATCHES
    return digest(backbone.values()), digest(seen)


def digest(tensors) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.numpy().tobytes())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return fingerprints(tmp_path_factory.mktemp("reference"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [["head=seqattn"], ["head=seqattn", "heads=4"], ["head=ga", "heads=2"], ["head=gap"]],
    ids=" ".join,
)
def test_the_head_changes_neither_backbone_nor_batches(tmp_path, reference, overrides):
    assert fingerprints(tmp_path, *overrides) == reference


@pytest.fixture(scope="module")
def streamed_reference(tmp_path_factory, streamed):
    return fingerprints(tmp_path_factory.mktemp("streamed"), *streamed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [["loader.workers=0"], ["loader.workers=1"], ["head=seqattn", "heads=4"], ["loader.resident_gib=2"]],
    ids=" ".join,
)
def test_streamed_images_are_the_same_with_any_workers_and_head(tmp_path, streamed, streamed_reference, overrides):
    """The reference has two workers; resident, the set has none."""
    assert fingerprints(tmp_path, *streamed, *overrides) == streamed_reference


@pytest.mark.slow
def test_another_seed_changes_both(tmp_path, reference):
    assert all(one != other for one, other in zip(fingerprints(tmp_path, "seed=1"), reference, strict=True))

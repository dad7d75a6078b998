"""Runs of heads that are fitted in one pass: evaluated once, in tables like any other, begun again if stopped."""

import numpy as np
import pytest
import torch

import factories
from comparing import differences
from composing import compose_run
from factories import weights
from headsweep.data.augment import Normaliser
from headsweep.data.datasets import open_splits
from headsweep.data.sources import ResidentSource
from headsweep.errors import ConfigError
from headsweep.plan.frozen import frozen
from headsweep.run.load_model import trained
from headsweep.run.train_run import train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Stopped

KEYS = ["backbone=random", "augmentation=none", "head=knn", "head.k=5", "tokens.cache=float32"]


def planned(tmp_path, *overrides: str) -> RunFolder:
    return factories.planned(tmp_path, *KEYS, *overrides)


def fitted(tmp_path, *overrides: str) -> RunFolder:
    folder = planned(tmp_path, *overrides)
    train_folder(folder, lambda progress: None)
    return folder


@pytest.mark.slow
def test_a_run_has_the_accuracy_of_the_nearest_images_and_its_model_is_whole(tmp_path):
    folder = fitted(tmp_path)
    result, model = folder.result(), trained(folder, best=True).eval()
    run = frozen(folder)
    splits, normalise = (
        open_splits(run.dataset, run.seed, run.loader, run.debug),
        Normaliser(run.dataset, torch.device("cpu")),
    )
    assert isinstance(splits.test, ResidentSource) and isinstance(splits.train, ResidentSource)
    with torch.no_grad():
        train, test = (model.forward_features(normalise(it.images)).mean(1) for it in (splits.train, splits.test))
        guesses = model(normalise(splits.test.images)).argmax(1)
    near = torch.cosine_similarity(test[:, None], train[None], dim=-1).topk(5).indices
    assert set(model.head.neighbours.labels[0].tolist()) == set(splits.train.labels.tolist())
    assert len(model.head.neighbours.labels[0]) == len(splits.train)
    correct = guesses == splits.test.labels
    assert all(splits.train.labels[places].eq(guess).any() for places, guess in zip(near, guesses, strict=True))
    assert result.metrics["test/top1"] == pytest.approx(correct.double().mean().item())
    assert result.metrics["best/top1"] == result.metrics["test/top1"] > 0.3
    assert np.array_equal(np.load(folder.correct), correct.numpy())
    assert (result.epochs, result.steps, folder.record().cost["head_parameters"]) == (0, 0, 0)


@pytest.mark.slow
def test_stored_and_live_tokens_have_the_same_bits_and_a_stopped_run_begins_again(tmp_path):
    stored, live, asked = planned(tmp_path / "a"), planned(tmp_path / "b", "tokens.cache=off"), iter([False] * 4)
    with pytest.raises(Stopped):
        train_folder(live, lambda progress: None, lambda: next(asked, True))
    assert live.metrics_log.entries() == [] and not live.checkpoint.exists()
    for folder in (stored, live):
        train_folder(folder, lambda progress: None)
    assert differences(stored, live) == []
    assert weights(stored).keys() == {"head.neighbours.vectors", "head.neighbours.labels"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=train"], "head=knn: expected backbone=frozen or random, found train: the head is not trained"),
        (["heads=4"], "heads=4: expected 1 with head=knn, which has no branches"),
        (["classifier_norm=true"], "classifier_norm=true: expected false with head=knn"),
        (["head.k=0"], "head.k=0: expected an integer >= 1"),
        (["head.temperature=0"], "head.temperature=0.0: expected a number > 0"),
    ],
)
def test_what_excludes_each_other_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_run("backbone=random", "augmentation=none", "head=knn", *overrides)


def test_several_processes_a_run_are_refused():
    with pytest.raises(ConfigError, match="head=knn: expected a head that is trained, with 2 processes a run"):
        compose_run("backbone=random", "augmentation=none", "head=knn").check_ranks(2)

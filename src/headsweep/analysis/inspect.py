"""Inspect the heads of a trained run: diversity statistics and attention maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from headsweep.config import RunConfig
from headsweep.data.datasets import open_splits
from headsweep.data.loader import EvalLoader
from headsweep.data.sources import Source
from headsweep.errors import UserError
from headsweep.heads import Head
from headsweep.inspection.diversity import MEANING, Diversity
from headsweep.inspection.pictures import Samples, draw_attention, draw_diversity
from headsweep.models import Classifier
from headsweep.plan.frozen import frozen
from headsweep.run.load_model import trained
from headsweep.run.precision import precision_of
from headsweep.tracking import inspection as files
from headsweep.tracking.inspection import Draw, Inspection, Question
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.trackers import tracker_of
from headsweep.training.device import autocast, choose_device, make_deterministic


def inspect(folder: RunFolder, question: Question, device: str | None) -> Inspection:
    """Inspect the heads of a run, write the result to its folder and send it to the tracker.

    Args:
        folder: of the run.
        question: images and number of samples.
        device: where to compute; None: the run's device.

    Raises:
        UserError: the run has no checkpoint or no such split, or its logits are not finite.
    """
    # First: training that continues meanwhile makes the result outdated, not wrong.
    checkpoint = files.checkpoint_digest(folder)
    model, run = trained(folder), frozen(folder)
    run = replace(run, device=device or run.device, paths=replace(run.paths, output=str(folder.output.path)))
    place = choose_device(run.device)
    make_deterministic(place)
    run = replace(run, precision=precision_of(run, folder, place))
    model, images = model.to(place).eval(), _images(run, question)
    diversity, samples = _diversity(model, run, images), _samples(model, run, images, question.samples)
    metrics = diversity.metrics()
    found = Inspection(
        checkpoint=checkpoint,
        question=question,
        images=len(images),
        heads=diversity.top1(),
        metrics=metrics,
        matrices={name: _defined(matrix) for name, matrix in diversity.matrices().items()},
        meaning=MEANING,
        earlier=_earlier(folder, metrics),
    )
    title = f"{folder.record().name}\n{question.split} images, checkpoint {checkpoint[:12]}"
    found = files.write_inspection(folder.path, found, _pictures(found, diversity, samples, title))
    with tracker_of(run) as tracker:
        tracker.notify(folder)
    return found


def _images(run: RunConfig, question: Question) -> Source:
    splits = open_splits(run.dataset, run.seed, run.loader, run.debug)
    source = {"val": splits.validation, "test": splits.test}[question.split]
    if source is None:
        raise UserError("--split val: expected validation images, found none (dataset.validation=0); use --split test")
    return source if question.images is None else source.subset(torch.arange(min(question.images, len(source))))


@torch.inference_mode()
def _diversity(model: Classifier, run: RunConfig, images: Source) -> Diversity:
    """Accumulate over all images, computed as in the run's evaluation."""
    head, place = _head(model), choose_device(run.device)
    diversity = Diversity(head.heads, head.pooled_width)
    for batch in EvalLoader(images, run.dataset, run.batch_size, place, run.loader.workers):
        with autocast(run.precision, place):
            pooled = head.pool(model.read_by_head(model.forward_features(batch.images)))
            logits = head.classify(pooled)
        if not logits.isfinite().all():
            raise UserError("expected finite logits, found others: the run has diverged")
        diversity.add(logits.cpu(), pooled.cpu(), batch.labels.cpu())
    return diversity


@torch.inference_mode()
def _samples(model: Classifier, run: RunConfig, images: Source, count: int) -> Samples | None:
    """Return the first `count` images with their token weights; None if the head has none."""
    head, place = _head(model), choose_device(run.device)
    chosen = images.subset(torch.arange(min(count, len(images))))
    loader = EvalLoader(chosen, run.dataset, len(chosen), place, workers=0)
    (batch,) = loader
    tokens = model.read_by_head(model.forward_features(batch.images))
    weights, logits = head.token_weights(tokens), head(tokens)
    if weights is None:
        return None
    weights = _of_patches(weights, model)
    shown = loader.normalise.undo(batch.images)
    guesses, together = logits.argmax(2), logits.mean(1).argmax(1)
    return Samples(*(values.cpu() for values in (shown, batch.labels, guesses, together, weights)))


def _of_patches(weights: Tensor, model: Classifier) -> Tensor:
    """Return the shares (b k n) of the patch tokens alone; a class token that is pooled with them comes last."""
    patches = weights[..., : model.backbone.tokens]
    return patches if patches.shape == weights.shape else functional.normalize(patches, p=1, dim=-1)


def _head(model: Classifier) -> Head:
    assert isinstance(model.head, Head), "a model just built has a head"
    return model.head


def _pictures(found: Inspection, diversity: Diversity, samples: Samples | None, title: str) -> Mapping[str, Draw]:
    pictures: dict[str, Draw] = {}
    if samples is not None:
        pictures[files.ATTENTION] = partial(draw_attention, samples, title)
    if len(found.heads) > 1:
        pictures[files.DIVERSITY] = partial(
            draw_diversity, found.heads, found.metrics["top1"], diversity.matrices(), title
        )
    return pictures


def _earlier(folder: RunFolder, metrics: dict[str, float]) -> list[dict[str, float]]:
    """Return the metrics of earlier, different inspections; a damaged file has none."""
    with suppress(UserError):
        if last := files.last_inspection(folder.path):
            return last.earlier if last.metrics == metrics else [*last.earlier, last.metrics]
    return []


def _defined(matrix: list[list[float]]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in matrix]

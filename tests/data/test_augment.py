"""Flip, erasing, normalisation and mixing."""

import random

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from headsweep.data.augment import Augmenter, Normaliser, crop_of, erase, erased_boxes, flip
from headsweep.data.mixing import Mixer, cut_box, mixed, soft_targets

CPU = torch.device("cpu")
N = 4000


def test_normaliser(tiles, make_dataset):
    dataset = make_dataset("cifar100")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    torch.testing.assert_close(Normaliser(dataset, CPU)(tiles), (tiles / 255 - mean) / std)


def test_all_off_leaves_images_untouched(tiles, make_dataset, make_augmentation):
    normalise = Normaliser(make_dataset("cifar100"), CPU)
    got = Augmenter(make_augmentation("none"), normalise)(tiles.clone(), 1, torch.arange(len(tiles)))
    assert torch.equal(got, normalise(tiles))
    assert crop_of(make_augmentation("none")) is None


@pytest.mark.parametrize(
    "switch", [{"flip": 0.5}, {"randaugment": "rand-m9-mstd0.5-inc1"}, {"erasing": 0.25, "erasing_count": 3}]
)
def test_each_switch_changes_some_images_and_no_other_draw(switch, tiles, make_dataset, make_augmentation):
    normalise, indices = Normaliser(make_dataset("cifar100"), CPU), torch.arange(len(tiles))
    got = Augmenter(make_augmentation("none", **switch), normalise)(tiles.clone(), 1, indices)
    touched = (got != normalise(tiles)).flatten(1).any(1)
    assert 0 < touched.sum() < len(tiles)


def test_flip(tiles):
    images = tiles[:1].expand(N, -1, -1, -1)
    flipped = (flip(images, 7, torch.arange(N), 0.3) == images.flip(3)).flatten(1).all(1)
    assert abs(flipped.sum() - 0.3 * N) < 5 * (N * 0.21) ** 0.5


@pytest.mark.parametrize("most", [1, 3])
def test_erased_area_is_distributed_as_timms(most):
    """Share of images, mean and quantiles of the erased area, and mean of the erased position."""
    random.seed(0)
    ours = erase(torch.ones(N, 1, 32, 32), erased_boxes(3, torch.arange(N), 0.25, most, 32, 32))
    theirs = RandomErasing(0.25, max_count=most, device="cpu")(torch.ones(N, 1, 32, 32))
    areas = [(images == 0).float().mean((1, 2, 3)).numpy() for images in (ours, theirs)]
    hit = [(area > 0).mean() for area in areas]
    assert abs(hit[0] - 0.25) < 5 * (0.25 * 0.75 / N) ** 0.5 and abs(hit[0] - hit[1]) < 0.05
    erased = [area[area > 0] for area in areas]
    assert abs(erased[0].mean() - erased[1].mean()) < 5 * erased[1].std() * (2 / len(erased[1])) ** 0.5
    levels = [0.1, 0.5, 0.9]
    assert abs(np.quantile(erased[0], levels) - np.quantile(erased[1], levels)).max() < 0.03
    heat = (ours == 0).float().mean((0, 1))
    assert abs(heat.sum(0) @ torch.arange(32.0) / heat.sum() - 15.5) < 0.7


def test_erased_boxes_lie_inside_and_share_the_area():
    boxes = erased_boxes(3, torch.arange(N), 1.0, 3, 24, 40)
    top, left, bottom, right = boxes.unbind(2)
    assert (boxes >= 0).all() and (bottom <= 24).all() and (right <= 40).all()
    count = ((bottom > top) & (right > left)).sum(1)
    assert ((count.bincount(minlength=4)[1:] - N / 3).abs() < 5 * (N * 2 / 9) ** 0.5).all()
    area = ((bottom - top) * (right - left)).sum(1) / (24 * 40)
    assert area.max() < 0.42 and area[area > 0].min() > 0.005


def test_soft_targets():
    got = soft_targets(torch.tensor([2, 0]), 4, 0.1)
    torch.testing.assert_close(got, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]))
    assert torch.equal(soft_targets(torch.tensor([1]), 2, 0.0), torch.tensor([[0.0, 1.0]]))


def mix_many(mixer, count=600):
    """Mix a batch whose images are their own one-hot targets, so that images tell what targets must be."""
    for number in range(count):
        images = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 16, 16).clone()
        yield *mixer(images, torch.eye(4), random.Random(number)), number


@pytest.mark.parametrize("switch", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_targets_say_what_images_hold(switch, make_augmentation):
    shares = []
    for images, targets, _ in mix_many(Mixer(make_augmentation(mix_probability=0.5, **switch))):
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        torch.testing.assert_close(images.mean((2, 3)), targets)
        assert torch.equal(targets.nonzero()[:, 1].unique(), torch.arange(4))
        shares.append(float(targets[0, 0]))
    changed = np.mean(np.array(shares) < 1)
    assert abs(changed - 0.5) < 5 * 0.5 / 600**0.5 + 0.03  # some boxes are empty


def test_both_kinds_are_drawn_equally_often(make_augmentation):
    mixer = Mixer(make_augmentation(mixup=0.8, cutmix=1.0, mix_probability=1.0))
    # Mixup leaves one value in an image's own channel; a cut leaves two.
    blended = [len(images[0, 0].unique()) == 1 for images, _, _ in mix_many(mixer)]
    assert abs(np.mean(blended) - 0.5) < 5 * 0.5 / 600**0.5 + 0.03


def test_shares_are_distributed_as_timms(make_augmentation):
    np.random.seed(0)
    for kind, alpha in (("mixup", 0.8), ("cutmix", 1.0)):
        theirs = Mixup(*(alpha if name == kind else 0.0 for name in ("mixup", "cutmix")), num_classes=4)
        want = [theirs._mix_batch(torch.zeros(2, 1, 16, 16)) for _ in range(600)]
        mixer = Mixer(make_augmentation(mix_probability=1.0, **{kind: alpha}))
        got = [float(targets[0, 0]) for _, targets, _ in mix_many(mixer)]
        assert abs(np.quantile(got, [0.2, 0.5, 0.8]) - np.quantile(want, [0.2, 0.5, 0.8])).max() < 0.15


def test_off_mixes_nothing(make_augmentation):
    for changes in ({}, {"mix_probability": 1.0}, {"mixup": 1.0, "cutmix": 1.0}):
        for images, targets, _ in mix_many(Mixer(make_augmentation(**changes)), 50):
            assert torch.equal(targets, torch.eye(4)) and torch.equal(images[..., 0, 0], torch.eye(4))


def test_cut_box_is_clipped_and_its_share_corrected():
    source = random.Random(0)
    for _ in range(500):
        box, share = cut_box(source.random(), 20, 30, source)
        assert 0 <= box.top <= box.bottom <= 20 and 0 <= box.left <= box.right <= 30
        assert share == 1 - (box.bottom - box.top) * (box.right - box.left) / 600


def test_partner_is_the_row_before():
    got = mixed(torch.tensor([[1.0], [10.0], [100.0]]), 0.5)
    assert got.flatten().tolist() == [50.5, 5.5, 55.0]

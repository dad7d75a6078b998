"""Flip, erasing, normalisation and mixing."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import beta, binomtest, chi2_contingency, ks_2samp, kstest
from timm.data.random_erasing import RandomErasing

from headsweep.config import AugmentationOrder
from headsweep.data.augment import Augmenter, Drawer, Normaliser, crop_at, erase, erased_boxes, flip
from headsweep.data.mixing import Mixer, cut_box, mix, mixed, soft_targets

CPU = torch.device("cpu")
N = 4000


def augmented(tiles, augmentation, dataset):
    augment = Augmenter(augmentation, dataset, CPU)
    draws = augment.draw(1, torch.arange(len(tiles)))
    return augment.normalised(augment(tiles.clone(), draws), draws.holes)


def test_normaliser(tiles, make_dataset):
    dataset = make_dataset("cifar100")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    torch.testing.assert_close(Normaliser(dataset, CPU)(tiles), (tiles / 255 - mean) / std)


def test_all_off_leaves_images_untouched(tiles, make_dataset, make_augmentation):
    dataset, none = make_dataset("cifar100"), make_augmentation("none")
    assert torch.equal(augmented(tiles, none, dataset), Normaliser(dataset, CPU)(tiles))
    assert all(crop_at(none, order) is None for order in AugmentationOrder)


@pytest.mark.parametrize(
    "switch", [{"flip": 0.5}, {"randaugment": "rand-m9-mstd0.5-inc1"}, {"erasing": 0.25, "erasing_count": 3}]
)
def test_each_switch_changes_some_images(switch, tiles, make_dataset, make_augmentation):
    dataset = make_dataset("cifar100")
    got = augmented(tiles, make_augmentation("none", **switch), dataset)
    touched = (got != Normaliser(dataset, CPU)(tiles)).flatten(1).any(1)
    assert 0 < touched.sum() < len(tiles)


def test_flip(tiles, make_augmentation):
    images, drawn = tiles[:1].expand(N, -1, -1, -1), Drawer(make_augmentation("none", flip=0.3), 32, None)
    flipped = (flip(images, drawn(7, torch.arange(N)).flipped) == images.flip(3)).flatten(1).all(1)
    assert abs(flipped.sum() - 0.3 * N) < 5 * (N * 0.21) ** 0.5


class Recorder:
    """In the place of an image: remembers the boxes that timm fills."""

    def __init__(self):
        self.boxes = []

    def __setitem__(self, place, _):
        _, rows, columns = place
        self.boxes.append((rows.start, columns.start, rows.stop, columns.stop))


@pytest.mark.parametrize("most", [1, 3])
def test_erased_boxes_are_distributed_as_timms(most):
    """How many images and boxes (chi-square); area, ratio and place of a box (Kolmogorov and Smirnov)."""
    random.seed(0)
    erasing, records = RandomErasing(0.25, max_count=most, device=None), [Recorder() for _ in range(N)]
    for record in records:
        erasing._erase(record, 3, 32, 32, torch.float32)
    drawn = erased_boxes(3, torch.arange(N), 0.25, most, 32, 32)
    present = (drawn[..., 2] > 0) & (drawn[..., 3] > 0)
    counts = [present.sum(1), torch.tensor([len(record.boxes) for record in records])]
    assert binomtest(int((counts[0] > 0).sum()), N, 0.25).pvalue > 0.001
    assert chi2_contingency([count.bincount(minlength=most + 1) for count in counts]).pvalue > 0.001
    boxes = drawn[present], torch.tensor([box for record in records for box in record.boxes])
    for measure in (
        lambda top, left, bottom, right: (bottom - top) * (right - left),
        lambda top, left, bottom, right: (right - left) / (bottom - top),
        lambda top, left, bottom, right: top / (32 - bottom + top),
        lambda top, left, bottom, right: left / (32 - right + left),
    ):
        assert ks_2samp(*(measure(*sample.unbind(1)) for sample in boxes)).pvalue > 0.001


def test_erased_pixels_become_the_mean_and_no_other_changes(tiles):
    boxes = torch.zeros(60, 2, 4, dtype=torch.int64)
    boxes[1] = torch.tensor([[3, 4, 10, 20], [8, 10, 12, 32]])
    images = tiles.float() + 1
    expected = images.clone()
    expected[1, :, 3:10, 4:20] = 0
    expected[1, :, 8:12, 10:32] = 0
    assert torch.equal(erase(images, boxes), expected)


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
    """Mix a batch whose images are their own one-hot targets, so that images determine the expected targets."""
    for number in range(count):
        images = torch.eye(4).view(4, 4, 1, 1).expand(4, 4, 16, 16).clone()
        yield *mix(images, torch.eye(4), mixer.draw(16, 16, random.Random(number))), number


@pytest.mark.parametrize("switch", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_targets_are_the_labels_of_their_images(switch, make_augmentation):
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


def test_mixup_shares_follow_the_beta_distribution(make_augmentation):
    """Upstream draws from a Dirichlet distribution of two equal alphas, whose parts are Beta(alpha, alpha)."""
    mixer = Mixer(make_augmentation(mixup=0.8, mix_probability=1.0))
    shares = [float(targets[0, 0]) for _, targets, _ in mix_many(mixer, 4000)]
    assert kstest(shares, beta(0.8, 0.8).cdf).pvalue > 0.001


@pytest.mark.parametrize("h", [16, 9])
def test_cut_boxes_are_upstreams(h):
    """Both halves of a side are cut off alone, so a side is even; timm's boxes may have odd sides."""
    for cut, y, x in itertools.product([0.0, 0.02, 0.1, 0.35, 0.5, 0.99, 1.0], range(h), range(12)):
        centre = iter((y, x))
        box, share = cut_box(1 - cut, h, 12, SimpleNamespace(randrange=lambda _, centre=centre: next(centre)))
        hole = torch.zeros(h, 12)
        tall, wide = int(0.5 * cut**0.5 * h), int(0.5 * cut**0.5 * 12)
        hole[max(y - tall, 0) : y + tall, max(x - wide, 0) : x + wide] = 1
        got = torch.zeros(h, 12)
        got[box.top : box.bottom, box.left : box.right] = 1
        assert torch.equal(got, hole) and share == pytest.approx(1 - float(hole.mean()))


def test_cut_areas_follow_the_beta_distribution_around_a_uniform_centre(make_augmentation):
    """Beta(1, 1) is uniform; the distribution is simulated with numpy."""
    generator = np.random.default_rng(0)
    half, centres = (8 * generator.random(600) ** 0.5).astype(int), generator.integers(16, size=(2, 600))
    sides = np.minimum(centres + half, 16) - np.maximum(centres - half, 0)
    mixer = Mixer(make_augmentation(cutmix=1.0, mix_probability=1.0))
    got = [float(targets[0, 0]) for _, targets, _ in mix_many(mixer)]
    assert ks_2samp(np.round(got, 5), 1 - np.prod(sides, 0) / 256).pvalue > 0.001


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
    got = mixed(torch.tensor([[1.0], [10.0], [100.0]]), 0.5, 0.5)
    assert got.flatten().tolist() == [50.5, 5.5, 55.0]

"""RandAugment is timm's: each operation, how often it is drawn, and how strong it is."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chi2_contingency, chisquare, ks_2samp, kstest, norm
from timm.data import auto_augment

from headsweep.data.operations import GEOMETRIC, NAMES, affines
from headsweep.data.randaugment import NOTHING, Operations, Policy, RandAugment, arguments_of, randaugment
from headsweep.errors import ConfigError

PAPER = "rand-m9-mstd0.5-inc1"
N = 20_000
ROUNDED = {"AutoContrast"}  # Pillow's float error makes it fall one level short of a whole number now and then


def timm_name(name, increasing):
    if name.startswith("Translate"):
        return name + "Rel"
    has_two = name in ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
    return name + "Increasing" if increasing and has_two else name


def by_timm(name, magnitude, negative, bicubic, images, monkeypatch):
    """Timm's own PIL operation on (n, h, w[, c]) uint8."""
    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: -value if negative else value)
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    fill = (128,) * 3 if images.ndim == 4 else 128
    operation = auto_augment.AugmentOp(name, 1.0, magnitude, {"img_mean": fill, "interpolation": resample})
    return np.stack([np.asarray(operation(Image.fromarray(image))) for image in images]).astype(int)


def apply(operation, images, arguments, bicubic):
    """One operation on all images."""
    operations = torch.full_like(arguments, operation, dtype=torch.int64)
    looks = affines(operations, arguments, *images.shape[2:])
    drawn = Operations(operations, arguments, torch.full_like(operations, bicubic, dtype=torch.bool), looks)
    return randaugment(images, Operations(*(values[:, None] for values in drawn)))


def by_us(operation, magnitude, negative, increasing, bicubic, images):
    count = len(images)
    level = torch.full((count,), magnitude, dtype=torch.float64)
    arguments = arguments_of(level, torch.full((count,), negative), increasing)[:, operation]
    return apply(operation, images.clone(), arguments.float(), bicubic).int()


def close(name, got, reference):
    """LUT and blending operations are equal; geometry is cut off, so float32 may fall one level short, rarely."""
    difference = abs(got.numpy() - reference)
    if name in ROUNDED or NAMES.index(name) >= GEOMETRIC:
        return difference.max() <= 1 and (difference > 0).mean() < 0.05
    return difference.max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [2.6, 9.9])
def test_operation_is_timms(name, magnitude, increasing, tiles, pictures, monkeypatch):
    operation, timms = NAMES.index(name), timm_name(name, increasing)
    for negative in (False, True):
        for bicubic in (False, True) if operation >= GEOMETRIC else (False,):
            reference = by_timm(timms, magnitude, negative, bicubic, pictures[:30], monkeypatch)
            got = by_us(operation, magnitude, negative, increasing, bicubic, tiles[:30])
            assert close(name, got.permute(0, 2, 3, 1), reference)


@pytest.mark.parametrize("name", NAMES)
def test_operation_on_grey(name, tiles, pictures, monkeypatch):
    grey = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in pictures[:30]])
    reference = by_timm(timm_name(name, True), 7.0, True, True, grey, monkeypatch)
    got = by_us(NAMES.index(name), 7.0, True, True, True, torch.from_numpy(grey)[:, None])
    assert close(name, got[:, 0], reference)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_flat_images_stay_as_they_are(name):
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(apply(NAMES.index(name), flat, torch.zeros(2), False), flat)


def test_small_images_are_equalized_as_by_pillow(pictures, monkeypatch):
    small = np.ascontiguousarray(pictures[:, :17, :17])
    got = apply(
        NAMES.index("Equalize"), torch.from_numpy(small).permute(0, 3, 1, 2).contiguous(), torch.zeros(60), False
    )
    assert close("Equalize", got.int().permute(0, 2, 3, 1), by_timm("Equalize", 1, False, False, small, monkeypatch))


@pytest.mark.parametrize(("increasing", "magnitude"), [(True, 10.0), (False, 0.0)])
def test_posterize_to_no_bits_is_black(increasing, magnitude, tiles):
    """Asked for by timm: black in Pillow 10, refused by Pillow 13."""
    assert not by_us(NAMES.index("Posterize"), magnitude, False, increasing, False, tiles).any()


def test_parse():
    assert Policy.parse(PAPER) == Policy(9, 0.5, 2, 0.5, True)
    assert Policy.parse("rand") == Policy(10, 0, 2, 0.5, False)
    assert Policy.parse("rand-n3-p0.7-m4-inc0-mstd101") == Policy(4, 101, 3, 0.7, False)


@pytest.mark.parametrize("text", ["rand-m9.1.2", "rand-m11", "rand-n1.5", "rand-p2"])
def test_parse_refuses(text):
    with pytest.raises(ConfigError, match=f"augmentation.randaugment={text}"):
        Policy.parse(text)


def drawn_by_us(text):
    return RandAugment(Policy.parse(text), 32).draw(1, torch.arange(N))


def test_operations_are_uniform_and_half_of_them_applied():
    """Each with probability p / 15, bilinear and bicubic equally often."""
    drawn = drawn_by_us(PAPER)
    for operations, bicubic in zip(drawn.operations.T, drawn.bicubic.T, strict=True):
        counts = (2 * operations + bicubic).bincount(minlength=2 * len(NAMES) + 2).view(-1, 2)
        share = 0.5 / len(NAMES)
        expected = [share] * GEOMETRIC + [share / 2] * 2 * (len(NAMES) - GEOMETRIC) + [0.5]
        seen = [*counts[:GEOMETRIC].sum(1), *counts[GEOMETRIC:NOTHING].flatten(), counts[NOTHING].sum()]
        assert chisquare(seen, N * np.array(expected)).pvalue > 0.001


def drawn_by_timm(count):
    """(count, 2): the operations that timm applies to an image one after the other; what is not applied is 15."""
    random.seed(0)
    np.random.seed(0)
    augment = auto_augment.rand_augment_transform(PAPER, {})
    order = [timm_name(name, True) for name in NAMES]
    assert sorted(order) == sorted(op.name for op in augment.ops)
    drawn = np.full((count, 2), len(NAMES))
    for row in range(count):
        for layer, operation in enumerate(np.random.choice(augment.ops, augment.num_layers)):
            operation.aug_fn = lambda image, *_, name=operation.name, **__: order.index(name)
            applied = operation(None)
            drawn[row, layer] = len(NAMES) if applied is None else applied
    return drawn


def test_pairs_of_operations_are_drawn_as_by_timm():
    """Both layers together, so that they are independent of each other and may repeat: chi-square of two samples."""
    computed = drawn_by_us(PAPER).operations.numpy()
    tables = [np.bincount(drawn @ [len(NAMES) + 1, 1], minlength=256) for drawn in (computed, drawn_by_timm(N))]
    assert chi2_contingency(tables).pvalue > 0.001


def sheared(text):
    """Every factor of ShearX and ShearY that is drawn: 0.03 times the magnitude, with its sign."""
    drawn = drawn_by_us(text)
    return drawn.arguments[torch.isin(drawn.operations, torch.tensor([NAMES.index("ShearX"), NAMES.index("ShearY")]))]


@pytest.mark.parametrize("text", ["rand-m5-mstd2-inc1", "rand-m6-mstd101-inc1", "rand-m3-inc1"])
def test_magnitudes_are_distributed_as_timms(text):
    random.seed(0)
    shear = auto_augment.rand_augment_transform(text, {"img_mean": (128,) * 3}, ["ShearX"]).ops[0]
    factors = []
    shear.aug_fn = lambda image, factor, **_: factors.append(factor)
    shear.prob = 1.0
    for _ in range(4000):
        shear(None)
    assert ks_2samp(np.round(sheared(text).double(), 6), np.round(factors, 6)).pvalue > 0.001


@pytest.mark.parametrize(("text", "mean", "spread"), [(PAPER, 9, 0.5), ("rand-m1-mstd1-inc1", 1, 1)])
def test_magnitudes_are_normal_cut_off_at_0_and_10(text, mean, spread):
    """The share beyond each end lies on it; what is between is normal; signs are fair."""
    factors = sheared(text).double().numpy()
    magnitudes, expected = np.round(abs(factors) / 0.03, 5), norm(mean, spread)
    inside = magnitudes[(magnitudes > 0) & (magnitudes < 10)]
    for end, beyond in ((0, expected.cdf(0)), (10, expected.sf(10))):
        assert binomtest(int((magnitudes == end).sum()), len(magnitudes), beyond).pvalue > 0.001
    assert (
        kstest(inside, lambda x: (expected.cdf(x) - expected.cdf(0)) / (expected.cdf(10) - expected.cdf(0))).pvalue
        > 0.001
    )
    assert binomtest(int((factors > 0).sum()), int((factors != 0).sum())).pvalue > 0.001


def test_all_layers_are_applied_in_order(tiles):
    """Against a plain loop over images."""
    drawn = RandAugment(Policy.parse(PAPER), 32).draw(3, torch.arange(len(tiles)))
    reference = tiles.clone()
    for layer in zip(*(values.unbind(1) for values in drawn[:3]), strict=True):
        for row, (operation, argument, bicubic) in enumerate(zip(*layer, strict=True)):
            if operation != NOTHING:
                reference[row] = apply(int(operation), reference[row][None], argument[None], bool(bicubic))[0]
    assert torch.equal(randaugment(tiles.clone(), drawn), reference)
    assert not torch.equal(reference, tiles)

"""Intervals over seeds and images: their arithmetic, and their coverage of known parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headsweep.report.stats.crossed import difference_over_images, estimate_over_images
from headsweep.report.stats.inference import estimate

pytestmark = pytest.mark.slow

SEEDS, IMAGES, STUDIES = 5, 360, 2000


def by_hand(table: np.ndarray) -> tuple[float, float]:
    """Half-width from sums over the single values."""
    seeds, images = table.shape
    mean, rows, columns = table.mean(), table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    residual = ((table - rows - columns + mean) ** 2).sum() / (seeds - 1) / (images - 1)
    of_seeds = max(residual, images * np.var(rows, ddof=1))
    of_images = max(residual, seeds * np.var(columns, ddof=1))
    total = of_seeds + of_images - residual
    parts = of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1) + residual**2 / (seeds - 1) / (images - 1)
    return stats.t.ppf(0.975, max(seeds - 1, total**2 / parts)) * np.sqrt(total / seeds / images)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_half_width_is_that_of_the_two_way_mean_squares(seeds):
    table = np.random.default_rng(seeds).random((seeds, 40)) < np.linspace(0.2, 1, 40)
    got = estimate_over_images(list(table))
    assert (got.mean, got.n, got.images) == (pytest.approx(table.mean()), seeds, 40)
    assert got.half_width == pytest.approx(by_hand(table), rel=1e-12)


def test_a_difference_is_of_the_common_seeds_image_by_image():
    draw = np.random.default_rng(0)
    first, second = ({seed: draw.random(50) < 0.8 for seed in seeds} for seeds in ((0, 1, 2), (2, 1, 7)))
    got = difference_over_images(first, second)
    expected = np.array([first[seed].astype(int) - second[seed] for seed in (1, 2)])
    assert (got.mean, got.n) == (pytest.approx(expected.mean()), 2)
    assert got.half_width == pytest.approx(by_hand(expected), rel=1e-12)
    assert difference_over_images({0: first[0]}, {3: first[1]}) is None


def test_one_seed_one_image_and_seeds_that_never_differ_have_no_interval():
    images = np.array([True, False, True])
    assert estimate_over_images([images]).half_width is None
    assert estimate_over_images([images[:1], ~images[:1]]).half_width is None
    assert estimate_over_images([images, images, images]).half_width is None
    same = dict.fromkeys(range(3), images)
    assert difference_over_images(same, same).half_width is None


def test_equal_accuracies_on_different_images_have_an_interval():
    table = np.array([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]], dtype=bool)
    assert estimate_over_images(list(table)).half_width > 0


def test_unequal_numbers_of_images_are_refused():
    with pytest.raises(ValueError):
        estimate_over_images([np.ones(3, bool), np.ones(4, bool)])
    with pytest.raises(ValueError, match="at least one seed"):
        estimate_over_images([])


def drawn(of_seeds: float, of_images: float, of_residual: float, seed: int) -> np.ndarray:
    """Studies of a crossed design with mean 0 and these standard deviations: studies x seeds x images."""
    draw = np.random.default_rng(seed)
    return (
        of_seeds * draw.standard_normal((STUDIES, SEEDS, 1))
        + of_images * draw.standard_normal((STUDIES, 1, IMAGES))
        + of_residual * draw.standard_normal((STUDIES, SEEDS, IMAGES))
    )


def coverage(studies: np.ndarray, parameter: float = 0.0) -> tuple[float, float]:
    """Shares of intervals that contain the parameter: over seeds and images, and over seeds alone."""
    crossed = [estimate_over_images(list(study)) for study in studies]
    alone = [estimate(list(study.mean(axis=1))) for study in studies]
    covered = [np.mean([abs(e.mean - parameter) <= (e.half_width or 0) for e in found]) for found in (crossed, alone)]
    return covered[0], covered[1]


@pytest.mark.parametrize(("deviations", "alone_below"), [((0.005, 0.35, 0.2), 0.75), ((0.02, 0.2, 0.3), 0.93)])
def test_an_interval_over_images_covers_known_variances_where_seeds_alone_do_not(deviations, alone_below):
    """5 seeds x 360 images: standard deviations of an accuracy's seeds, images and residual."""
    both, alone = coverage(drawn(*deviations, seed=1))
    assert 0.93 <= both <= 0.97
    assert alone < alone_below


def probit(*shifts: float, of_seeds: float, of_images: float, seed: int) -> list[np.ndarray]:
    """Correctness of heads that share the images: a latent score above 0, with unit residual."""
    draw = np.random.default_rng(seed)
    images = of_images * draw.standard_normal((STUDIES, 1, IMAGES), dtype=np.float32)
    heads = []
    for shift in shifts:
        own = draw.standard_normal((STUDIES, 1, IMAGES), dtype=np.float32)
        seeds = of_seeds * draw.standard_normal((STUDIES, SEEDS, 1), dtype=np.float32)
        heads.append(
            shift + images + own + seeds + draw.standard_normal((STUDIES, SEEDS, IMAGES), dtype=np.float32) > 0
        )
    return heads


def test_an_interval_over_images_covers_the_accuracy_of_predictions_and_their_difference():
    """Right or wrong predictions: the accuracy of the population of seeds and images is known."""
    heads = probit(2.0, 2.3, of_seeds=0.05, of_images=2.0, seed=2)
    scale = np.sqrt(1 + 1 + 0.05**2 + 2.0**2)
    accuracies = stats.norm.cdf(np.array([2.0, 2.3]) / scale)
    both, alone = coverage(heads[0], accuracies[0])
    assert 0.93 <= both <= 0.97
    assert alone < 0.8
    both, alone = coverage(heads[1].astype(np.int8) - heads[0], accuracies[1] - accuracies[0])
    assert 0.93 <= both <= 0.97
    assert alone < 0.9

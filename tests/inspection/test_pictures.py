"""Pictures show what they are given: the right token, on one scale for all heads, whatever the number of heads."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from headsweep.inspection import pictures
from headsweep.inspection.pictures import (
    Samples,
    _draw_accuracies,
    _limits,
    _maps,
    draw_attention,
    draw_diversity,
)


def samples(count: int = 1, heads: int = 3, channels: int = 1, tokens: int = 16) -> Samples:
    torch.manual_seed(0)
    weights = torch.rand(count, heads, tokens).softmax(-1)
    guesses = torch.randint(10, (count, heads))
    return Samples(torch.rand(count, channels, 8, 8), torch.arange(count), guesses, guesses[:, 0], weights)


def drawn(draw, *arguments) -> Image.Image:
    file = io.BytesIO()
    draw(*arguments, file)
    return Image.open(file)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "channels"), [(3, 3), (20, 4)])
def test_attention_is_a_picture(heads: int, channels: int) -> None:
    picture = drawn(draw_attention, samples(heads=heads, channels=channels), "a run")
    assert picture.format == "PNG" and picture.width < 2500
    assert np.asarray(picture.convert("RGB")).std() > 10


@pytest.fixture
def figure(monkeypatch) -> Figure:
    """The next figure that is drawn, to look at its axes."""
    kept = Figure()
    monkeypatch.setattr(pictures, "Figure", lambda figsize, dpi, layout: kept)
    return kept


def test_a_map_is_brightest_where_the_token_weighs_most() -> None:
    given = samples(heads=1)
    given.weights.fill_(0.5 / 15)
    given.weights[0, 0, 4 * 1 + 2] = 0.5  # second row, third column of 4 x 4 tokens
    assert np.unravel_index(_maps(given)[0, 0].argmax(), (4, 4)) == (1, 2)


def test_a_map_of_equal_weights_is_one_everywhere_and_in_the_middle_of_the_colours() -> None:
    given = samples(heads=2, tokens=49)
    given.weights.fill_(1 / 49)
    np.testing.assert_allclose(_maps(given), 1, rtol=1e-6)
    low, high = _limits(_maps(given))
    assert low * high == pytest.approx(1)


def test_a_map_of_equal_weights_is_of_one_colour_whatever_the_image_shows(figure) -> None:
    given = samples(heads=2)
    given.weights.fill_(1 / 16)
    drawn(draw_attention, given, "a run")
    (image,), *maps = ([*place.images] for place in figure.axes[:3])
    for shown in maps:
        assert len(shown) == 1, "the map alone, nothing below it"
        assert len(np.unique(shown[0].to_rgba(shown[0].get_array()).reshape(-1, 4), axis=0)) == 1
        assert shown[0].get_alpha() is None
    assert len(np.unique(image.get_array())) > 1


def test_weights_beyond_the_colours_are_announced_at_the_end_of_the_colour_bar(figure) -> None:
    given = samples(count=4, heads=2)
    given.weights.fill_(1 / 16)
    given.weights[0, 0, 0] = 1
    drawn(draw_attention, given, "a run")
    assert figure.axes[-1]._colorbar.extend == "max"


def test_a_long_name_is_broken_into_lines(figure) -> None:
    drawn(draw_attention, samples(heads=1), "-".join(["attention"] * 12))
    assert max(map(len, figure.get_suptitle().splitlines())) < 100


@pytest.mark.parametrize(
    ("values", "tops"),
    [
        ({"disagreement": 0.7, "kl": 3.86e-6, "cka": 0.99}, (1, 0.1, 1)),
        ({"disagreement": 1.0, "kl": 2.5, "cka": 0.0}, (1, 2.5, 1)),
    ],
)
def test_colours_begin_at_0_and_end_where_the_quantity_does(figure, values: dict[str, float], tops: tuple) -> None:
    matrices = {name: [[0, value], [value * 0.999, 0]] for name, value in values.items()}
    drawn(draw_diversity, [0.5, 0.6], 0.6, matrices, "a run")
    for axes, top in zip(figure.axes[1:4], tops, strict=True):
        (shade,) = axes.images
        assert shade.get_clim() == (0, pytest.approx(top))
        colours = shade.to_rgba(shade.get_array())
        np.testing.assert_allclose(
            colours[0, 1], colours[1, 0], atol=0.02
        )  # a difference of a thousandth is no pattern


def test_accuracies_that_hardly_differ_stand_close_together() -> None:
    axes = Figure().add_subplot()
    _draw_accuracies(axes, [0.98, 0.9801], 0.98)
    low, high = axes.get_xlim()
    assert high - low >= 4.5 and high <= 101


@pytest.mark.slow
def test_diversity_is_a_picture() -> None:
    heads = 13
    matrix = torch.rand(heads, heads).tolist()
    matrix[0][1] = float("nan")
    matrices = {"disagreement": matrix, "kl": matrix, "cka": matrix}
    picture = drawn(draw_diversity, [0.5 + head / 100 for head in range(heads)], 0.6, matrices, "a run")
    assert picture.format == "PNG" and np.asarray(picture.convert("RGB")).std() > 10


def test_the_same_numbers_are_the_same_picture() -> None:
    one, again = (drawn(draw_attention, samples(heads=1), "a run").tobytes() for _ in range(2))
    assert one == again

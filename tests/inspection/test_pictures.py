"""Pictures show what they are given: the right token, on one scale for all heads, whatever the number of heads."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from headsweep.inspection.pictures import Samples, _maps, _scale, draw_attention, draw_diversity


def samples(count: int = 1, heads: int = 3, channels: int = 1, tokens: int = 16) -> Samples:
    torch.manual_seed(0)
    weights = torch.rand(count, heads, tokens).softmax(-1)
    guesses = torch.randint(10, (count, heads))
    return Samples(torch.rand(count, channels, 8, 8), torch.arange(count), guesses, guesses[:, 0], weights)


def drawn(draw, *arguments) -> Image.Image:
    file = io.BytesIO()
    draw(*arguments, file)
    return Image.open(file)


@pytest.mark.parametrize(("heads", "channels"), [(1, 1), (3, 3), (2, 4), (20, 1)])
def test_attention_is_a_picture(heads: int, channels: int) -> None:
    picture = drawn(draw_attention, samples(heads=heads, channels=channels), "a run")
    assert picture.format == "PNG" and picture.width < 2500
    assert np.asarray(picture.convert("RGB")).std() > 10


def test_a_map_is_brightest_where_the_token_weighs_most() -> None:
    given = samples(heads=1)
    given.weights.fill_(0.5 / 15)
    given.weights[0, 0, 4 * 1 + 2] = 0.5  # second row, third column of 4 x 4 tokens, each 2 x 2 pixels
    row, column = np.unravel_index(_maps(given)[0, 0].argmax(), (8, 8))
    assert (row // 2, column // 2) == (1, 2)


def test_a_map_of_equal_weights_is_one_everywhere_and_in_the_middle_of_the_colours() -> None:
    given = samples(heads=2, tokens=49)
    given.weights.fill_(1 / 49)
    np.testing.assert_allclose(_maps(given), 1, rtol=1e-6)
    assert float(_scale(given.weights)(1.0)) == pytest.approx(0.5)


@pytest.mark.parametrize("heads", [2, 8, 13])
def test_diversity_is_a_picture(heads: int) -> None:
    matrix = torch.rand(heads, heads).tolist()
    matrix[0][1] = float("nan")
    matrices = {"disagreement": matrix, "kl": matrix, "cka": matrix}
    picture = drawn(draw_diversity, [0.5 + head / 100 for head in range(heads)], 0.6, matrices, "a run")
    assert picture.format == "PNG" and np.asarray(picture.convert("RGB")).std() > 10


def test_the_same_numbers_are_the_same_picture() -> None:
    one, again = (drawn(draw_attention, samples(heads=1), "a run").tobytes() for _ in range(2))
    assert one == again

"""Pictures of a model's heads: attention maps, and how much heads differ.

Letters: s sample images, k heads, n tokens, c channels, h w size.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Matrix = Sequence[Sequence[float]]

MOST_HEADS = 16  # whose attention is drawn; numbers are of all heads
MOST_WRITTEN = 12  # heads up to which values are written into the cells of a matrix
COLORS = "viridis"  # perceptually uniform, and readable with colour vision deficiency
TITLES = {
    "disagreement": "share of images on which\nheads differ",
    "kl": "KL(row's head || column's),\nnats",
    "cka": "linear CKA of\nthe heads' features",
}
SCALES: Mapping[str, float | None] = {"disagreement": 1.0, "cka": 1.0}  # top of the colours; all begin at 0
_LEAST_NATS = 0.1  # least maximum of the divergence's colours: below it, heads predict alike
_LEAST_POINTS = 5.0  # least span of the axis of accuracies
_DPI = 110
_LEAST_RANGE = 1.25  # least range of the colours, as a factor about the mean: smaller differences are noise


@dataclass(frozen=True)
class Samples:
    """Images with the predictions of the heads, on the CPU."""

    images: Tensor  # (s c h w) in [0, 1]
    labels: Tensor  # (s)
    guesses: Tensor  # (s k) class that each head predicts
    together: Tensor  # (s) class that all heads together predict
    weights: Tensor  # (s k n) what each token weighs; the tokens are a square in row order


def draw_attention(samples: Samples, title: str, file: BinaryIO) -> None:
    """Draw a row an image: the image, then for each head the weights of its tokens, a square a token; a PNG.

    All maps have one scale, in multiples of the mean weight 1/N.
    """
    heads = samples.guesses.shape[1]
    drawn = min(heads, MOST_HEADS)
    maps = _maps(samples)[:, :drawn]
    low, high = _limits(maps)
    scale = LogNorm(low, high, clip=True)
    figure = Figure(figsize=(1.2 * max(drawn, 2) + 2.2, 1.38 * len(maps) + 1), dpi=_DPI, layout="compressed")
    left_out = f"; the first {drawn} of {heads} heads" * (drawn < heads)
    _entitle(figure, f"{title}{left_out}\nabove a map: the class that its head predicts")
    axes = figure.subplots(len(maps), drawn + 1, squeeze=False)
    for row, places in enumerate(axes):
        image, label = samples.images[row].permute(1, 2, 0).numpy(), int(samples.labels[row])
        _show(places[0], image, f"true {label}, all {_guess(samples.together[row], label)}")
        for head, place in enumerate(places[1:]):
            colored = place.imshow(maps[row, head], cmap=COLORS, norm=scale, interpolation="nearest")
            heading = f"head {head + 1}\n" if row == 0 else ""
            _name(place, heading + _guess(samples.guesses[row, head], label))
    bar = figure.colorbar(
        colored, ax=axes, fraction=0.04, aspect=30, pad=0.02, format="{x:g}", extend=_beyond(maps, low, high)
    )
    bar.ax.yaxis.set_major_locator(LogLocator(subs=_steps(high / low)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("weight of a token over the mean weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(file, format="png")


def draw_diversity(
    top1: Sequence[float], together: float, matrices: Mapping[str, Matrix], title: str, file: BinaryIO
) -> None:
    """Draw the accuracy of each head and of all together, and a heat map of each of the three matrices; a PNG."""
    side = max(3.2, 0.46 * min(len(top1), MOST_WRITTEN))
    figure = Figure(figsize=(2 * side + 0.6, 2 * side + 0.4), dpi=_DPI, layout="constrained")
    _entitle(figure, title)
    bars, *maps = figure.subplots(2, 2).flat
    _draw_accuracies(bars, top1, together)
    for axes, (name, matrix) in zip(maps, matrices.items(), strict=True):
        axes.set_title(TITLES[name], fontsize=9)
        axes.set_xlabel("head", fontsize=8)
        _draw_matrix(axes, np.array(matrix, dtype=float), SCALES.get(name))
    for axes in (bars, *maps):
        axes.set_ylabel("head", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.savefig(file, format="png")


def _maps(samples: Samples) -> np.ndarray:
    """Return the weights over their mean, as squares of tokens (s k side side)."""
    tokens = samples.weights.shape[2]
    side = math.isqrt(tokens)
    return (samples.weights.unflatten(2, (side, side)) * tokens).numpy()


def _limits(maps: np.ndarray) -> tuple[float, float]:
    """Return the ends of the colours, as factors about the mean: all but the most extreme hundredth lies between."""
    low, high = np.quantile(maps, [0.01, 0.99])
    return max(min(low, 1 / _LEAST_RANGE), 1e-3), max(high, _LEAST_RANGE)


def _beyond(maps: np.ndarray, low: float, high: float) -> str:
    """Return at which ends of the colour bar an arrow stands: where weights lie outside of it."""
    below, above = maps.min() < low, maps.max() > high
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def _steps(span: float) -> tuple[float, ...]:
    """Return which multiples of a power of ten have room beside a colour bar whose ends are a factor `span` apart."""
    return (1, 1.25, 1.5, 2, 3, 5, 8) if span < 10 else (1, 3)


def _entitle(figure: Figure, title: str) -> None:
    """Write a title in lines that the figure has room for: a run's name has hyphens, but no spaces."""
    across = int(13 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(line, across) for line in title.splitlines()), fontsize=9)


def _show(axes: Axes, image: np.ndarray, words: str) -> None:
    axes.imshow(image if image.shape[2] == 3 else image.mean(2), cmap="gray", vmin=0, vmax=1)
    _name(axes, words)


def _name(axes: Axes, words: str) -> None:
    # Without y, Matplotlib looks for ticks above: a third of the drawing time.
    axes.set_title(words, fontsize=7.5, pad=2, y=1)
    axes.set_axis_off()


def _guess(guess: Tensor, label: int) -> str:
    return f"{int(guess)} {'✓' if int(guess) == label else '✗'}"


def _draw_accuracies(axes: Axes, top1: Sequence[float], together: float) -> None:
    axes.plot([100 * share for share in top1], range(len(top1)), "o", color="black")
    axes.set_yticks(*_names(len(top1)))
    axes.axvline(100 * together, color="0.5", linewidth=1.5)
    axes.margins(x=0.15, y=0.5 / len(top1))
    axes.invert_yaxis()
    low, high = axes.get_xlim()
    more = max(_LEAST_POINTS - (high - low), 0) / 2
    axes.set_xlim(max(low - more, -1), min(high + more, 101))  # no share is below 0 or above 100 %
    axes.set_xlabel("top-1 (%)", fontsize=8)
    axes.set_title(f"top-1 of each head\n(line: all together, {100 * together:.2f} %)", fontsize=9)


def _draw_matrix(axes: Axes, matrix: np.ndarray, top: float | None) -> None:
    """Draw the pairs of different heads in colours from 0 to `top`; None is the largest value, in nats."""
    heads = len(matrix)
    between = np.where(np.eye(heads, dtype=bool), np.nan, matrix)
    high = top or max(_LEAST_NATS, np.max(between, where=np.isfinite(between), initial=0))
    shade = axes.imshow(between, cmap=COLORS, vmin=0, vmax=high)
    axes.figure.colorbar(shade, ax=axes, fraction=0.046).ax.tick_params(labelsize=7)
    axes.set_xticks(*_names(heads))
    axes.set_yticks(*_names(heads))
    if heads > MOST_WRITTEN:
        return
    for row, column in np.argwhere(np.isfinite(between)):
        value = between[row, column]
        color = "black" if value > high / 2 else "white"
        text = f"{value:.3g}" if heads <= 6 or value >= 1 else f"{value:.3f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)


def _names(heads: int) -> tuple[Sequence[int], Sequence[str]]:
    """Return positions with room for the number of a head, and the numbers."""
    places = range(0, heads, math.ceil(heads / MOST_WRITTEN))
    return places, [str(head + 1) for head in places]

"""Pictures of what the heads of a model do: where each looks, and how much they differ.

Letters: s sample images, k heads, n tokens, c channels, h w size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Matrix = Sequence[Sequence[float]]

MOST_HEADS = 16  # that attention is drawn of; the numbers are of all
MOST_WRITTEN = 12  # heads up to which the cells of a matrix have room for their values
COLORS = "viridis"  # even in lightness, and the same to those who see fewer colours
TITLES = {
    "disagreement": "share of images on which\nheads differ",
    "kl": "KL(row's head || column's),\nnats",
    "cka": "linear CKA of\nthe heads' features",
}
_DPI = 110
_LEAST_RANGE = 1.25  # of the colours, as a factor about the mean: smaller differences are no pattern


@dataclass(frozen=True)
class Samples:
    """Images with what the heads made of them, on the CPU."""

    images: Tensor  # (s c h w) in [0, 1]
    labels: Tensor  # (s)
    guesses: Tensor  # (s k) class that each head predicts
    together: Tensor  # (s) class that all heads together predict
    weights: Tensor  # (s k n) what each token weighs; the tokens are a square in row order


def draw_attention(samples: Samples, title: str, file: BinaryIO) -> None:
    """A row an image: the image, then for each head what its tokens weigh, over the image in grey; a PNG.

    All maps have one scale, in multiples of the mean weight 1/N.
    """
    heads = samples.guesses.shape[1]
    drawn = min(heads, MOST_HEADS)
    maps, scale = _maps(samples)[:, :drawn], _scale(samples.weights[:, :drawn])
    figure = Figure(figsize=(1.2 * drawn + 2.2, 1.38 * len(maps) + 0.7), dpi=_DPI, layout="compressed")
    figure.suptitle(title + f"; the first {drawn} of {heads} heads" * (drawn < heads), fontsize=9)
    axes = figure.subplots(len(maps), drawn + 1, squeeze=False)
    for row, places in enumerate(axes):
        image, label = samples.images[row].permute(1, 2, 0).numpy(), int(samples.labels[row])
        _show(places[0], image, f"class {label}, all {_guess(samples.together[row], label)}")
        for head, place in enumerate(places[1:]):
            heading = f"head {head + 1}\n" if row == 0 else ""
            _show(
                place, 0.35 + 0.5 * image.mean(-1, keepdims=True), heading + _guess(samples.guesses[row, head], label)
            )
            colored = place.imshow(maps[row, head], cmap=COLORS, norm=scale, alpha=0.6)
    bar = figure.colorbar(colored, ax=axes, fraction=0.04, aspect=30, pad=0.02, format="{x:g}")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.25, 1.5, 2, 3, 5, 8)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("weight of a token over the mean weight", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(file, format="png")


def draw_diversity(
    top1: Sequence[float], together: float, matrices: Mapping[str, Matrix], title: str, file: BinaryIO
) -> None:
    """The accuracy of each head beside that of all together, then a heat map for each of the matrices; a PNG."""
    side = max(3.2, 0.46 * min(len(top1), MOST_WRITTEN))
    figure = Figure(figsize=(side * (1 + len(matrices)), side + 0.4), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=9)
    bars, *maps = figure.subplots(1, 1 + len(matrices))
    _draw_accuracies(bars, top1, together)
    for axes, (name, matrix) in zip(maps, matrices.items(), strict=True):
        axes.set_title(TITLES[name], fontsize=9)
        _draw_matrix(axes, np.array(matrix, dtype=float))
    for axes in (bars, *maps):
        axes.set_ylabel("head", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.savefig(file, format="png")


def _maps(samples: Samples) -> np.ndarray:
    """(s k h w): weights over their mean, between the tokens' centres in straight lines."""
    tokens = samples.weights.shape[2]
    side = math.isqrt(tokens)
    grids = samples.weights.unflatten(2, (side, side)) * tokens
    return F.interpolate(grids, samples.images.shape[2:], mode="bilinear", align_corners=False).numpy()


def _scale(weights: Tensor) -> LogNorm:
    """Colours for all but the most extreme hundredth of the weights, as factors about the mean."""
    relative = (weights * weights.shape[2]).flatten().numpy()
    low, high = np.quantile(relative, [0.01, 0.99])
    return LogNorm(max(min(low, 1 / _LEAST_RANGE), 1e-3), max(high, _LEAST_RANGE), clip=True)


def _show(axes: Axes, image: np.ndarray, words: str) -> None:
    axes.imshow(image if image.shape[2] == 3 else image.mean(2), cmap="gray", vmin=0, vmax=1)
    axes.set_title(words, fontsize=7.5, pad=2)
    axes.set_axis_off()


def _guess(guess: Tensor, label: int) -> str:
    return f"{int(guess)} {'✓' if int(guess) == label else '✗'}"


def _draw_accuracies(axes: Axes, top1: Sequence[float], together: float) -> None:
    axes.plot([100 * share for share in top1], range(len(top1)), "o", color="black")
    axes.set_yticks(*_names(len(top1)))
    axes.axvline(100 * together, color="0.5", linewidth=1.5)
    axes.margins(x=0.15, y=0.5 / len(top1))
    axes.invert_yaxis()
    axes.set_title(f"top-1 % of each head\n(line: all together, {100 * together:.2f})", fontsize=9)


def _draw_matrix(axes: Axes, matrix: np.ndarray) -> None:
    """A head has no colour beside itself: the differences between heads would be lost beside it."""
    heads = len(matrix)
    between = np.where(np.eye(heads, dtype=bool), np.nan, matrix)
    known = between[np.isfinite(between)]
    low, high = (known.min(), known.max()) if len(known) else (0, 0)
    shade = axes.imshow(between, cmap=COLORS, vmin=low, vmax=high if high > low else low + 1)
    axes.figure.colorbar(shade, ax=axes, fraction=0.046).ax.tick_params(labelsize=7)
    axes.set_xticks(*_names(heads))
    axes.set_yticks(*_names(heads))
    if heads > MOST_WRITTEN:
        return
    for row, column in np.argwhere(np.isfinite(between)):
        value = between[row, column]
        color = "black" if value > (low + high) / 2 else "white"
        text = f"{value:.3g}" if heads <= 6 else f"{value:.2g}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)


def _names(heads: int) -> tuple[Sequence[int], Sequence[str]]:
    """Where there is room for a head's number, and the numbers."""
    places = range(0, heads, math.ceil(heads / MOST_WRITTEN))
    return places, [str(head + 1) for head in places]

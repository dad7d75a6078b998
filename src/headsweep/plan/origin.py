"""Where in its study a run comes from, for the listing of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headsweep.config.study.axes import shown
from headsweep.config.study.points import Point, Words

Origin = dict[str, list[str]]  # part of the study -> what of it the run has


def origin_of(points: Sequence[Point], blocks: int) -> Origin:
    """Return where the cells of one run come from: variant, conditional and zipped axes, tuned values, blocks.

    Args:
        points: those cells; more than one where blocks of a union overlap.
        blocks: of the union.
    """
    found: Origin = {}
    for point in points:
        for part, text in _parts(point, blocks):
            if text not in found.setdefault(part, []):
                found[part].append(text)
    return found


def _parts(point: Point, blocks: int) -> Iterator[tuple[str, str]]:
    if point.variant is not None:
        yield "variant", point.variant
    for condition, words in point.conditional:
        yield "conditional", f"{_shown(words)} ({condition})"
    if point.zipped:
        yield "zipped", _shown(point.zipped)
    if point.tuned:
        yield "tune", _shown(point.tuned)
    if blocks > 1:
        yield "union", str(point.block)


def _shown(words: Words) -> str:
    return " ".join(map(shown, words))


def described(origin: Origin) -> str:
    """Return an origin in one line."""
    return "; ".join(f"{part} {', '.join(texts)}" for part, texts in origin.items())

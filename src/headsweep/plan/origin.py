"""Where in its study a run comes from, for the listing of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headsweep.config.points import Point

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
        yield "conditional", f"{' '.join(words)} ({condition})"
    if point.zipped:
        yield "zipped", " ".join(point.zipped)
    if point.tuned:
        yield "tune", " ".join(point.tuned)
    if blocks > 1:
        yield "union", str(point.block)


def described(origin: Origin) -> str:
    """Return an origin in one line."""
    return "; ".join(f"{part} {', '.join(texts)}" for part, texts in origin.items())

"""A study of nine cells, and the page of any runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from made import run, table_of
from matplotlib.figure import Figure as Canvas

from headsweep.report.html import document
from headsweep.report.html.origin import Origin
from headsweep.report.read.cells import Run
from undrawn import draw as draw_nothing

PILOT = Origin("pilot")


@contextmanager
def drawing_as_svg() -> Iterator[None]:
    """Draw no PDF, for tests of what a page shows: choosing the glyphs of its fonts takes most of a drawing's time."""
    save = Canvas.savefig

    def save_svg(canvas: Canvas, file: IO[str], format: str, metadata: dict[str, None]) -> None:
        if format == "svg":
            save(canvas, file, format=format, metadata=metadata)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Canvas, "savefig", save_svg)
        yield


@pytest.fixture
def write_page(tmp_path) -> Callable[..., str]:
    """Write the page of some runs below `tmp_path` and read it."""

    def write(runs: Sequence[Run], origin: Origin = PILOT, **question) -> str:
        document.write(table_of(runs, **question), origin, "headsweep report pilot", tmp_path)
        return (tmp_path / document.PAGE).read_text()

    return write


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figure, for tests of a page's text."""
    monkeypatch.setattr(document, "draw", draw_nothing)


@pytest.fixture
def as_svg() -> Iterator[None]:
    """Draw as `drawing_as_svg`."""
    with drawing_as_svg():
        yield


@pytest.fixture(scope="session")
def study() -> list[Run]:
    """Three heads, three counts, three seeds; all seeds have the same difference between ga and seqpool."""
    noise = {"seqattn": (0.001, -0.001, 0.0)}
    return [
        run(head, heads, seed, top1 + 0.01 * math.log2(heads) + 0.002 * seed + noise.get(head, (0, 0, 0))[seed])
        for head, top1 in (("seqpool", 0.90), ("ga", 0.93), ("seqattn", 0.91))
        for heads in (1, 4, 8)
        for seed in (0, 1, 2)
    ]


@pytest.fixture(scope="session")
def study_file(study: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the study."""
    folder = tmp_path_factory.mktemp("report")
    with drawing_as_svg():
        document.write(table_of(study), PILOT, "headsweep report pilot", folder)
    return folder / document.PAGE


@pytest.fixture(scope="session")
def study_page(study_file: Path) -> str:
    """Its text."""
    return study_file.read_text()

"""Which targets are met? A table from the result files of a folder.

    python benchmarks/results.py [benchmarks/results]

Of each target that the benchmarks of a GPU or of a CPU can speak of: what is wanted, what was measured, whether it is
met; "open" where there is no figure. Exit code 2: a file is broken, which is said; the other files are looked at.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsweep.errors import UserError
from measuring import ratio
from reading import read

RESULTS = Path(__file__).resolve().parent / "results"
EPOCHS, IMAGES = 300, 50_000  # of the paper's run
MOST_RUNS = 3  # on one GPU
Files = dict[str, dict[str, Any]]  # the content of NAME.json by NAME


@dataclass(frozen=True)
class Target:
    """A figure and its bound; `figure` raises KeyError, or another LookupError, where there is none."""

    name: str
    figure: Callable[[Files], float]
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def line(self, files: Files) -> tuple[str, ...]:
        """Target, what is wanted, what was measured, whether it is met."""
        bound = f">= {self.least:,g}" if self.least is not None else f"<= {self.most:,g}"
        try:
            got = self.figure(files)
        except LookupError:
            return self.name, bound + self.unit, "-", "open"
        met = got >= self.least if self.least is not None else got <= (self.most or 0)
        return self.name, bound + self.unit, f"{_short(got)}{self.unit}", "yes" if met else "NO"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def row_of(files: Files, file: str, row: str) -> dict[str, Any]:
    """The first row of that name."""
    for found in files[file]["rows"]:
        if found["name"] == row:
            return found
    raise KeyError(row)


def faster(file: str, row: str, than: str, side: str) -> Callable[[Files], float]:
    """How many times faster a side is than another one."""

    def figure(files: Files) -> float:
        found = row_of(files, file, row)["samples"]
        return ratio(found[than], found[side]).median

    return figure


def pace(row: str, side: str) -> Callable[[Files], float]:
    """Images per second of a side of a step."""

    def figure(files: Files) -> float:
        found = row_of(files, "step", row)
        return found["images"] / statistics.median(found["samples"][side]) * 1e3

    return figure


def memory(cell: str) -> Callable[[Files], float]:
    """Of a cell beside seqpool's."""

    def figure(files: Files) -> float:
        found = row_of(files, "step", "heads")["peak_gib"]
        return found[cell] / found["seqpool1"]

    return figure


def augmentation(files: Files) -> float:
    """Percent of a step that making its batch would take."""
    made, step = row_of(files, "data", "ours / timm"), row_of(files, "step", "seqpool1")
    per_image = statistics.median(made["samples"]["ours"]) / made["images"]
    return 100 * per_image * step["images"] / statistics.median(step["samples"]["step"])


def whole(side: str) -> Callable[[Files], float]:
    """Images per second of a path, batches and all."""
    return lambda files: statistics.median(row_of(files, "upstream", "plain / ours")["images_per_second"][side])


def packed(files: Files) -> float:
    """Images per second of up to three runs together."""
    by_count = row_of(files, "packing", "together")["samples"]
    return max(statistics.median(speeds) for count, speeds in by_count.items() if int(count.split()[0]) <= MOST_RUNS)


GPU = (
    Target("step, seqpool K=1", pace("seqpool1", "step"), least=20_000, unit=" images/s"),
    Target("step, seqpool K=1, the goal", pace("seqpool1", "step"), least=32_000, unit=" images/s"),
    Target("step of seqattn K=8 / seqpool's", faster("step", "heads", "seqattn8", "seqpool1"), most=1.03),
    Target("step of ga K=8 / seqpool's", faster("step", "heads", "ga8", "seqpool1"), most=1.05),
    Target("step of seqattn K=8 / K=1", faster("step", "heads", "seqattn8", "seqattn1"), most=1.02),
    Target("step of ga K=8 / K=1", faster("step", "heads", "ga8", "ga1"), most=1.02),
    Target("memory of seqattn K=8 / seqpool's", memory("seqattn8"), most=1.10),
    Target("memory of ga K=8 / seqpool's", memory("ga8"), most=1.10),
    Target("making a batch, of a step", augmentation, most=5, unit=" %"),
    Target("run, seqattn K=8, paper's augmentation", whole("ours"), least=20_000, unit=" images/s"),
    Target(
        "the same / upstream's pipeline and eager step",
        lambda files: whole("ours")(files) / whole("plain")(files),
        least=4,
    ),
    Target(
        "loader at 224 pixels, ours / timm's", faster("streaming", "ours / timm, RandAugment", "timm", "ours"), least=1
    ),
    Target(
        "what it feeds / what cct_14_7x2 consumes", faster("streaming", "fed / consumed", "consumed", "fed"), least=1
    ),
    Target("up to three runs together", packed, least=36_000, unit=" images/s"),
    Target(
        f"{EPOCHS} epochs of {IMAGES:,} images at that speed, without evaluation",
        lambda files: EPOCHS * IMAGES / whole("ours")(files) / 60,
        most=9,
        unit=" min",
    ),
)
CPU = (
    Target("seqattn K=8, loop / stacked", faster("heads", "seqattn K=8", "loop", "stacked"), least=8),
    Target("ga K=8, loop / stacked", faster("heads", "ga K=8", "loop", "stacked"), least=4),
    Target("step of seqattn K=8, plain / ours", faster("step", "seqattn8", "plain", "off"), least=1.1),
    Target("step of ga K=8, plain / ours", faster("step", "ga8", "plain", "off"), least=1.1),
    Target("augmentation on one core, ours / timm", faster("data", "ours / timm", "timm", "ours"), least=5),
)


def main(words: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, nargs="?", default=RESULTS, help="of files that benchmarks wrote")
    folder = made.parse_args(words).folder
    if not folder.is_dir():
        made.error(f"{folder}: no folder; want one with files that benchmarks wrote, e.g. by make bench")
    return show(folder)


def show(folder: Path, targets: Sequence[Target] = ()) -> int:
    """Print the table, of a GPU's targets or a CPU's as the files are, if none are given; the exit code."""
    files, broken = read_all(folder)
    targets = targets or (GPU if any(content["machine"].get("gpu") for content in files.values()) else CPU)
    lines = [("target", "wanted", "measured", "met"), *(target.line(files) for target in targets)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for reason in broken:
        print(f"targets.py: {reason}", file=sys.stderr)
    return 2 if broken else 0


def read_all(folder: Path) -> tuple[Files, list[str]]:
    """The files of a folder, and what is wrong with those that are broken."""
    files, broken = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            files[path.stem] = read(path)
        except UserError as error:
            broken.append(str(error))
    return files, broken


if __name__ == "__main__":
    sys.exit(main())

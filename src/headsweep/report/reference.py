"""What each cell is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.errors import UserError
from headsweep.report.results import Cell

Baseline = Mapping[str, str]  # dotted key -> value


def references(cells: Sequence[Cell], axes: Sequence[str], baseline: Baseline) -> list[Cell | None]:
    """For each cell the one that has the baseline's values and otherwise agrees with it; None where there is none.

    Options of a head are no part of that agreement: they follow from the head. Of several candidates the first counts.

    Args:
        cells: in the order of the plan.
        axes: the keys beside head and heads that tell cells apart.
        baseline: what the reference is; empty means the head of the first cell, at the same number of heads.

    Raises:
        UserError: no cell has the baseline's values.
    """
    wanted = {_key(key): value for key, value in (baseline or {"head": cells[0].head}).items()}
    shared = [key for key in ("heads", *axes) if key not in wanted and not key.startswith("head.")]
    candidates = [cell for cell in cells if all(_text(cell, key) == value for key, value in wanted.items())]
    if not candidates:
        raise UserError(_unknown(cells, wanted))
    known: dict[tuple[str, ...], Cell] = {}
    for cell in candidates:
        known.setdefault(_place(cell, shared), cell)
    return [known.get(_place(cell, shared)) for cell in cells]


def parse_baseline(words: Sequence[str]) -> Baseline:
    """From `head=seqpool`, several of them in one word with commas or in several words.

    Raises:
        UserError: a part is no key=value.
    """
    pairs = [part.partition("=") for word in words for part in word.replace(" ", ",").split(",") if part]
    if words and not pairs:
        raise UserError("--baseline '': want key=value, e.g. --baseline head=seqpool")
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise UserError(f"--baseline {key}{sign}{value}: want key=value, e.g. --baseline head=seqpool")
    return {key: value for key, _, value in pairs}


def _key(key: str) -> str:
    return "head.name" if key == "head" else key


def _text(cell: Cell, key: str) -> str:
    return str(cell.value(key))


def _place(cell: Cell, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_text(cell, key) for key in keys)


def _unknown(cells: Sequence[Cell], wanted: Baseline) -> str:
    given = ", ".join(
        f"{key.removesuffix('.name') if key == 'head.name' else key}={value}" for key, value in wanted.items()
    )
    for key, value in wanted.items():
        known = dict.fromkeys(_text(cell, key) for cell in cells)
        if value not in known:
            return f"--baseline {given}: no cell has {key}={value}; known: {', '.join(known)}"
    return f"--baseline {given}: no cell has all of these values; want those of one cell"

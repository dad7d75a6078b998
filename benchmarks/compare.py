"""What has changed between two result files of one benchmark?

    python benchmarks/compare.py BEFORE.json AFTER.json [--tolerance 0.05] [--anyway]

Of a row with several sides, the ratio of the first side to each other within the rounds is compared: a machine that was
slower on the second day cancels. Of a row with one side its median is. Above 1 is better afterwards; the range is that
of the rounds of the one against the median of the other, the wider of both ways. `*` marks what differs by more than
the sides of the files' A/A pairs do in their median round. Exit code 1: something marked is worse by more than the
tolerance. 2: the files cannot be compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from headsweep.errors import UserError
from measuring import AA, Ratio, not_negative, ratio
from reading import read

SAME = ("processor", "cores", "gpu", "threads")
TOLD = ("torch", "python", "mps")  # they may be what is compared
MORE_IS_BETTER = ("images/s", "share")  # units; of all others, less is
Figures = dict[tuple[str, str], Ratio]


class Change(NamedTuple):
    """Of one figure; above 1 is better afterwards."""

    what: str
    by: Ratio
    marked: bool


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(words)
    try:
        before, after = read(args.before), read(args.after)
    except UserError as error:
        refuse(str(error))
    if not args.anyway and (reason := different(before, after)):
        refuse(f"{args.before}, {args.after}: {reason}; want two of the same, or --anyway")
    noise = max(spread(before), spread(after))
    found = list(changes(before, after, noise))
    if not found:
        refuse(f"{args.before}, {args.after}: no row that both have; want two of the same rows")
    told = "".join(f"; {line}" for line in unequal(before["machine"], after["machine"], TOLD))
    print(f"{before['benchmark']}: {before['date']} -> {after['date']}; A/A pairs differ by {noise:.2f}{told}")
    worse = False
    for change in found:
        bad = change.marked and change.by.median < 1 - args.tolerance
        worse |= bad
        print(f"{'*' if change.marked else ' '} {change.what:32} {change.by}{'  WORSE' if bad else ''}")
    return int(worse)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("before", type=Path)
    made.add_argument("after", type=Path)
    made.add_argument("--tolerance", type=not_negative, default=0.05, help="how much worse is no regression")
    made.add_argument(
        "--anyway", action="store_true", help="compare other benchmarks', machines' or settings' files, too"
    )
    return made.parse_args(words)


def refuse(reason: str) -> NoReturn:
    print(f"compare.py: {reason}", file=sys.stderr)
    raise SystemExit(2)


def different(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What keeps the two from being compared."""
    if before["benchmark"] != after["benchmark"]:
        return f"one is of {before['benchmark']}, the other of {after['benchmark']}"
    if found := unequal(before["machine"], after["machine"], SAME):
        return f"they are of different machines ({'; '.join(found)})"
    one, other = before["settings"], after["settings"]
    if found := unequal(one, other, {**one, **other}):
        return f"they are of different settings ({'; '.join(found)})"
    return ""


def unequal(one: Mapping[str, Any], other: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """What the two have under the keys in which they differ."""
    return [f"{key}: {one.get(key)}, {other.get(key)}" for key in keys if one.get(key) != other.get(key)]


def spread(content: dict[str, Any]) -> float:
    """The factor by which the two sides of an A/A pair differ in the median round; 1 where there is no such pair."""
    noise = 1.0
    for row in content["rows"]:
        if row["name"] == AA:
            one, other, *_ = row["samples"].values()
            noise = max(noise, statistics.median(max(a / b, b / a) for a, b in zip(one, other, strict=True)))
    return noise


def figures_of(content: dict[str, Any]) -> Figures:
    """By row and side: how much better the side is than the row's first one, or, of a single side, how good."""
    found: Figures = {}
    for row in content["rows"]:
        first, *others = row["samples"]
        more = row["unit"] in MORE_IS_BETTER
        for side in others:
            pair = row["samples"][first], row["samples"][side]
            found.setdefault((row["name"], side), ratio(*(reversed(pair) if more else pair)))
        if not others:
            values = sorted(value if more else 1 / value for value in row["samples"][first])
            found[row["name"], first] = Ratio(statistics.median(values), values[0], values[-1])
    return found


def changes(before: dict[str, Any], after: dict[str, Any], noise: float) -> Iterator[Change]:
    """Of what both files have, in the order of the second."""
    earlier = figures_of(before)
    for (name, side), now in figures_of(after).items():
        if name == AA or (name, side) not in earlier:
            continue
        then = earlier[name, side]
        by = Ratio(
            now.median / then.median,
            min(now.low / then.median, now.median / then.high),
            max(now.high / then.median, now.median / then.low),
        )
        yield Change(f"{name}: {side}", by, max(by.median, 1 / by.median) > noise)


if __name__ == "__main__":
    sys.exit(main())

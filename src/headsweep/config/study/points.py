"""The points of a grid: the overrides of each cell, and where in the study they come from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from headsweep.config.composition import composing, one_line
from headsweep.config.keys import has_trait
from headsweep.config.study.axes import MOST_CELLS, Axis, check_repeated, key_of, name_of, read_axis
from headsweep.config.study.language import Axes, Block, Study
from headsweep.config.study_keys import CONDITIONAL, SWEEPER
from headsweep.config.traits import DATA
from headsweep.config.values import read_conditions
from headsweep.errors import ConfigError, UserError

Words = tuple[str, ...]  # overrides

_COMPARED = ("head", "heads", "seed")  # keys in which arms and their runs differ, beside the sections model and dataset


@dataclass(frozen=True)
class Point:
    """A cell of a grid before it is composed."""

    axes: Words  # all overrides but those of its variant
    variant: str | None = None
    changes: Words = ()  # overrides of the variant
    tuned: Words = ()  # those in `axes` of tuned axes
    zipped: Words = ()  # those in `axes` of zipped axes
    conditional: tuple[tuple[str, Words], ...] = ()  # conditions that hold, and those in `axes` that they add
    block: int = 0  # of a union
    # Its place in the grid: in the axes before variants, where conditional axes are added, and in what varies faster.
    place: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @cached_property
    def overrides(self) -> Words:
        """All overrides; those of a variant take the place of a value that the command line gives for every cell."""
        changed = {key_of(word) for word in self.changes}
        return (*(word for word in self.axes if key_of(word) not in changed), *self.changes)


@dataclass(frozen=True)
class Condition:
    """A condition of a block, and what it adds to each point in which it holds."""

    text: str
    alternatives: Sequence[Words]
    is_narrowed: bool  # the command line gives one of its keys, so that it may hold nowhere


@dataclass(frozen=True)
class Points:
    """The points of a study, before its conditional axes are added to them."""

    study: Study
    points: Sequence[Point]
    conditions: Sequence[Sequence[Condition]]  # of each block


def plain_points(cells: Sequence[Sequence[str]]) -> Points:
    """Return the points of cells that are given by their overrides."""
    return Points(Study(), [Point(tuple(cell)) for cell in cells], [()])


def points(study: Study, arguments: Sequence[str], loader: ConfigLoader | None = None) -> Points:
    """Return the points of a study, where axes of the command line replace those of the study.

    Such an axis stands where the study's axis of the same key does: among zipped, tuned, conditional or plain axes.

    Raises:
        UserError: an override cannot be read, Hydra would expand it to other values or drop one of two for the same
            key, axes contradict each other, or there are more than `MOST_CELLS`.
    """
    with composing([*study.axes(), *arguments]):
        reader = _Reader(OverridesParser.create(config_loader=loader), arguments)
        reader.check_tuned(study.tune)
        products = [_product(block, study.tune, reader) for block in study.blocks]
        check_number(sum(product.size for product in products), [axis for it in products for axis in it.axes])
        found = [point for at, product in enumerate(products) for point in product.points(at)]
        return Points(study, found, [product.conditions for product in products])


def check_number(cells: int, axes: Sequence[Axis] = ()) -> None:
    """Raise UserError for more than `MOST_CELLS`; the message has the number of values of `axes`."""
    if cells <= MOST_CELLS:
        return
    counts = {it.key: "more" if len(it.words) > MOST_CELLS else len(it.words) for it in axes if len(it.words) > 1}
    values = ", ".join(f"{key}: {count}" for key, count in counts.items())
    found = "found more" + f" (values of {values})" * bool(values)
    raise UserError(f"expected a grid of at most {MOST_CELLS} cells, {found}")


class _Reader:
    """Reads the axes of a study, and puts those of the command line in their places."""

    def __init__(self, parser: OverridesParser, arguments: Sequence[str]) -> None:
        self._parser = parser
        given = parser.parse_overrides(list(arguments))
        check_repeated(given)
        self.given = {axis.key: axis for axis in map(read_axis, given)}

    def axes(self, axes: Axes, is_conditional: bool = False) -> list[Axis]:
        """Return axes, each as the command line has it if that gives its key.

        A single value on the command line is for every cell, so that a conditional axis of its key is left out.
        """
        own = self._own(axes)
        found = [self.given.get(axis.key, axis) for axis in own]
        return [axis for axis in found if axis.is_sweep or axis in own or not is_conditional]

    def check_tuned(self, axes: Axes) -> None:
        """Raise ConfigError for an axis of a study that cannot be tuned; the command line may narrow one to a value."""
        for axis, given in zip(self._own(axes), axes.values(), strict=True):
            key, values = f"{SWEEPER}.tune", f"{axis.key}: {given}"
            if not _is_tunable(axis.name):
                expected = "expected a hyper-parameter, found what a study compares, its data or its seeds"
                raise ConfigError(key, values, f"{expected}; move it to {SWEEPER}.params")
            if len(set(axis.words)) == 1:
                raise ConfigError(key, values, f"expected two or more values; for one give {axis.words[0]} instead")

    def _own(self, axes: Axes) -> list[Axis]:
        """Return axes with the values that the study gives."""
        return list(map(read_axis, self._parser.parse_overrides([f"{key}={values}" for key, values in axes.items()])))

    def change(self, text: str, key: str) -> Axis:
        """Return an override of a variant. Raises ConfigError with `key` if it is not one value of a run's key."""
        try:
            (axis,) = map(read_axis, self._parser.parse_overrides([text]))
        except HydraException as error:
            raise ConfigError(key, None, one_line(error)) from error
        if axis.is_sweep:
            raise ConfigError(key, text, "expected one value, found several; give a variant for each")
        if axis.name == "seed" or axis.name.startswith("hydra"):
            raise ConfigError(key, text, "expected a key in which variants can differ; leave it out")
        return axis

    def gives(self, condition: str) -> bool:
        """Return whether the command line gives a key of a condition. Raises ConfigError if that cannot be read."""
        try:
            keys = {name_of(it.key) for it in read_conditions(condition)}
        except ValueError as error:
            raise ConfigError(CONDITIONAL, condition, str(error)) from error
        return not keys.isdisjoint(axis.name for axis in self.given.values())


def _is_tunable(name: str) -> bool:
    section = name.partition(".")[0]
    return name not in _COMPARED and section not in ("model", "dataset", "hydra") and not has_trait(name, DATA)


@dataclass(frozen=True)
class _Factor:
    """What a point has one of: a value of an axis, values of zipped axes, a variant."""

    alternatives: Sequence[Words]
    kind: str = "plain"  # plain, zipped, tuned or variant
    names: Sequence[str | None] = ()  # of the variants


@dataclass(frozen=True)
class _Product:
    """The product of one block."""

    factors: Sequence[_Factor]
    slow: int  # as many of them come before variants and conditional axes
    axes: Sequence[Axis]
    conditions: Sequence[Condition]

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(len(factor.alternatives) for factor in self.factors)

    def points(self, block: int) -> Iterator[Point]:
        """Yield the points, the last factor varying fastest."""
        numbered = [[(factor, at) for at in range(len(factor.alternatives))] for factor in self.factors]
        for chosen in itertools.product(*numbered):
            words: dict[str, list[str]] = {"plain": [], "zipped": [], "tuned": [], "variant": []}
            axes: list[str] = []
            variant = None
            for factor, at in chosen:
                words[factor.kind] += factor.alternatives[at]
                if factor.kind == "variant":
                    variant = factor.names[at]
                else:
                    axes += factor.alternatives[at]
            of = {kind: tuple(found) for kind, found in words.items()}
            places = tuple(at for _, at in chosen)
            place = places[: self.slow], places[self.slow :]
            yield Point(tuple(axes), variant, of["variant"], of["tuned"], of["zipped"], (), block, place)


def _product(block: Block, tune: Axes, reader: _Reader) -> _Product:
    """Return the product of a block. Raises UserError if its axes contradict each other."""
    plain, tuned = reader.axes(block.params), reader.axes(tune)
    zipped = [reader.axes(group) for group in block.zipped]
    conditional = [reader.axes(it.axes, is_conditional=True) for it in block.conditional]
    placed = {axis.key for axis in itertools.chain(plain, tuned, *zipped, *conditional)}
    others = [axis for key, axis in reader.given.items() if key not in placed]
    places = {"params": plain, "tune": tuned, "conditional": list(itertools.chain(*conditional))}
    places |= {f"zipped[{at}]": group for at, group in enumerate(zipped)}
    places["the command line"] = [axis for axis in others if axis.is_sweep]
    _check_places(places)
    # Cells that are compared stand together: variants and tuned values vary fastest, but for the seeds.
    seeds = next((at for at, axis in enumerate(others) if axis.key == "seed"), len(others))
    factors = [_plain(axis) for axis in plain]
    factors += [_Factor(_zip(group), "zipped") for group in zipped]
    factors += [_plain(axis) for axis in others[:seeds]]
    slow = len(factors)
    factors += _variants(block, places, reader)
    factors += [_Factor([(word,) for word in axis.words], "tuned") for axis in tuned]
    factors += [_plain(axis) for axis in others[seeds:]]
    conditions = [
        Condition(it.condition, list(itertools.product(*(axis.words for axis in axes))), reader.gives(it.condition))
        for it, axes in zip(block.conditional, conditional, strict=True)
    ]
    return _Product(factors, slow, [*plain, *tuned, *itertools.chain(*zipped), *others], conditions)


def _plain(axis: Axis) -> _Factor:
    return _Factor([(word,) for word in axis.words])


def _check_places(places: Mapping[str, Sequence[Axis]]) -> None:
    """Raise ConfigError if a key is an axis in two places of a study."""
    earlier: dict[str, str] = {}
    for place, axes in places.items():
        for name in dict.fromkeys(axis.name for axis in axes):
            if (before := earlier.setdefault(name, place)) != place:
                raise ConfigError(name, None, f"expected one axis of a key, found it in {before} and {place}")


def _zip(group: Sequence[Axis]) -> list[Words]:
    """Return the values of zipped axes together. Raises ConfigError if they are of unequal length."""
    if len({len(axis.words) for axis in group}) > 1:
        counts = ", ".join(f"{axis.key}: {len(axis.words)}" for axis in group)
        keys = ",".join(axis.key for axis in group)
        raise ConfigError(f"{SWEEPER}.zipped", keys, f"expected as many values of each, found {counts}")
    return list(zip(*(axis.words for axis in group), strict=True))


def _variants(block: Block, places: Mapping[str, Sequence[Axis]], reader: _Reader) -> list[_Factor]:
    """Return the variants of a block as a factor; none if it has no variants."""
    swept = {axis.name: place for place, axes in places.items() for axis in axes}
    found = {}
    for name, texts in block.variants.items():
        key = f"{SWEEPER}.variants.{name}"
        changes = [reader.change(text, key) for text in texts]
        for change, text in zip(changes, texts, strict=True):
            if change.name in swept:
                place = swept[change.name]
                raise ConfigError(key, text, f"expected a key without an axis, found one in {place}; leave one out")
        if len({change.name for change in changes}) < len(changes):
            raise ConfigError(key, f"[{', '.join(texts)}]", "expected each key once; leave one out")
        found[name] = tuple(change.words[0] for change in changes)
    return [_Factor(list(found.values()), "variant", list(found))] * bool(found)

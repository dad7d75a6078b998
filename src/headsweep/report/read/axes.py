"""Find the axes of a table: the keys whose values distinguish its cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headsweep.config.keys import has_trait
from headsweep.config.traits import RESULT
from headsweep.config.values import canonical
from headsweep.report.read.cells import VARIANT, Cell


def varying_axes(cells: Sequence[Cell], given: Sequence[str] = (), by_variants: Sequence[str] = ()) -> list[str]:
    """Return the keys beside head and heads whose values distinguish the cells: `given` first, then those that differ.

    Where two cells agree in all recorded parameters, the keys of the whole configuration decide. The keys `by_variants`
    are set by variants, whose names take their place.
    """
    names = (VARIANT,) * any(cell.variant is not None for cell in cells)
    axes = [axis for axis in dict.fromkeys((*names, *given)) if axis not in ("head", "head.name", "heads", "seed")]
    known = {group_of(axis) for axis in axes}  # `--rows model` is the axis model.name
    parameters = [key for cell in cells for key in cell.record.parameters if not is_set_by(key, by_variants)]
    axes += [key for key in dict.fromkeys(parameters) if group_of(key) not in known and _distinguishes(key, cells)]
    for alike in _indistinguishable(cells, axes):
        keys = [key for cell in alike for key in (*cell.record.parameters, *_flat(cell.record.config))]
        axes += [key for key in dict.fromkeys(keys) if key not in axes and _distinguishes(key, alike)]
    return axes


def group_of(key: str) -> str:
    """Return `model` for both `model` and `model.name`, which are the same axis; any other key is itself."""
    return key.removesuffix(".name")


def is_set_by(key: str, by_variants: Sequence[str]) -> bool:
    """Return whether variants set `key` or choose its section."""
    groups = set(map(group_of, by_variants))
    return group_of(key) in groups or any(key.startswith(f"{group}.") for group in groups)


def _distinguishes(key: str, cells: Sequence[Cell]) -> bool:
    """Return whether `key` differs between cells that have the same section, such as the same head."""
    if key in ("head", "head.name", "heads", "seed"):
        return False
    section = key.rpartition(".")[0]
    by_section: dict[object, set[str]] = {}
    for cell in cells:
        name = cell.value(section) if section and not key.endswith(".name") else None
        by_section.setdefault(canonical(name), set()).add(canonical(cell.value(key)))
    return any(len(values) > 1 for values in by_section.values())


def _indistinguishable(cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[list[Cell]]:
    by_values: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        values = (cell.head, str(cell.heads), *(canonical(cell.value(axis)) for axis in axes))
        by_values.setdefault(values, []).append(cell)
    return (alike for alike in by_values.values() if len(alike) > 1)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys, but for the seed, that a run's result depends on."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif prefix + key != "seed" and has_trait(prefix + key, RESULT):
            yield prefix + key

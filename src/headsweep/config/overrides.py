"""Configurations spelled as the overrides that compose them again: the shortest command, and the grid of several."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headsweep.config.grid import Compose, Grid
from headsweep.config.parsing import PROJECT_ROOT, typed
from headsweep.config.schema import RunConfig

Spelling = dict[str, str]  # key of an override -> its value, as Hydra reads it

_CONF = PROJECT_ROOT / "conf"
_GROUPS = ("model", "head", "dataset", "augmentation", "optimizer", "schedule", "tracking", "debug")
_FILLED_IN = ("dataset.num_classes", "dataset.digest", "model.checkpoint_digest")  # by the plan, from data and files
_PLAIN = re.compile(r"[A-Za-z_/.][\w/.:+-]*")
_NOT_TEXT = {"null", "none", "true", "false", "nan", "inf", "yes", "no", "on", "off"}


class Speller:
    """Finds the overrides of configurations; `compose` gives the configuration of a list of overrides."""

    def __init__(self, compose: Compose) -> None:
        self._compose, self.grid = compose, Grid(compose)
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def spell(self, runs: Sequence[RunConfig]) -> list[Spelling]:
        """The overrides of each run. A key that one of them needs is said of all that have it, so that it is an axis.

        Head, heads and seed are always said, and what the plan fills in from the data never.
        """
        values = [_flat(run) for run in runs]
        choices = [self._choices(value) for value in values]
        groups = [g for g in _GROUPS if any(choice[g] != self._defaults[g] for choice in choices)]
        bases = [self._base(choice, value) for choice, value in zip(choices, values, strict=True)]
        differing = {
            key
            for value, base in zip(values, bases, strict=True)
            for key in value
            if key not in _FILLED_IN and value[key] != base.get(key)
        }
        order = ["head", "heads", *(g for g in groups if g != "head"), *sorted(differing - {"heads", "seed"}), "seed"]
        said = [choice | _spelled(value) for choice, value in zip(choices, values, strict=True)]
        return [{key: one[key] for key in order if key in one} for one in said]

    @cached_property
    def _defaults(self) -> dict[str, str]:
        entries = OmegaConf.load(_CONF / "train.yaml").defaults
        return {key: choice for entry in entries if not isinstance(entry, str) for key, choice in entry.items()}

    @cached_property
    def _usual_paths(self) -> dict[str, Any]:
        return {key: value for key, value in _flat(typed(self._compose([]))).items() if key.startswith("paths.")}

    @cached_property
    def _files(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Group -> choice -> the values of its file, interpolations as they stand."""
        return {
            group: {path.stem: _flat(OmegaConf.load(path), group) for path in sorted((_CONF / group).glob("*.yaml"))}
            for group in _GROUPS
        }

    def _choices(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Of each group the choice that agrees with most of the values: first its name, then the rest."""

        def agreement(group: str, choice: str) -> tuple[bool, int, bool]:
            held = self._files[group][choice]
            agreeing = [key for key, value in held.items() if values.get(key) == value]
            return f"{group}.name" in agreeing, len(agreeing), choice == self._defaults[group]

        return {
            group: max(choices, key=lambda choice: agreement(group, choice)) for group, choices in self._files.items()
        }

    def _base(self, choices: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
        """What the choices compose to, with the folders of `values`, from which other keys are derived."""
        words = [f"{group}={choice}" for group, choice in choices.items()]
        words += [f"{key}={hydra_value(value)}" for key, value in values.items() if key.startswith("paths.")]
        key = tuple(words)
        if key not in self._known:
            self._known[key] = _flat(typed(self._compose(words))) | self._usual_paths
        return self._known[key]


def hydra_value(value: Any) -> str:
    """A plain value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{hydra_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT):
        return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", value)) + "'"
    return str(value)


def words(spelling: Mapping[str, str]) -> list[str]:
    """The overrides of one run."""
    return [f"{key}={value}" for key, value in spelling.items()]


def in_full(config: DictConfig, conf: Path) -> list[str]:
    """The overrides that compose a frozen configuration whatever the defaults in the folder `conf` are.

    Every key is said; of the groups only those that decide which keys there are.
    """
    values = _flat(config)
    model = values["model.name"]
    known = {path.stem for path in (conf / "model").glob("*.yaml")}
    model = model if model in known else "timm" if values["model.family"] == "timm" else ""
    return [f"head={values['head.name']}", *[f"model={model}"] * bool(model), *words(_spelled(values))]


def command(overrides: Sequence[str], grid: bool) -> str:
    """The line for a shell that trains a run, or a grid."""
    return shlex.join(["python", "src/train.py", *["-m"] * grid, *overrides])


def grids(cells: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The overrides of as few grids as have exactly these cells, given without their seeds.

    Cells that do not have the same keys (an option of one head alone) cannot be in one grid. What the product of the
    axes has beyond the cells is left out by an exclusion each.
    """
    by_keys: dict[frozenset[str], list[Mapping[str, str]]] = {}
    for cell in cells:
        by_keys.setdefault(frozenset(cell), []).append(cell)
    return [_grid(alike) for alike in by_keys.values()]


def _grid(cells: Sequence[Mapping[str, str]]) -> list[str]:
    axes = {key: list(dict.fromkeys(cell[key] for cell in cells)) for key in cells[0]}
    product = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    lines = dict.fromkeys(_exclusion(point, cells) for point in product if point not in cells)
    grid = [f"{key}={','.join(values)}" for key, values in axes.items()]
    return grid + [f"hydra.launcher.exclude={json.dumps(list(lines))}"] * bool(lines)


def _exclusion(point: Mapping[str, str], cells: Sequence[Mapping[str, str]]) -> str:
    """The fewest values of a point that leave none of the cells out, later keys being dropped first."""
    parts = dict(point)
    for key in reversed(list(point)):
        fewer = {other: value for other, value in parts.items() if other != key}
        if not any(fewer.items() <= cell.items() for cell in cells):
            parts = fewer
    return " ".join(words(parts))


def _spelled(values: Mapping[str, Any]) -> Spelling:
    return {key: hydra_value(value) for key, value in values.items()}


def _flat(section: RunConfig | DictConfig | Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value; options that are passed on are one value, however many they are."""
    config = OmegaConf.structured(section) if isinstance(section, RunConfig) else section
    resolve = not prefix  # a file alone lacks what its interpolations name
    plain = OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)
    assert isinstance(plain, dict)
    return dict(_leaves(plain, f"{prefix}." if prefix else ""))


def _leaves(plain: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name != "model.options":
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value

"""Convert configurations back to the overrides that compose them: the shortest command, and the grid of several."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from headsweep.config.keys import has_trait, nested
from headsweep.config.parsing import typed
from headsweep.config.records import choices as added
from headsweep.config.schema import RunConfig
from headsweep.config.study.grid import Compose, Grid
from headsweep.config.traits import PLANNED
from headsweep.config.yaml_files import load_yaml
from headsweep.folders import CONF, TRAIN, own_conf
from headsweep.text import shell_command

Overrides = dict[str, str]  # key of an override -> its value, as Hydra parses it

_PLAIN = re.compile(r"[A-Za-z_/.][\w/.:+-]*")
_NOT_TEXT = {"null", "none", "true", "false", "nan", "inf", "yes", "no", "on", "off"}


class OverrideFinder:
    """Finds the overrides of configurations; `compose` returns the configuration of a list of overrides."""

    def __init__(self, compose: Compose) -> None:
        self._compose, self.grid = compose, Grid(compose)
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def find(self, runs: Sequence[RunConfig]) -> list[Overrides]:
        """Return the overrides of each run; a key that one of them needs is given for all that have it, as an axis.

        Head, heads and seed are always given, and keys that the plan fills in from the data never.
        """
        values = [_flat(run) for run in runs]
        choices = [self._choices(value) for value in values]
        groups = [g for g in self._defaults if any(choice[g] != self._defaults[g] for choice in choices)]
        bases = [self._base(choice, value) for choice, value in zip(choices, values, strict=True)]
        differing = {
            key
            for value, base in zip(values, bases, strict=True)
            for key in value
            if not has_trait(key, PLANNED) and value[key] != base.get(key)
        }
        differing |= {key for choice in choices for key in self._required(choice)}
        order = ["head", "heads", *(g for g in groups if g != "head"), *sorted(differing - {"heads", "seed"}), "seed"]
        found = [choice | _as_overrides(value) for choice, value in zip(choices, values, strict=True)]
        return [{key: one[key] for key in order if key in one} for one in found]

    @cached_property
    def _defaults(self) -> dict[str, str]:
        entries = load_yaml(CONF / "train.yaml").defaults
        choices = {key: choice for entry in entries if not isinstance(entry, str) for key, choice in entry.items()}
        return {group: choice for group, choice in choices.items() if group != "paths"}

    @cached_property
    def _usual_paths(self) -> dict[str, Any]:
        return {key: value for key, value in _flat(typed(self._compose([]))).items() if key.startswith("paths.")}

    @cached_property
    def _files(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Group -> choice -> the values of its file, interpolations unresolved."""
        return {
            group: _of_records(group)
            | {
                path.stem: _flat(load_yaml(path), group)
                for folder in (*added.folders(), *filter(None, [own_conf()]), CONF)  # the last of one name counts
                for path in sorted((folder / group).glob("*.yaml"))
            }
            for group in self._defaults
        }

    def _choices(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return for each group the choice whose file agrees best: in its name or its format, then in most values."""

        def agreement(group: str, choice: str) -> tuple[bool, int, bool]:
            held = self._files[group][choice]
            agreeing = [key for key, value in held.items() if values.get(key) == value]
            is_named = f"{group}.name" in agreeing or (f"{group}.format" in agreeing and bool(held[f"{group}.format"]))
            return is_named, len(agreeing), choice == self._defaults[group]

        found = {
            group: max(choices, key=lambda choice: agreement(group, choice)) for group, choices in self._files.items()
        }
        return found | ({"head": _head(values)} if "head.file" in values else {})

    def _required(self, choices: Mapping[str, str]) -> list[str]:
        """Return the keys to which the files of the choices give no value."""
        files = (self._files[group].get(choice, {}) for group, choice in choices.items())
        return [key for held in files for key, value in held.items() if value == "???"]

    def _base(self, choices: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
        """Compose the choices with the folders of `values`, from which other keys are derived."""
        words = [f"{group}={hydra_value(choice)}" for group, choice in choices.items()]
        words += [f"{key}={hydra_value(values[key])}" for key in self._required(choices)]
        words += [f"{key}={hydra_value(value)}" for key, value in values.items() if key.startswith("paths.")]
        key = tuple(words)
        if key not in self._known:
            self._known[key] = _flat(typed(self._compose(words))) | self._usual_paths
        return self._known[key]


def hydra_value(value: Any) -> str:
    """Return a plain value as Hydra's command line parses it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{hydra_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT):
        return _quoted(value, "'")
    return str(value)


def words(overrides: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in overrides.items()]


def all_overrides(config: DictConfig, conf: Path) -> list[str]:
    """Return overrides that compose a frozen configuration with any defaults in the folder `conf`.

    They give every key, and the groups that decide which keys exist.
    """
    values = _flat(config)
    if values["model.family"] != "timm" and not values.get("model.pretrained"):
        values.pop("model.pretrained", None)  # the files of other families lack the key
    model = values["model.name"]
    known = {path.stem for path in (conf / "model").glob("*.yaml")}
    families = ("timm", *added.names("model"))
    model = model if model in known else values["model.family"] if values["model.family"] in families else ""
    return [f"head={hydra_value(_head(values))}", *[f"model={model}"] * bool(model), *words(_as_overrides(values))]


def _head(values: Mapping[str, Any]) -> str:
    """Return the choice of the group `head`."""
    return f"{values['head.file']}:{values['head.name']}" if "head.file" in values else str(values["head.name"])


def _of_records(group: str) -> dict[str, dict[str, Any]]:
    """Return the values of the choices that packages add to a group."""
    names = added.names(group) if group in added.REGISTRIES else []
    return {name: _flat(OmegaConf.create(added.values(group, name)), group) for name in names}


def command(overrides: Sequence[str], grid: bool) -> str:
    """Return the shell command that trains a run, or a grid."""
    return shell_command([*TRAIN, *["-m"] * grid, *overrides])


def grid_words(cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the overrides of the grid that has exactly these cells, given without seeds.

    Cells with different keys (an option of one head) are blocks of a union. Other cells of the product of the axes are
    left out by an exclusion each.
    """
    by_keys: dict[frozenset[str], list[Mapping[str, str]]] = {}
    for cell in cells:
        by_keys.setdefault(frozenset(cell), []).append(cell)
    blocks = [_axes(alike) for alike in by_keys.values()]
    common = [key for key, values in blocks[0].items() if all(block.get(key) == values for block in blocks)]
    grid = [f"{key}={','.join(blocks[0][key])}" for key in common]
    if len(blocks) > 1:
        own = ({key: values for key, values in block.items() if key not in common} for block in blocks)
        grid.append(f"hydra.sweeper.union=[{','.join(map(_block, own))}]")
    lines = dict.fromkeys(
        _exclusion(point, cells)
        for axes, alike in zip(blocks, by_keys.values(), strict=True)
        for point in (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
        if point not in alike
    )
    return grid + [f"hydra.launcher.exclude={json.dumps(list(lines))}"] * bool(lines)


def _axes(cells: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    return {key: list(dict.fromkeys(cell[key] for cell in cells)) for key in cells[0]}


def _block(axes: Mapping[str, Sequence[str]]) -> str:
    """Return axes as a block of a union."""
    pairs = (f"{key}:{_quoted(','.join(values), chr(34))}" for key, values in axes.items())
    return f"{{params:{{{','.join(pairs)}}}}}"


def _quoted(text: str, quote: str) -> str:
    """Return a text in quotes, as Hydra's command line parses it."""
    escaped = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", re.sub(r"(\\+)$", r"\1\1", text))
    return f"{quote}{escaped}{quote}"


def _exclusion(point: Mapping[str, str], cells: Sequence[Mapping[str, str]]) -> str:
    """Return the fewest values of a point that match none of the cells, dropping later keys first."""
    parts = dict(point)
    for key in reversed(list(point)):
        fewer = {other: value for other, value in parts.items() if other != key}
        if not any(fewer.items() <= cell.items() for cell in cells):
            parts = fewer
    return " ".join(words(parts))


def _as_overrides(values: Mapping[str, Any]) -> Overrides:
    return {key: hydra_value(value) for key, value in values.items()}


def _flat(section: RunConfig | DictConfig | Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> plain value; `model.options` is one value."""
    resolve = not prefix  # a single file lacks the keys that its interpolations refer to
    is_run = isinstance(section, RunConfig)
    plain = nested(section) if is_run else OmegaConf.to_container(section, resolve=resolve, enum_to_str=True)
    assert isinstance(plain, dict)
    return dict(_leaves(plain, f"{prefix}." if prefix else ""))


def _leaves(plain: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name != "model.options":
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value

"""Choices of the groups `head` and `model` that no YAML file has: records of packages, and heads in plain files.

Hydra finds them by `hydra_plugins.headsweep_records`; their values are the defaults of their options.
"""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from headsweep.config.records import head_file
from headsweep.config.records.dataset import DATASETS
from headsweep.config.records.head import HEADS
from headsweep.config.records.metric import METRICS
from headsweep.config.records.model import BACKBONES
from headsweep.config.records.registry import Package, Registry

REGISTRIES: dict[str, Registry[Any]] = {"head": HEADS, "model": BACKBONES, "dataset": DATASETS}
_WITH_OPTIONS = ("head", "model")  # a data set has no options of its own, but values in a YAML file


def names(group: str) -> list[str]:
    """Return the choices of a group that packages add."""
    registry = REGISTRIES[group]
    return [name for name in registry if registry.package(name)] if group in _WITH_OPTIONS else []


def values(group: str, choice: str) -> dict[str, Any] | None:
    """Return the keys of a choice; None if there is none.

    Raises:
        UserError: the record of that name, or the file, cannot be loaded.
    """
    if group == "head" and head_file.is_file(choice):
        return head_file.values_in(choice)
    registry = REGISTRIES[group]
    if group not in _WITH_OPTIONS or registry.package(choice) is None:
        return None
    fixed: dict[str, Any] = {"name": choice}
    if group == "model":
        fixed |= {"family": choice, "checkpoint": None, "checkpoint_digest": None}
    return _defaults(registry[choice].options) | fixed


def _defaults(options: type) -> dict[str, Any]:
    """Return field -> default of a dataclass; a field without one is missing, as `???` in a YAML file."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        found[field.name] = MISSING if default is dataclasses.MISSING else default
    return found


def folders() -> list[Path]:
    """Return the folder `conf` of every package that names a record and has such a folder; none is imported."""
    return [folder for package in packages() for root in roots(package) if (folder := root / "conf").is_dir()]


def packages() -> list[Package]:
    """Return the packages that name records, one for each top-level module."""
    found = (package for registry in (*REGISTRIES.values(), METRICS) for package in registry.packages())
    return list({package.top: package for package in found}.values())


def registered(package: Package) -> dict[str, list[str]]:
    """Return entry point group -> lines NAME = MODULE:RECORD, of all that a distribution registers."""
    registries = (*REGISTRIES.values(), METRICS)
    found = {registry.group: registry.lines(package.distribution) for registry in registries}
    return {group: lines for group, lines in found.items() if lines}


def roots(package: Package) -> list[Path]:
    """Return the folders of a package, or its only file; more than one of a namespace package."""
    try:
        spec = find_spec(package.top)
    except (ImportError, ValueError):  # the same error is reported where the record is loaded
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []

"""The code of other packages that a run uses: its version and digest are part of the run's record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from headsweep.config.records.choices import REGISTRIES, packages, roots
from headsweep.config.records.metric import METRICS
from headsweep.config.records.registry import Package
from headsweep.folders import content_digest

_KEYS = {"head": "name", "model": "family", "dataset": "name"}  # group -> key with the name of the record


def packages_used(config: Mapping[str, Any]) -> dict[str, str]:
    """Return distribution -> version and digest, of each package that a run uses.

    Those are the packages of its head, backbone and data set, and of all metrics, each of which is measured.

    Args:
        config: of the run, nested and plain, as in its record.
    """
    chosen = (REGISTRIES[group].package(str(config[group].get(key))) for group, key in _KEYS.items() if group in config)
    found = [*(package for package in chosen if package), *METRICS.packages()]
    return {package.distribution: f"{package.version} {_digest(package)}" for package in found}


def is_installed(distribution: str) -> bool:
    """Return whether a package that names records is installed, in whatever version."""
    return distribution in (package.distribution for package in packages())


def files_of(package: Package) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a package, without what Python compiled, and its path relative to the import folder."""
    for root in roots(package):
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file, file.relative_to(root.parent)


@cache  # a plan asks for each of its thousands of runs
def _digest(package: Package) -> str:
    return content_digest((place, file.read_bytes()) for file, place in files_of(package))[:10]

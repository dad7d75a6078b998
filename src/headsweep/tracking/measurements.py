"""Measurements of the machines that train into an output folder, stored so that each is made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.sharing import share_with_group
from headsweep.tracking.typed_files import conform


class Measurements:
    """Measurements of one kind in `measured.json`; if the file is absent or damaged, it is empty."""

    def __init__(self, output: Path, kind: str) -> None:
        self._path, self._kind = OutputFolder(output).measurements, kind

    def get(self, of: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values for what `of` describes; None if it was not measured."""
        return self._all().get(self._kind, {}).get(_key(of))

    def put(self, of: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Store the values for what `of` describes."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        share_with_group(self._path.parent)
        with FileLock(f"{self._path}.lock"):
            content = self._all()
            content.setdefault(self._kind, {})[_key(of)] = dict(found)
            atomic_files.write_json(self._path, content)

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            return conform(json.loads(self._path.read_text()), dict[str, dict[str, Any]])
        except (OSError, ValueError):
            return {}


def _key(of: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]

"""What was measured on machines that train into an outputs folder, so that it is measured once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder


class Measured:
    """The file `measured.json` of an outputs folder; without it, or if it is damaged, everything is measured anew."""

    def __init__(self, output: Path, kind: str) -> None:
        """What is remembered of one `kind` of measurement."""
        self._path, self._kind = OutputFolder(output).measurements, kind

    def get(self, of: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was found for what `of` describes; None if nothing was."""
        return self._all().get(self._kind, {}).get(_key(of))

    def put(self, of: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Remember what was found."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock"):
            known = self._all()
            known.setdefault(self._kind, {})[_key(of)] = dict(found)
            atomic_files.write_json(self._path, known)

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}


def _key(of: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]

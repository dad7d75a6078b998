"""mlflow.json: the MLflow run that a folder, of a run or of a sweep, has had last.

It spares a search, no more: without it the MLflow run is found by its tags.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from headsweep.credentials import hidden
from headsweep.tracking import durable


@dataclass(frozen=True)
class Reference:
    """An MLflow run in a store."""

    uri: str  # of the store, without a password
    experiment_id: str
    run_id: str
    model_id: str | None = None  # of the model that was logged to it

    def is_in(self, uri: str, experiment_id: str | None = None) -> bool:
        """Does it lie in the store at `uri`, and in that experiment?"""
        return self.uri == hidden(uri) and experiment_id in (None, self.experiment_id)


def path_in(place: Path) -> Path:
    """The file in a folder."""
    return place / "mlflow.json"


def read_reference(place: Path) -> Reference | None:
    """What the folder names as its own; None if it names none, or the file is damaged."""
    try:
        content = json.loads(path_in(place).read_text())
        found = Reference(content["uri"], content["experiment_id"], content["run_id"], content.get("model_id"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    values = (found.uri, found.experiment_id, found.run_id, found.model_id or "")
    return found if all(isinstance(value, str) for value in values) else None


def write_reference(place: Path, reference: Reference) -> None:
    """Replace what the folder names as its own. Raises OSError if it cannot be written."""
    durable.write_json(path_in(place), {key: value for key, value in asdict(reference).items() if value is not None})

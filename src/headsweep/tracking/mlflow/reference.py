"""mlflow.json: the MLflow run that a folder, of a run or of a sweep, has had last.

It spares a search, no more: without it the MLflow run is found by its tags.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from headsweep.credentials import hidden
from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged, read_json, require


@dataclass(frozen=True)
class Reference:
    """An MLflow run in a store."""

    uri: str  # of the store, without a password
    experiment_id: str
    run_id: str
    model_id: str | None = None  # of the model that was logged to it

    def check(self) -> None:
        """Raise ValueError for what cannot be printed."""
        for key in ("uri", "experiment_id", "run_id"):
            require(key, getattr(self, key), getattr(self, key).isprintable(), "a text of printable characters")

    def is_in(self, uri: str, experiment_id: str | None = None) -> bool:
        """Does it lie in the store at `uri`, and in that experiment?"""
        return self.uri == hidden(uri) and experiment_id in (None, self.experiment_id)


def path_in(place: Path) -> Path:
    """The file in a folder."""
    return place / "mlflow.json"


def checked_reference(place: Path) -> Reference | None:
    """Return what the folder names as its own; None if it names none.

    Raises:
        Damaged: the file is not as `write_reference` writes it.
    """
    return read_json(path_in(place), Reference, "remove it, and `headsweep sync` writes it again")


def read_reference(place: Path) -> Reference | None:
    """Return what the folder names as its own; None if it names none, or the file is damaged."""
    with suppress(Damaged):
        return checked_reference(place)
    return None


def write_reference(place: Path, reference: Reference) -> None:
    """Replace what the folder names as its own. Raises OSError if it cannot be written."""
    atomic_files.write_json(
        path_in(place), {key: value for key, value in asdict(reference).items() if value is not None}
    )

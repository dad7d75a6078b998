"""mlflow.json: the MLflow run that the folder of a run or of a sweep had last.

It only saves a search: without it the MLflow run is found by its tags.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from headsweep.credentials import redacted
from headsweep.tracking import atomic_files
from headsweep.tracking.typed_files import Damaged, read_json, require


@dataclass(frozen=True)
class Reference:
    """An MLflow run in a store."""

    uri: str  # of the store, without a password
    experiment_id: str
    run_id: str
    model_id: str | None = None  # of its logged model

    def check(self) -> None:
        """Raise ValueError for what cannot be printed."""
        for key in ("uri", "experiment_id", "run_id"):
            require(key, getattr(self, key), getattr(self, key).isprintable(), "a text of printable characters")

    def is_in(self, uri: str, experiment_id: str | None = None) -> bool:
        """Return whether it is in the store at `uri`, and in that experiment."""
        return self.uri == redacted(uri) and experiment_id in (None, self.experiment_id)


def path_in(folder: Path) -> Path:
    """Return the file in the folder of a run or sweep."""
    return folder / "mlflow.json"


def checked_reference(folder: Path) -> Reference | None:
    """Return the MLflow run that the folder names; None if it names none.

    Raises:
        Damaged: the file is not as `write_reference` writes it.
    """
    return read_json(path_in(folder), Reference, "remove it, and `headsweep sync` writes it again")


def description_of(folder: Path) -> str | None:
    """Return, in words, the MLflow run that the folder names, with its page if a server shows it.

    Raises:
        Damaged: as `checked_reference`.
    """
    reference = checked_reference(folder)
    if reference is None:
        return None
    place = redacted(reference.uri)
    text = f"run {reference.run_id} of experiment {reference.experiment_id} in {place}"
    if not place.startswith(("http://", "https://")):
        return text
    return f"{text}, {place.rstrip('/')}/#/experiments/{reference.experiment_id}/runs/{reference.run_id}"


def read_reference(folder: Path) -> Reference | None:
    """Return the MLflow run that the folder names; None if it names none, or the file is damaged."""
    with suppress(Damaged):
        return checked_reference(folder)
    return None


def write_reference(folder: Path, reference: Reference) -> None:
    """Name an MLflow run in the folder. Raises OSError if the file cannot be written."""
    atomic_files.write_json(
        path_in(folder), {key: value for key, value in asdict(reference).items() if value is not None}
    )

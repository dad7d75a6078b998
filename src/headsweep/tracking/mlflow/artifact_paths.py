"""Paths of artifacts in a database, after an output folder has moved or was copied.

The database stores the absolute address of each run's artifacts. MLflow cannot change one, so it is done in SQL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from headsweep.tracking.output_folder import MLFLOW_ARTIFACTS, OutputFolder

if TYPE_CHECKING:
    from sqlalchemy import Connection

_COLUMNS = (  # tables and columns with addresses below that of an experiment
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def artifact_root(output: Path) -> str:
    """Return the address for the artifacts of a new experiment; without one, MLflow writes to ./mlruns."""
    return OutputFolder(output.resolve()).mlflow_artifacts.as_uri()


def relocate(uri: str, output: Path, *, is_inside: bool) -> None:
    """Update the addresses in a database of artifacts that have moved to `output`.

    Addresses that headsweep did not create, and those of artifacts that are still there, stay as they are.

    Args:
        uri: SQLAlchemy's address of the database, which has MLflow's tables.
        output: the output folder.
        is_inside: whether the database lies in `output`: then it refers to the artifacts there, even if the old
            addresses, of the folder that it was copied from, exist as well.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for old in _values(connection, "experiments", "artifact_location"):
            if (
                old.endswith(f"/{MLFLOW_ARTIFACTS}")
                and old != artifact_root(output)
                and (is_inside or not _exists(_path(old).parent))
            ):
                _replace(connection, "experiments", "artifact_location", old, artifact_root(output))
        for table, column in _COLUMNS:
            for old in _values(connection, table, column):
                _, separator, rest = old.rpartition(f"/{MLFLOW_ARTIFACTS}/")
                new = f"{artifact_root(output)}/{rest}"
                if separator and new != old and _has_moved(_path(old), _path(new), is_inside):
                    _replace(connection, table, column, old, new)


def _has_moved(old: Path, new: Path, is_inside: bool) -> bool:
    if is_inside:
        return _exists(new) or not _exists(old)
    return _exists(new) and not _exists(old)


def _values(connection: Connection, table: str, column: str) -> Sequence[str]:
    import sqlalchemy

    query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"
    return connection.execute(sqlalchemy.text(query)).scalars().all()


def _replace(connection: Connection, table: str, column: str, old: str, new: str) -> None:
    import sqlalchemy

    statement = sqlalchemy.text(f"UPDATE {table} SET {column} = :new WHERE {column} = :old")
    connection.execute(statement, {"new": new, "old": old})


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises in a folder without permission

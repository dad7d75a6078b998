"""Where the files of MLflow's runs lie, when an output folder has moved or is a copy.

A database keeps the absolute address of each run's files. MLflow has no call to change one, so this does, in SQL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FOLDER = "mlartifacts"
_COLUMNS = (  # tables and columns with addresses below the one of an experiment
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def files_of(output: Path) -> str:
    """Address of the folder in which a new experiment keeps its files; a database would say ./mlruns."""
    return (output.resolve() / _FOLDER).as_uri()


def relocate(uri: str, output: Path, *, is_inside: bool) -> None:
    """Set right the addresses in a database of files that lie in `output` now, and no more where the database says.

    Addresses that headsweep has not made, and those of files that are still there, stay as they are.

    Args:
        uri: SQLAlchemy's address of the database; it has MLflow's tables.
        output: the output folder.
        is_inside: the database lies in it: the files in `output` are then its own, though others lie where it says.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for old in _values(connection, "experiments", "artifact_location"):
            if (
                old.endswith(f"/{_FOLDER}")
                and old != files_of(output)
                and (is_inside or not _exists(_path(old).parent))
            ):
                _replace(connection, "experiments", "artifact_location", old, files_of(output))
        for table, column in _COLUMNS:
            for old in _values(connection, table, column):
                _, separator, rest = old.rpartition(f"/{_FOLDER}/")
                new = f"{files_of(output)}/{rest}"
                if separator and new != old and _has_moved(_path(old), _path(new), is_inside):
                    _replace(connection, table, column, old, new)


def _has_moved(old: Path, new: Path, is_inside: bool) -> bool:
    if is_inside:
        return _exists(new) or not _exists(old)
    return _exists(new) and not _exists(old)


def _values(connection: Connection, table: str, column: str) -> Sequence[str]:
    import sqlalchemy

    question = f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'"
    return connection.execute(sqlalchemy.text(question)).scalars().all()


def _replace(connection: Connection, table: str, column: str, old: str, new: str) -> None:
    import sqlalchemy

    change = sqlalchemy.text(f"UPDATE {table} SET {column} = :new WHERE {column} = :old")
    connection.execute(change, {"new": new, "old": old})


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path's own raises where a folder may not be looked into

"""Addresses of stores as SQLAlchemy writes them, and those of sqlite files that lie in an output folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

_SQLITE = "sqlite:///"


def sqlite_uri(database: Path) -> str:
    """Return the address of a sqlite file: SQLAlchemy decodes what is encoded, and MLflow cuts at # and ?.

    An encoded address names the driver: without it, MLflow creates a folder of the encoded name.
    """
    path = str(database)
    encoded = re.sub("[%?#]", lambda found: quote(found[0]), path)
    return f"{_SQLITE if encoded == path else 'sqlite+pysqlite:///'}{encoded}"


def database_file(uri: str) -> Path | None:
    """Return the file of a sqlite store; None for any other store."""
    scheme, _, path = uri.partition(":///")
    return Path(unquote(path.partition("?")[0])) if scheme.partition("+")[0] == "sqlite" else None


def moved_uri(uri: str | None, before: str, output: Path) -> str | None:
    """Return the address of a planned store now that its output folder is `output` and no longer `before`.

    A sqlite file inside the output folder moves with it; any other address stays as it is.
    """
    database = database_file(uri) if uri else None
    if database is None or Path(before) == output.resolve() or not database.is_relative_to(before):
        return uri
    return sqlite_uri(output.resolve() / database.relative_to(before))


def planned_address(config: Mapping[str, Any], output: Path) -> str | None:
    """Return the address of the store that a run was planned with; None: the one in its output folder.

    Args:
        config: of the run, as in its record.
        output: its output folder now.
    """
    return moved_uri(config["tracking"]["uri"], config.get("paths", {}).get("output", output), output)

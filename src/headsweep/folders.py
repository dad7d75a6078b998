"""Folders: of the package, of the configuration that comes with it, and of the user's data, results and configuration.

In a checkout, `conf/` and `sweeps/` are its top-level folders, and data and results lie beside them, whatever the
working directory. A wheel has copies of both inside the package; data and results are then in the working directory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_COPIES = PACKAGE / "configuration"
IS_INSTALLED = _COPIES.is_dir()  # from a wheel: there is no checkout
PROJECT_ROOT = _COPIES if IS_INSTALLED else PACKAGE.parents[1]  # the folder of conf/ and sweeps/
CONF = PROJECT_ROOT / "conf"
TRAIN = ("headsweep", "train") if IS_INSTALLED else ("python", "src/train.py")  # the command, for messages

STUDIES = "studies"  # Hydra's scheme of a folder of which `sweeps` alone is read: its other folders are no groups
OUTPUT_VARIABLE = "HEADSWEEP_OUTPUT"
DATA_VARIABLE = "HEADSWEEP_DATA"


def default_output() -> Path:
    """Return the default of paths.output: HEADSWEEP_OUTPUT, or else the folder outputs."""
    return _given(OUTPUT_VARIABLE) or _base() / "outputs"


def default_data() -> Path:
    """Return the default of paths.data: HEADSWEEP_DATA, or else the folder data."""
    return _given(DATA_VARIABLE) or _base() / "data"


def own_conf() -> Path | None:
    """Return the folder conf in the working directory, if it has one that is not headsweep's."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and not _is_of_headsweep(folder) else None


def own_sweeps() -> Path | None:
    """Return the folder sweeps in the working directory, if it has one that is not headsweep's."""
    folder = Path.cwd() / "sweeps"
    return folder if folder.is_dir() and not _is_of_headsweep(folder) else None


def search_path() -> list[str]:
    """Return the folders of configuration after headsweep's conf/, as Hydra names them; the first file found counts.

    They are for the studies in sweeps/, and ./conf and ./sweeps of the working directory.
    """
    sweeps = f"{STUDIES}://{Path.cwd()}" if own_sweeps() else None
    conf = f"file://{own}" if (own := own_conf()) else None
    return [f"{STUDIES}://{PROJECT_ROOT}", *filter(None, [conf, sweeps])]


def unread_files() -> list[str]:
    """Return the paths, relative to the working directory, of own YAMLs that have the name of one of headsweep's."""
    return [
        f"{folder.name}/{file.relative_to(folder)}"
        for folder in (own_conf(), own_sweeps())
        if folder
        for file in sorted(folder.rglob("*.yaml"))
        if (PROJECT_ROOT / folder.name / file.relative_to(folder)).is_file()
    ]


def code_files() -> dict[str, Path]:
    """Return the code and its defaults, by their paths in a checkout; they determine the numbers of a run."""
    found = {f"src/headsweep/{file.relative_to(PACKAGE).as_posix()}": file for file in PACKAGE.rglob("*.py")}
    found |= {f"conf/{file.relative_to(CONF).as_posix()}": file for file in CONF.rglob("*.yaml")}
    return dict(sorted(found.items()))


def code_digest() -> str:
    """Return a short hash of the content of `code_files`."""
    return content_digest((name, file.read_bytes()) for name, file in code_files().items())[:12]


def content_digest(contents: Iterable[tuple[object, bytes]]) -> str:
    """Return the hash of some files, given by their names and contents, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, content in contents:
        digest.update(f"{name}\0".encode() + content)
    return digest.hexdigest()


def installed_version() -> str:
    """Return the version of the package; "unknown" of a copy that is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # imported here because it is slow

    try:
        return version("headsweep")
    except PackageNotFoundError:
        return "unknown"


def relative(file: Path) -> str:
    """Return the path of a file, relative to the working directory if it is inside."""
    return f"./{file.relative_to(Path.cwd())}" if file.is_relative_to(Path.cwd()) else str(file)


def _given(variable: str) -> Path | None:
    return Path.cwd() / Path(folder).expanduser() if (folder := os.environ.get(variable)) else None


def _base() -> Path:
    return Path.cwd() if IS_INSTALLED else PROJECT_ROOT


def _is_of_headsweep(folder: Path) -> bool:
    own = PROJECT_ROOT / folder.name
    return own.is_dir() and folder.samefile(own)

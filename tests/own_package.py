"""Distributions, and the package in examples/."""

import shutil
import zipfile
from pathlib import Path

import programs
from headsweep.config import PROJECT_ROOT

EXAMPLE = PROJECT_ROOT / "examples" / "own_head"
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"  # its backend


def build(root: Path, place: Path, *targets: str) -> list[Path]:
    """Build distributions of the sources in `root`; nothing is fetched."""
    words = [word for target in targets for word in ("-t", target)]
    run(["-m", "hatchling", "build", "-d", str(place), *words], root)
    return sorted(place.iterdir(), key=lambda file: file.suffix)


def install(place: Path, change: dict[str, str] | None = None) -> Path:
    """Install a copy of the example, with some texts replaced, into a folder for PYTHONPATH."""
    source, site = place / "source", place / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    for file in source.rglob("*.*"):
        for before, after in (change or {}).items():
            if file.is_file():
                file.write_text(file.read_text().replace(before, after))
    (place / "dist").mkdir()
    run(["-c", BUILD, str(place / "dist")], source)
    (wheel,) = (place / "dist").iterdir()
    zipfile.ZipFile(wheel).extractall(site)  # as pip does, which takes seconds longer
    return site


def run(words: list[str], folder: Path) -> None:
    """Run `python WORDS` in a folder."""
    done = programs.run(words, cwd=folder, kind=".light")
    assert done.returncode == 0, done.stdout + done.stderr

"""Install the package in examples/."""

import shutil
import subprocess
import sys
from pathlib import Path

from headsweep.config import PROJECT_ROOT

EXAMPLE = PROJECT_ROOT / "examples" / "own_head"
PIP = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
PIP += ["--disable-pip-version-check"]


def install(place: Path, change: dict[str, str] | None = None) -> Path:
    """Install a copy of the example, with some texts replaced, into a folder for PYTHONPATH."""
    source, site = place / "source", place / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    for file in source.rglob("*.*"):
        for before, after in (change or {}).items():
            if file.is_file():
                file.write_text(file.read_text().replace(before, after))
    subprocess.run([sys.executable, *PIP, "--target", str(site), str(source)], check=True)
    return site

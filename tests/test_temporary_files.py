"""What tests and their programs write to the folder for temporary files is removed at the end."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from programs import OWNER


def test_programs_have_the_same_folder_as_tests():
    Path(tempfile.mkdtemp(), "left").touch()
    words = [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]
    place = Path(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()).parent
    assert place == Path(tempfile.gettempdir()) and place.name.startswith("headsweep-tests-")


@pytest.mark.slow
def test_nothing_is_left_of_it(tmp_path: Path):
    place = tmp_path / "temporary"
    place.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != OWNER}
    test = f"{__file__}::{test_programs_have_the_same_folder_as_tests.__name__}"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(words, env={**environment, "TMPDIR": str(place)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert list(place.iterdir()) == []

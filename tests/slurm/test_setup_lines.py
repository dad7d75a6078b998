"""The shell lines of hydra.launcher.setup in a job file."""

from __future__ import annotations

import subprocess

import pytest

from headsweep.launch.slurm.job_file import checked


@pytest.mark.parametrize(
    ("setup", "code", "stderr"),
    [
        (["export A=1", "[ $A = 1 ]"], 0, ""),
        (["true", "(exit 7)"], 7, "headsweep: hydra.launcher.setup[1] failed with exit code 7\n"),
        (["false || true"], 0, ""),
        ([], 0, ""),
    ],
)
def test_a_line_that_fails_ends_the_job_with_its_exit_code(setup, code, stderr):
    script = "\n".join([*checked(setup), "echo trained"])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, stderr)
    assert done.stdout == ("trained\n" if code == 0 else "")

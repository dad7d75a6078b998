"""What travels with a cluster's jobs is enough to train from."""

import os
import subprocess
import sys

from composing import compose_run
from headsweep.launch.slurm import snapshot
from headsweep.plan.plan import freeze, make_plan

READ = """
import sys
from pathlib import Path
import headsweep.plan.frozen
from headsweep.tracking.run_folder import RunFolder
print(headsweep.plan.frozen.frozen(RunFolder(Path(sys.argv[1]))).batch_size, headsweep.__file__)
"""


def test_a_job_reads_its_run_with_nothing_but_the_snapshot(tmp_path):
    plan = make_plan([compose_run("batch_size=24", f"paths.output={tmp_path}")])
    freeze(plan, {plan.runs[0].fingerprint: {}})
    code = snapshot.home(tmp_path / "code")
    snapshot.snapshot(code)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(plan.folders[0].path)],
        env={**os.environ, "PYTHONPATH": str(snapshot.search_path(code))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"24 {code}/src/headsweep/__init__.py\n", done.stderr

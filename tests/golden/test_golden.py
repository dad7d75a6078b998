"""Runs that an earlier version planned and trained stay: same names, same numbers, and what was interrupted goes on.

`output/` was written at commit 760c1b3 by the command in its plan.json: four finished runs, one that was stopped after
its first epoch and one that had not begun. The weights of the finished runs are left out. `fingerprints.json` has the
names that the same commit gave to configurations. Neither may change: a changed name trains a finished run again.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from commands import give, train
from composing import compose_run
from headsweep.plan.fingerprint import fingerprint

HERE = Path(__file__).parent
FINGERPRINTS = json.loads((HERE / "fingerprints.json").read_text())
COMMAND = [
    *("-m", "head=seqpool,seqattn", "heads=1", "seed=0,1,2", "model.width=32", "model.depth=1"),
    *("model.attention_heads=1", "debug.train_images=128", "debug.eval_images=128", "batch_size=32", "tracking=none"),
]
STOPPED, NEW = "fdd33dfd4eea", "7072c96916fc"
NUMBERS = ("parameters", "head_parameters", "flops", "top1_mean", "top1_half_width", "top5_mean", "difference_mean")


@pytest.fixture
def output(tmp_path):
    return Path(shutil.copytree(HERE / "output", tmp_path / "output"))


def test_the_defaults_keep_their_fingerprint():
    assert fingerprint(compose_run()) == FINGERPRINTS["[]"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", FINGERPRINTS)
def test_a_configuration_keeps_its_fingerprint(overrides):
    assert fingerprint(compose_run(*json.loads(overrides))) == FINGERPRINTS[overrides]


def test_the_table_has_the_numbers_that_it_had(output, capfd):
    assert give("table", "--output", output, "--format", "csv") == 0
    made = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    (written,) = (HERE / "output").glob("sweeps/*/table.csv")
    golden = list(csv.DictReader(written.read_text().splitlines()))
    finished = [row for row in made if row["state"] == "finished"]
    assert [[row[name] for name in NUMBERS] for row in finished] == [[row[name] for name in NUMBERS] for row in golden]


@pytest.mark.slow
def test_the_same_command_trains_what_is_missing_and_touches_nothing_else(output):
    before = {path: path.read_bytes() for path in output.glob("runs/*/*") if path.parent.name not in (STOPPED, NEW)}
    epoch = json.loads((output / "runs" / STOPPED / "metrics.jsonl").read_text())
    job = [*COMMAND, "duration=2 epochs", "schedule.warmup=0 epochs", "hydra.launcher.threads=1"]
    done = train(*job, f"paths.output={output}")
    assert done.returncode == 0, done.stderr
    assert "4 done already" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    entries = [json.loads(line) for line in (output / "runs" / STOPPED / "metrics.jsonl").read_text().splitlines()]
    assert entries[0] == epoch
    assert entries[1]["epoch"] == 2
    # What the interrupted training would have come to; other processors round otherwise.
    assert entries[1]["metrics"]["train/loss"] == pytest.approx(2.3012, abs=1e-3)
    assert len(list(output.glob("runs/*/result.json"))) == 6

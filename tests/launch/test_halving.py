"""Successive halving: who goes on, how far, and why; once by the true command."""

import csv
import itertools
import re

import pytest
import torch

from commands import TINY, train
from composing import compose_run
from factories import planned, weights
from headsweep.errors import ConfigError
from headsweep.launch.halving import Halving, best, kept, round_ends
from headsweep.launch.progress_bars import Display
from headsweep.plan.plan import freeze, make_plan
from headsweep.report.formats import markdown
from headsweep.report.table.build import build
from headsweep.report.table.layout import flat
from headsweep.run.train_run import train_folder
from headsweep.status.render import show
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.desired_run import desired_run
from headsweep.tracking.mlflow.desired_sweep import desired_sweep
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult, RunState
from headsweep.tracking.sweep_folder import SweepFolder

HEADS = ("gap", "cls", "seqpool", "se", "at", "sg", "ga", "seqattn", "cait")


class Pool:
    """Trains nothing: writes what a run with the given accuracies by head would have logged."""

    def __init__(self, **tops: float) -> None:
        self.tops = tops
        self.failing: set[str] = set()  # heads
        self.diverging: set[str] = set()
        self.asked: list[tuple[list[str], int | None]] = []

    def start(self, folders, display, notify, until):
        self.asked.append(([folder.record().config["head"]["name"] for folder in folders], until))
        for folder in folders:
            self._train(folder, folder.record().config["head"]["name"], until or 20)
            notify(folder)

    def _train(self, folder: RunFolder, head: str, until: int) -> None:
        if head in self.failing:
            folder.fail("out of luck")
            return
        if head in self.diverging and folder.record().seed == 1:
            folder.finish(RunResult("diverged", {}, 0, 0))
            return
        folder.forget_failure()
        for epoch in range(len(folder.metrics_log.entries()) + 1, until + 1):
            folder.metrics_log.append(Entry(epoch, 10 * epoch, {"val/top1": self.tops.get(head, 0.0)}))
        folder.checkpoint.touch()
        if until == 20:
            folder.finish(RunResult("finished", {"test/top1": 0.5}, 20, 200))


def grid(output, heads=HEADS, seeds=(0,)):
    """The frozen plan of some heads."""
    cells = itertools.product(heads, seeds)
    plan = make_plan([compose_run(f"head={head}", f"seed={seed}", f"paths.output={output}") for head, seed in cells])
    freeze(plan, {planned.fingerprint: {} for planned in plan.runs})
    return plan


def screen(plan, pool, eta=3):
    missing = [folder for folder in plan.folders if folder.result() is None]
    with Display(len(missing), epoch_lines=False) as display:
        Halving(eta, pool, plan).start(missing, display, lambda folder: None)
    return SweepFolder(plan.folder).screening()


@pytest.mark.parametrize(
    ("cells", "eta", "epochs", "ends"),
    [(9, 3, 20, [3, 7]), (8, 2, 300, [38, 75, 150]), (26, 3, 9, [1, 3]), (27, 3, 2, [1]), (2, 3, 9, []), (9, 3, 1, [])],
)
def test_rounds_end_at_powers_of_the_factor(cells, eta, epochs, ends):
    assert round_ends(cells, eta, epochs) == ends


def test_a_round_is_longer_than_the_one_before_and_shorter_than_a_run():
    for cells, eta, epochs in itertools.product(range(1, 70), range(2, 8), range(1, 40)):
        ends = [0, *round_ends(cells, eta, epochs), epochs]
        assert all(earlier < later for earlier, later in itertools.pairwise(ends)), (cells, eta, epochs)
        assert eta ** (len(ends) - 2) <= cells


def test_the_best_go_on_and_of_equal_ones_the_first_and_what_diverged_last():
    for scores in itertools.product((None, 0.0, 0.5, 0.9), repeat=4):
        numbers = dict(zip("abcd", scores, strict=True))
        for count in range(5):
            chosen = best(numbers, count)
            assert len(chosen) == count and chosen == sorted(chosen)
            for one, other in itertools.product(chosen, set(numbers) - set(chosen)):
                a, b = (-1.0 if numbers[cell] is None else numbers[cell] for cell in (one, other))
                assert a > b or (a == b and one < other)


def test_no_images_are_left_out_for_the_sake_of_a_round_number():
    assert [kept(cells, 3) for cells in (1, 2, 3, 4, 9, 10)] == [1, 1, 1, 2, 3, 4]


@pytest.mark.slow
def test_in_each_round_the_best_train_on_and_the_same_again_trains_nothing(tmp_path):
    plan, pool = grid(tmp_path), Pool(ga=0.9, seqattn=0.8, cls=0.7, se=0.6)
    assert Halving(3, pool, plan).opening == "halving by 3: 9 cells until epoch 3, 3 until 7, 1 to the end (20)"
    first = screen(plan, pool)
    assert pool.asked == [(list(HEADS), 3), (["cls", "ga", "seqattn"], 7), (["ga"], None)]
    assert screen(plan, pool) == first and len(pool.asked) == 3
    words = [first.screened_out(planned.folder.record().group) for planned in plan.runs]
    early, late = "3 of 20 epochs", "7 of 20 epochs"
    assert words == [early, late, early, early, early, early, None, late, early]


def test_code_that_only_decides_again_is_not_recorded_in_runs_that_it_does_not_train(tmp_path, monkeypatch):
    plan, pool = grid(tmp_path, ("gap", "ga")), Pool(ga=0.9)
    screen(plan, pool, eta=2)
    monkeypatch.setattr("headsweep.plan.code_of_runs.code_version", lambda: {"commit": "b" * 40, "dirty": False})
    screen(plan, pool, eta=2)
    gap, ga = plan.folders
    assert ga.result() and "continued" not in gap.record().code
    pool.tops |= {"gap": 0.95}
    gap.metrics_log.path.unlink()  # as if it had been stopped in the first round
    screen(plan, pool, eta=2)
    assert gap.record().code["continued"] == "b" * 10 and "continued" not in ga.record().code


@pytest.mark.slow
def test_seeds_are_judged_together_and_one_that_diverged_ranks_its_cell_last(tmp_path):
    plan, pool = grid(tmp_path, heads=("gap", "ga", "se"), seeds=(0, 1)), Pool(gap=0.1, ga=0.9, se=0.2)
    pool.diverging = {"ga"}
    screening = screen(plan, pool)
    assert pool.asked[1] == (["se", "se"], None)
    assert sorted(screening.rounds[0].scores.values(), key=str) == [0.1, 0.2, None]
    rows = {(row.head, row.state) for row in build(plan.folders, screening=screening).rows}
    out = "screened out at 7 of 20 epochs"
    assert rows == {("gap", out), ("ga", "diverged"), ("ga", out), ("se", "finished")}


def test_a_cell_with_a_failed_run_is_not_judged_until_a_later_try_succeeds(tmp_path):
    plan, pool = grid(tmp_path, heads=("gap", "ga", "se")), Pool(gap=0.1, ga=0.9, se=0.2)
    pool.failing = {"ga"}
    screening = screen(plan, pool)
    assert [heads for heads, _ in pool.asked] == [["gap", "ga", "se"], ["se"]]
    ga = plan.runs[1].folder
    assert screening.screened_out(ga.record().group) is None and ga.state() is RunState.failed
    assert "1 of 3 runs has no result (1 failed)" in markdown.write(flat(build(plan.folders, screening=screening)))
    pool.failing = set()
    screen(plan, pool)
    assert pool.asked[2:] == [(["ga"], 7), (["ga"], None)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eta", "overrides", "message"),
    [
        (1, [], "hydra.launcher.halving=1: expected an integer >= 2, or null"),
        (2.5, [], "hydra.launcher.halving=2.5: expected an integer"),
        (4, [], "expected at least 4 cells of 2 epochs, found 3 cells of 20 epochs"),
        (3, ["duration='1 epochs'"], "found 3 cells of 1 epoch;"),
        (3, ["duration='500 steps'"], "duration=500 steps: expected epochs with hydra.launcher.halving"),
        (3, ["dataset.validation=0"], "dataset.validation=0: expected a share above 0 with hydra.launcher.halving"),
    ],
)
def test_what_cannot_be_screened_is_refused(tmp_path, eta, overrides, message):
    plan = make_plan([compose_run(f"head={head}", f"paths.output={tmp_path}", *overrides) for head in HEADS[:3]])
    with pytest.raises(ConfigError, match=re.escape(message)):
        Halving(eta, Pool(), plan)


@pytest.mark.parametrize("axis", ["duration='10 epochs'", "dataset.validation=0.2"])
def test_cells_that_no_epoch_or_image_makes_comparable_are_refused(tmp_path, axis):
    plan = make_plan([compose_run(f"paths.output={tmp_path}", *more) for more in ([], [axis], ["heads=2"])])
    with pytest.raises(ConfigError, match=r"expected one duration|expected one data set and share"):
        Halving(2, Pool(), plan)


GRID = ["-m", "head=seqpool,gap,ga", "heads=2", "duration='2 epochs'", *TINY]


@pytest.mark.slow
def test_the_command_screens_repeats_nothing_and_without_halving_ends_as_if_never_screened(tmp_path):
    job = [*GRID, f"paths.output={tmp_path / 'screened'}", "tracking=none"]
    first = train(*job, "hydra.launcher.halving=3")
    assert first.returncode == 0, first.stderr
    assert "halving by 3: 3 cells until epoch 1, 1 to the end (2)" in first.stderr
    (sweep,) = (tmp_path / "screened" / "sweeps").iterdir()
    runs = [RunFolder(path) for path in (tmp_path / "screened" / "runs").iterdir()]
    out = [folder for folder in runs if folder.state() is RunState.partial]
    assert [[entry.epoch for entry in folder.metrics_log.entries()] for folder in out] == [[1], [1]]
    states = [row["state"] for row in csv.DictReader((sweep / "table.csv").open())]
    assert sorted(states) == ["finished", *["screened out at 1 of 2 epochs"] * 2]
    assert "SCREENED, NOT FULL-LENGTH: 2 of 3 cells" in first.stdout.replace("\n", " ")
    status = show("latest", tmp_path / "screened")
    assert "3 runs: 1 finished, 2 screened out" in status and "partial" not in status
    assert desired_run(out[0], None).tags["headsweep.screened_out"] == "1 of 2 epochs"
    assert (desired_run(out[0], None).status, desired_sweep(SweepFolder(sweep)).status) == ("KILLED", "FINISHED")

    stamps = {path: path.stat().st_mtime_ns for folder in runs for path in (folder.checkpoint, folder.metrics_log.path)}
    again = train(*job, "hydra.launcher.halving=3")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    whole = train(*job)
    assert whole.returncode == 0, whole.stderr
    assert "1 done already, 2 to be continued" in whole.stderr and "SCREENED" not in whole.stdout
    assert "headsweep.screened_out" not in desired_run(out[0], None).tags
    for folder in out:
        other = never_screened(tmp_path / "whole", folder)
        assert contents(folder) == contents(other)
        kept = weights(other)
        assert all(torch.equal(value, kept[name]) for name, value in weights(folder).items())


def never_screened(output, folder: RunFolder) -> RunFolder:
    """The same run, trained in one go with as many threads."""
    head = folder.record().config["head"]["name"]
    short = [word for word in GRID[2:] if not word.startswith("hydra")]
    run = planned(output, f"head={head}", *short)
    train_folder(run, lambda progress: None)
    return run


def contents(folder: RunFolder):
    return [(entry.step, entry.metrics) for entry in folder.metrics_log.entries()]

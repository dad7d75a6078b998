"""`headsweep table` of a study with variants or tuned keys, from the files of its runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headsweep.tracking import atomic_files

TOPS = {("seqpool", 1e-3): 0.80, ("seqpool", 1e-2): 0.70, ("ga", 1e-3): 0.75, ("ga", 1e-2): 0.86}
WOBBLE = (0.001, -0.002, 0.003)


@pytest.fixture
def runs(make_run):
    """Two heads by two learning rates with three seeds; each is as good on validation images as on test images."""

    def make(lr, head, seed, top1, **options):
        folder = make_run(head, 1, seed, top1, optimizer__lr=lr, **options)
        result = folder.result()
        folder.finish(replace(result, metrics={**result.metrics, "val/top1": top1}))
        return folder

    return [
        make(lr, head, seed, top1 + wobble * scale)
        for scale, ((head, lr), top1) in enumerate(TOPS.items(), start=1)
        for seed, wobble in enumerate(WOBBLE)
    ]


@pytest.fixture
def plan(tmp_path):
    """Write the plan of the sweep `pilot`, with what its study declares."""

    def write(folders, **design):
        names = [folder.path.name for folder in folders]
        content = {"axes": ["head.name", "optimizer.lr", "seed"], "runs": names, "design": design}
        atomic_files.write_json(tmp_path / "sweeps" / "pilot" / "plan.json", content)

    return write


@pytest.fixture
def give(give):
    """Exit code and output of `headsweep table ARGUMENTS`, with single blanks."""

    def run(*arguments):
        code, text = give(*arguments)
        return code, " ".join(text.split())

    return run


def test_declared_keys_are_tuned_and_given_ones_too(runs, plan, give):
    columns = ("pilot", "--columns", "top1,difference")
    plan(runs)
    code, text = give(*columns)
    assert code == 0 and "NOT TUNED" in text and "ga 1 0.01 86.27" in text and "ga 1 0.001 75.20" in text
    code, text = give(*columns, "--tune", "optimizer.lr")
    assert code == 0 and "NOT TUNED" not in text and "ga 1 0.01 *86.27" in text and "75.20" not in text
    plan(runs, tune=["optimizer.lr"])
    assert give(*columns) == (code, text)
    assert "NOT TUNED" in give(*columns, "--tune", "none")[1]
    code, text = give("pilot", "--baseline", "optimizer.lr=0.01")
    assert code == 2 and "add --tune none to compare all values" in text
    assert give("pilot", "--baseline", "optimizer.lr=0.01", "--tune", "none")[0] == 0


@pytest.mark.parametrize("ending", ["md", "tex", "html", "json"])
def test_a_written_table_records_what_was_tuned_and_is_verified(runs, plan, give, tmp_path, ending):
    plan(runs)
    file = tmp_path / f"table.{ending}"
    code, text = give("pilot", "--tune", "optimizer.lr", "--baseline", "head=ga", "--write", file)
    assert code == 0 and "made by headsweep table pilot --baseline head=ga --tune optimizer.lr" in text
    assert give("--verify", file) == (0, f"{file}: 1 table agrees with the runs")
    file.write_text(file.read_text().replace("--tune optimizer.lr", ""))
    assert give("--verify", file)[0] == 1


def test_a_pivot_of_variants_by_head(runs, plan, give):
    groups = list(dict.fromkeys(folder.record().group for folder in runs))
    names = dict(zip(groups, ["paper", "fast", "paper", "fast"], strict=True))
    plan(runs, variants=names, variant_keys=["optimizer.lr"], baseline="paper")
    code, text = give("pilot", "--rows", "variant", "--cols", "head")
    assert code == 0 and "variant head seqpool head ga paper 80.07 ± 0.63 75.20 ± 1.88 fast 70.13 ± 1.25 *86.27" in text
    text = give("pilot", "--columns", "difference", "--baseline", "variant=fast")[1]
    assert "seqpool 1 paper *+9.93" in text
    assert "ga 1 fast baseline" in text and "ga 1 paper \N{MINUS SIGN}11.07" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tune", "optimizer.rate"), "--tune optimizer.rate: unknown key"),
        (("--tune", "optimizer.name"), "--tune optimizer.name: all cells have the same value; expected two or more"),
        (("--tune", "head"), "--tune head: expected a hyper-parameter, e.g. optimizer.lr; head is never tuned"),
        *((("--tune", key), f"--tune {key}: expected a hyper-") for key in ("heads", "seed", "dataset", "model.name")),
        (
            ("--tune", "optimizer.lr", "--baseline", "optimizer.lr=0.01"),
            "--baseline optimizer.lr=...: optimizer.lr is tuned, so its value is",
        ),
        (
            ("--tune", "optimizer.lr", "--metric", "val_top1"),
            "SELECTED ON THE REPORTED IMAGES: val_top1 is of the images",
        ),
    ],
)
def test_a_mistake_is_one_line(runs, plan, give, options, message):
    plan(runs)
    code, text = give("pilot", *options)
    assert code == 2 and message in text


def test_unequal_budgets_are_refused_unless_marked(runs, plan, give):
    plan(runs[3:])
    code, text = give("pilot", "--tune", "optimizer.lr")
    assert code == 2
    assert text == (
        "headsweep: UNEQUAL TUNING: 1 setting of head=seqpool heads=1; 2 settings of head=ga heads=1. More settings "
        "favor an arm. Add --mark to show the table anyway, without a claim"
    )
    code, text = give("pilot", "--tune", "optimizer.lr", "--mark", "--columns", "difference,p")
    assert code == 0 and "undecided" in text and "UNEQUAL TUNING" in text

"""`import headsweep as hs`: sweeps, results and models from Python."""

import json
import os
import shutil
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from hydra.core.global_hydra import GlobalHydra

import headsweep as hs
import programs
from commands import TINY, fresh, wait_for
from headsweep.config import PROJECT_ROOT
from programs import Program

GOLDEN = PROJECT_ROOT / "tests" / "golden" / "output"
QUICK = [*TINY, "duration=4 steps", "tracking=none"]
# A script that does not guard its call with __name__, in which an event loop runs, as in a notebook.
SCRIPT = """
import asyncio, json, sys
import headsweep as hs

async def main():
    first = hs.sweep("head=seqpool,ga", *sys.argv[2:], seeds=1, output=sys.argv[1])
    second = hs.sweep("head=seqpool,ga", *sys.argv[2:], seeds=2, output=sys.argv[1])
    return first, second

first, second = asyncio.run(main())
import torch
from hydra.core.global_hydra import GlobalHydra
model = hs.load(second[0].fingerprints[1], output=sys.argv[1])
print(json.dumps({
    "n": [[row.top1.n for row in table] for table in (first, second)],
    "heads": list(second.to_frame()["head"]),
    "logits": list(model(torch.zeros(2, 1, 16, 16)).shape),
    "training": model.training,
    "argv": sys.argv[1],
    "hydra": GlobalHydra.instance().is_initialized(),
}))
"""
STOPPED = """
import sys
import headsweep as hs
try:
    hs.sweep(*sys.argv[2:], output=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_the_import_is_light_and_lists_its_names():
    answer = fresh(
        "-c",
        "import sys, headsweep as hs; print(*dir(hs)); hs.UserError; hs.__version__\n"
        "print(sorted({'torch', 'mlflow', 'hydra', 'pandas'} & set(sys.modules)))",
    )
    names, heavy = answer.stdout.splitlines()
    assert {"sweep", "results", "load", "Results", "UserError", "FailedRunsError"} <= set(names.split())
    assert heavy == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        _ = hs.nosuch


@pytest.mark.slow
def test_two_sweeps_in_a_script_with_a_running_event_loop(tmp_path):
    answer = programs.run(["-c", SCRIPT, str(tmp_path), *QUICK])
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["n"] == [[1, 1], [2, 2]] and found["heads"] == ["seqpool", "ga"]
    assert found["logits"] == [2, 10] and not found["training"]
    assert found["argv"] == str(tmp_path) and not found["hydra"]
    (plan,) = (json.loads(file.read_text()) for file in tmp_path.glob("sweeps/*/plan.json"))
    assert all(command.startswith("headsweep train -m head=seqpool,ga ") for command in plan["commands"])


@pytest.mark.slow
def test_an_interrupted_sweep_leaves_checkpoints(tmp_path):
    program = Program(["-c", STOPPED, str(tmp_path), "seed=0,1", *TINY, "duration=500 epochs", "tracking=none"])
    wait_for(lambda: len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 2)
    program.send_signal(signal.SIGINT)
    answer, _ = program.communicate(60)
    assert answer.endswith("interrupted\n") and program.returncode == 0
    assert not list(tmp_path.glob("runs/*/failure.txt"))


@pytest.mark.parametrize(
    ("words", "seeds", "message"),
    [
        (["heads=0"], None, "heads=0: expected an integer >= 1"),
        (["head=nosuch"], None, "head=nosuch: unknown head; known: "),
        (["a b"], None, "a b: expected KEY=VALUE"),
        (["-m"], None, "-m: expected an override as a text"),
        ([("heads", 1)], None, "('heads', 1): expected an override as a text"),
        (["seed=0,1"], 2, "seeds=2: expected either seeds or seed, found both"),
        (["heads=1"], 0, "seeds=0: expected an integer in [1, 9999]"),
        (["hydra/launcher=basic"], None, "hydra.launcher.class"),
    ],
)
def test_a_mistake_is_an_exception_of_one_line_and_starts_nothing(words, seeds, message, tmp_path):
    before = sys.argv, sys.modules["__main__"]
    with pytest.raises(hs.UserError) as error:
        hs.sweep(*words, seeds=seeds, output=tmp_path)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"{type(error.value).__name__}: {error.value}"]
    assert not list(tmp_path.iterdir()) and (sys.argv, sys.modules["__main__"]) == before
    assert not GlobalHydra.instance().is_initialized()


def test_another_thread_is_refused(tmp_path):
    errors: list[Exception] = []

    def give():
        try:
            hs.sweep("heads=1", output=tmp_path)
        except hs.UserError as error:
            errors.append(error)

    thread = threading.Thread(target=give)
    thread.start()
    thread.join()
    assert "expected the main thread" in str(errors[0])


def test_results_are_rows_a_frame_and_html():
    found = hs.results(output=GOLDEN, mark=True)
    assert [(row.head, row.heads) for row in found] == [(row.head, row.heads) for row in found.table.rows] != []
    frame = found.to_frame()
    finished = frame[frame.state == "finished"]
    assert list(finished.top1_mean) == [row.top1.mean for row in found if row.state == "finished"]
    page = found._repr_html_()
    assert page.startswith('<div class="headsweep">') and page.count("<tr>") == len(found.table.by_cell) + 1
    assert repr(found).startswith("| head | heads |") and found[:1] == found.table.rows[:1]
    narrow = hs.results("digits", output=GOLDEN, columns="top1", baseline="head=seqpool", mark=True)
    assert narrow.request.command().startswith("headsweep table digits-cct_2_3x2-28b5bd98 --columns top1 --baseline")
    assert (
        ">params (k)<" in page
        and ">params (k)<" not in narrow._repr_html_()
        and len(narrow.to_frame().columns) == len(frame.columns)
    )


def test_a_sweep_of_inconsistent_runs_is_compared_with_a_warning_and_results_refuse_it(tmp_path, monkeypatch):
    output = shutil.copytree(GOLDEN, tmp_path / "outputs")
    record = output / "runs" / "010b2d79f82e" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"code": {"commit": "0" * 40}}))
    plan = SimpleNamespace(name="digits-cct_2_3x2-28b5bd98", output=output)
    monkeypatch.setattr("headsweep.api.sweep._train", lambda words: plan)
    assert any(note.text.startswith("MIXED CODE VERSIONS") for note in hs.sweep("head=ga").table.warnings)
    with pytest.raises(hs.UserError, match=r"^inconsistent runs: .* Add mark=True to compare them anyway"):
        hs.results(plan.name, output=output)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hs.results("nosuch", output=GOLDEN), "nosuch: no such sweep; known: digits-cct_2_3x2-28b5bd98"),
        (lambda: hs.results(output=GOLDEN, metric="nosuch"), "metric=nosuch: unknown metric"),
        (lambda: hs.results(output=GOLDEN, columns="nosuch"), "columns=nosuch: unknown column; known: "),
        (lambda: hs.load("nosuch", output=GOLDEN), "nosuch: no run of that fingerprint or name"),
        (lambda: hs.results(output=GOLDEN, margin=200), "margin=200: expected "),
        (lambda: hs.results(3, output=GOLDEN), "source=3: expected a text"),
        (lambda: hs.results(output=GOLDEN, columns=["n"]), "columns=['n']: expected a text"),
        (lambda: hs.load(None), "run=None: expected a text, the fingerprint or name of a run, or its folder"),
        (lambda: hs.load("010b", output=GOLDEN, weights="first"), "weights=first: expected last or best"),
    ],
)
def test_what_is_not_there_is_an_exception_of_one_line(call, message):
    with pytest.raises(hs.UserError) as error:
        call()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_the_default_folder_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("HEADSWEEP_OUTPUT", str(GOLDEN))
    assert len(hs.results(mark=True)) == len(hs.results(output=GOLDEN, mark=True))


def notebook() -> list[dict[str, object]]:
    return json.loads((PROJECT_ROOT / "examples" / "first_sweep.ipynb").read_text(encoding="utf-8"))["cells"]


def test_the_notebook_was_executed_from_top_to_bottom():
    cells = [cell for cell in notebook() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    text = json.dumps([cell["outputs"] for cell in cells])
    assert '"error"' not in text and "text/html" in text and "/home/" not in text and "/tmp/" not in text


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """Its cells in order, in one namespace and within an event loop, as a kernel executes them."""
    source = "\n\n".join("".join(cell["source"]) for cell in notebook() if cell["cell_type"] == "code")
    assert "duration=2 epochs" in source
    for word, others in {"duration=2 epochs": QUICK, "heads=1,4": ["heads=4"]}.items():
        source = source.replace(f'"{word}"', ", ".join(map(repr, others)))
    script = f"import asyncio\n\nasync def main():\n    exec({source!r}, {{}})\n\nasyncio.run(main())\n"
    answer = programs.run(["-c", script], env={**os.environ, "HEADSWEEP_OUTPUT": str(tmp_path)})
    assert answer.returncode == 0, answer.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 4

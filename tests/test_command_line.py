"""Help, the composed job, completion and mistakes, which need no torch."""

import subprocess

import pytest

from commands import TRAIN, command, enter, light, train
from headsweep.config import HEADS


@pytest.mark.slow
@pytest.mark.parametrize("question", ["--help", "--cfg=job", "--info=defaults", "head=none_such", "heads=0"])
def test_it_answers_without_torch_and_mlflow(question, tmp_path):
    """A module that ends the process stands in for torch and mlflow."""
    for heavy in ("torch", "mlflow", "timm", "pandas"):
        (tmp_path / f"{heavy}.py").write_text("raise SystemExit('imported too early')")
    words = {"--cfg=job": ["--cfg", "job"], "--info=defaults": ["--info", "defaults"]}.get(question, [question])
    answer = light(TRAIN, *words, PYTHONPATH=str(tmp_path))
    assert "imported too early" not in answer.stdout + answer.stderr
    assert answer.returncode == (2 if "=" in question and not question.startswith("--") else 0)


@pytest.mark.slow
def test_completion_offers_the_heads():
    answer = subprocess.run(
        [*command("-sc", "query=bash")],
        env={"COMP_LINE": "python src/train.py head=", "COMP_POINT": "999", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert {"head=ga", "head=gap", "head=seqattn", "head=seqpool"} <= set(answer.stdout.split())


MISTAKES = [
    (
        ["+sweeps=fig1"],
        "headsweep: +sweeps=fig1: expected -m, as a study is a grid, whose axes a single run would drop; add -m",
    ),
    (["-m", "heads=1,2", "--cfg", "job"], "headsweep: --cfg and -m: expected one of them"),
    (
        ["head=attention"],
        f"headsweep: head=attention: unknown head; known: {', '.join(sorted(HEADS))}",
    ),
    (["model=resnet"], "headsweep: model=resnet: unknown model; known: cct_14_7x2"),
    (["heads=0"], "headsweep: heads=0: expected an integer >= 1"),
    (["-m", "heads=1,0"], "headsweep: heads=0: expected an integer >= 1"),
    (["optimizer.lrr=1"], "headsweep: optimizer.lrr: unknown key; did you mean optimizer.lr"),
    (["batch=3"], "headsweep: batch: unknown key; did you mean batch_size"),
    (["optimizer.lr=fast"], "headsweep: optimizer.lr=fast: expected a number"),
    (
        ["-m", "head=seqpool,ga", "head.gram_dim=32"],
        "headsweep: head.gram_dim: is an option of head=sg and head=ga alone",
    ),
    (["head=seqattn", "model.width=48"], "headsweep: model.width=48: expected a multiple of 32 with head=seqattn"),
    (["seqattn"], "headsweep: seqattn: expected KEY=VALUE"),
    (["dataset.num_classes=7"], "headsweep: dataset.num_classes=7: "),
    (["dataset=imagefolder"], "headsweep: "),
    (["dataset=cifar100"], "headsweep: "),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_line_and_starts_nothing(arguments, message, tmp_path, capfd, hydra_state):
    assert enter(*arguments, f"paths.output={tmp_path / 'outputs'}", f"paths.data={tmp_path}") == 2
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err.startswith(message) and shown.err.count("\n") == 1
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
def test_full_errors_are_there_for_those_who_ask():
    answer = train("heads=0", HYDRA_FULL_ERROR="1")
    assert answer.returncode != 0
    assert "Traceback" in answer.stderr

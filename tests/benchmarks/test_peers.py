"""The benchmark against timm's train.py, with its commands replaced."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from timm.data import ImageDataset

TIMM = "--timm-train"


@pytest.fixture
def peers(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("TIMM_TRAIN", raising=False)
    return benchmark("peers")


def test_without_the_script_it_is_skipped_in_one_line(peers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    peers.main([])
    found = "peers: skipped; --timm-train=FILE or TIMM_TRAIN=FILE names train.py of timm's repository\n"
    assert capsys.readouterr().out == found


def test_a_script_that_does_not_exist_is_named(peers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        peers.main([TIMM, "nowhere/train.py"])
    assert "--timm-train=nowhere/train.py: expected train.py of timm's repository" in capsys.readouterr().err


def test_both_sides_train_the_same_runs(
    peers: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, commands = tmp_path / "train.py", []
    script.touch()
    monkeypatch.setattr(peers, "command", lambda words: commands.append(_checked(words)))
    peers.main([TIMM, str(script), "--images", "20", "--rounds", "2", "--records", str(tmp_path)])
    sweeps = [options for options in commands if "dataset.root" in options]
    runs = [options for options in commands if "model-kwargs" in options]
    assert [(it["heads"], it["seed"]) for it in sweeps] == [("1,4,8", "0,1,2")] * 2
    expected = {(f"heads={heads}", str(seed)): 2 for heads in (1, 4, 8) for seed in (0, 1, 2)}
    assert Counter((it["model-kwargs"], it["seed"]) for it in runs) == expected
    for ours, theirs in (
        ("batch_size", "batch-size"),
        ("optimizer.lr", "lr"),
        ("optimizer.weight_decay", "weight-decay"),
    ):
        assert {it[ours] for it in sweeps} == {it[theirs] for it in runs}
    row = rows()["timm / headsweep, float32"]
    assert {side: len(samples) for side, samples in row["samples"].items()} == {"timm": 2, "headsweep": 2}


def _checked(words: list[str]) -> dict[str, str]:
    """The options of a command, whose images exist when it starts."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("import"))
    pairs |= {word[2:]: after for word, after in pairwise(words) if word.startswith("--")}
    root = pairs.get("dataset.root") or pairs["data-dir"]
    assert [len(ImageDataset(f"{root}/{split}")) for split in ("train", "test")] == [20, 5]
    return pairs

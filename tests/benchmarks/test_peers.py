"""The benchmark against timm's train.py, with its commands replaced."""

from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import ImageDataset, resolve_data_config

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


def test_all_sides_train_the_same_runs(peers: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script, commands = tmp_path / "train.py", []
    script.touch()
    monkeypatch.setattr(peers, "command", lambda words: commands.append(_checked(words)))
    peers.main([TIMM, str(script), "--images", "20", "--rounds", "2", "--records", str(tmp_path)])
    sweeps = [options for options in commands if "dataset.root" in options]
    runs = [options for options in commands if options.get("model") == "cct_2_3x2_32"]
    published = [options for options in commands if options.get("model") == "published_cct_2_3x2_32"]
    assert len(commands) == len(sweeps) + len(runs) + len(published)
    found = [(it["heads"], it["seed"], it["precision"]) for it in sweeps]
    assert Counter(found) == {("1,4,8", "0,1,2", precision): 2 for precision in ("float32", "bfloat16")}
    precisions = (None, "bfloat16")  # timm's default is float32
    cells = product((1, 4, 8), (0, 1, 2), precisions)
    expected = {(f"heads={heads}", str(seed), precision): 2 for heads, seed, precision in cells}
    assert Counter((it["model-kwargs"], it["seed"], it.get("amp-dtype")) for it in runs) == expected
    plain = [it for it in runs if "amp-dtype" not in it]
    assert sorted(map(_but_for_paths, published)) == sorted(map(_but_for_paths, plain))  # in float32 alone
    for ours, theirs in (
        ("batch_size", "batch-size"),
        ("optimizer.lr", "lr"),
        ("optimizer.weight_decay", "weight-decay"),
    ):
        assert {it[ours] for it in sweeps} == {it[theirs] for it in runs}
    sides = {name: list(row["samples"]) for name, row in rows().items()}
    assert sides == {
        "published / headsweep, float32": ["published", "headsweep"],
        "timm / headsweep, float32": ["timm", "headsweep"],
        "timm / headsweep, bfloat16": ["timm", "headsweep"],
        "timm float32 / headsweep bfloat16": ["timm float32", "headsweep bfloat16"],
    }
    assert {len(samples) for row in rows().values() for samples in row["samples"].values()} == {2}


def test_each_row_has_the_times_of_its_own_sides(
    peers: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that only the sides move."""
    script, clock = tmp_path / "train.py", [0.0]
    script.touch()
    took = {
        ("published", "float32"): 12,
        ("timm_loop", "float32"): 6,
        ("sweep", "float32"): 4,
        ("timm_loop", "bfloat16"): 3,
        ("sweep", "bfloat16"): 2,
    }

    def side(name: str) -> Any:
        def train(args: Any, precision: str, images: Path, output: Path, published: bool = False) -> None:
            clock[0] += took["published" if published else name, precision]

        return train

    for name in ("timm_loop", "sweep"):
        monkeypatch.setattr(peers, name, side(name))
    monkeypatch.setattr(peers.time, "monotonic", lambda: clock[0])
    words = [TIMM, str(script), "--images", "1", "--records", str(tmp_path)]
    peers.main(words)
    assert [list(row["samples"].values()) for row in rows().values()] == [
        [[12], [4]],
        [[6], [4]],
        [[3], [2]],
        [[6], [2]],
    ]
    assert "timm float32 / headsweep bfloat16: 3.00 (3.00 to 3.00)\n" in capsys.readouterr().out
    peers.main([*words[:-1], str(tmp_path / "other"), "--precision", "bfloat16"])
    assert "float32" not in capsys.readouterr().out
    peers.main([*words[:-1], str(tmp_path / "third"), "--sides", "published", "headsweep"])
    assert "timm" not in capsys.readouterr().out


def test_sides_without_a_ratio_are_refused(peers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        peers.main(["--sides", "published", "headsweep", "--precision", "bfloat16"])
    found = "--sides=published,headsweep --precision=bfloat16: expected both sides of a ratio"
    assert found in capsys.readouterr().err


def test_the_published_model_is_that_of_headsweep_for_timm(benchmark: Any) -> None:
    """As many parameters; with the same weights, the same mean logits and the same images."""
    published = benchmark("published")
    options: dict[str, Any] = {"num_classes": 5, "heads": 3}
    torch.manual_seed(0)
    model = timm.create_model("cct_2_3x2_32", **options).eval()
    torch.manual_seed(0)
    reference = timm.create_model("published_cct_2_3x2_32", **options).eval()
    assert isinstance(reference, published.PublishedModel)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in reference.parameters()) == count
    assert resolve_data_config({}, model=reference) == resolve_data_config({}, model=model)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(reference(images), model(images), rtol=1e-4, atol=1e-4)


def _but_for_paths(options: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(item for item in options.items() if item[0] not in {"model", "output"})


def _checked(words: list[str]) -> dict[str, str]:
    """The options of a command, whose images exist when it starts."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("import"))
    pairs |= {word[2:]: after for word, after in pairwise(words) if word.startswith("--")}
    root = pairs.get("dataset.root") or pairs["data-dir"]
    assert [len(ImageDataset(f"{root}/{split}")) for split in ("train", "test")] == [20, 5]
    return pairs

"""A run keeps the precision that it began in, whatever `precision=auto` would be on the device that continues it.

What another kind of device chooses is simulated: `began_on_a_gpu` and `now_on_a_cpu` replace its choice.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import factories
from commands import give
from comparing import differences
from headsweep.analysis import inspect
from headsweep.config import Precision
from headsweep.data.token_folder import folders_in
from headsweep.errors import ConfigError
from headsweep.models import model_of
from headsweep.plan.frozen import frozen
from headsweep.run import precision as precisions
from headsweep.run.train_run import train_folder, trial
from headsweep.tracking.inspection import Question
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.typed_files import Damaged
from headsweep.training.progress import Stopped
from headsweep.training.ranks import Ranks

CPU = torch.device("cpu")
KEPT = "precision=auto: keeps bfloat16, in which the run began; on cpu it would begin in float32"
Choose = Callable[[Precision], None]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Let `precision=auto` be this, as on another kind of device."""

    def change(chosen: Precision) -> None:
        monkeypatch.setattr(Precision, "on", lambda self, device: chosen if self is Precision.auto else self)

    return change


def planned(output: Path, *overrides: str) -> RunFolder:
    return factories.planned(output, "duration='2 epochs'", "tracking=none", *overrides)


def train(folder: RunFolder, until: int | None = None) -> None:
    try:
        train_folder(folder, lambda progress: None, until=until)
    except Stopped:
        assert until is not None


def precision_in_result(folder: RunFolder) -> str:
    result = folder.result()
    assert result is not None
    return str(result.environment["precision"])


def test_a_resumed_run_ends_with_the_bits_of_the_precision_that_it_began_in(
    tmp_path: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    whole, resumed = planned(tmp_path / "whole"), planned(tmp_path / "resumed")
    choose(Precision.bfloat16)
    train(whole)
    train(resumed, until=1)
    assert resumed.precision() == "bfloat16" and not caplog.messages
    choose(Precision.float32)
    train(resumed)
    assert differences(whole, resumed) == []
    assert precision_in_result(resumed) == precision_in_result(whole) == resumed.precision() == "bfloat16"
    assert caplog.messages == [KEPT]


def test_a_run_that_has_no_weights_yet_begins_anew_with_the_choice_of_its_device(
    tmp_path: Path, choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    folder = planned(tmp_path)
    folder.write_precision("bfloat16")  # an attempt that was killed in its first epoch
    train(folder, until=1)
    assert folder.precision() == "float32" and not caplog.messages


def test_a_run_that_an_older_version_began_continues_as_its_device_chooses(tmp_path: Path) -> None:
    folder = planned(tmp_path)
    train(folder, until=1)
    (folder.path / "precision.txt").unlink()
    train(folder)
    assert folder.precision() == precision_in_result(folder) == "float32"


def test_a_given_precision_is_that_of_the_run_whatever_was_recorded(tmp_path: Path) -> None:
    folder = begun(planned(tmp_path, "precision=bfloat16"), "float32")
    assert precisions.begin(frozen(folder), folder, CPU, Ranks()) is Precision.bfloat16
    assert folder.precision() == "bfloat16"


def begun(folder: RunFolder, precision: str) -> RunFolder:
    """A run with a checkpoint of its initial weights."""
    folder.write_precision(precision)
    torch.save({"model": model_of(frozen(folder)).state_dict(), "state_dict_ema": None}, folder.checkpoint)
    return folder


def test_a_device_that_cannot_compute_in_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "computes_in", lambda precision, device: precision is Precision.float32)
    kept, given = begun(planned(tmp_path), "bfloat16"), planned(tmp_path, "precision=bfloat16")
    expected = "expected a device with bfloat16, in which the run began, found cpu; resume it on such a device"
    with pytest.raises(ConfigError, match=f"^precision=auto: {expected}$"):
        train(kept)
    expected = "expected a device with bfloat16, found cpu; give precision=float32"
    with pytest.raises(ConfigError, match=f"^precision=bfloat16: {expected}$"):
        train(given)
    assert kept.precision() == "bfloat16" and given.precision() is None


def test_other_ranks_use_the_precision_of_the_first_and_write_nothing(tmp_path: Path) -> None:
    class Second(Ranks):
        def gather(self, value: Precision) -> list[Precision]:  # type: ignore[override]
            return [Precision.bfloat16, value]

    folder = planned(tmp_path)
    assert precisions.begin(frozen(folder), folder, CPU, Second(1, 1)) is Precision.bfloat16
    assert folder.precision() is None


def test_inspection_and_measurements_compute_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(planned(tmp_path), "bfloat16")
    assert trial(frozen(folder)).run.precision is Precision.bfloat16
    used = []

    def compute(model: object, run: object, images: object) -> None:
        used.append(run.precision)  # type: ignore[attr-defined]
        raise InterruptedError

    monkeypatch.setattr(inspect, "_diversity", compute)
    with pytest.raises(InterruptedError):
        inspect.inspect(folder, Question("test", None, 1), None)
    assert used == [Precision.bfloat16]


def test_missing_tokens_are_computed_in_the_precision_of_the_others(tmp_path: Path, choose: Choose) -> None:
    """One folder is read by all heads, which may have begun on other kinds of devices."""
    probe = ["backbone=random", "augmentation=none", "tokens.cache=float32", "head=gap", "schedule.warmup='0 epochs'"]
    choose(Precision.bfloat16)
    train(planned(tmp_path, *probe))
    (tokens,) = folders_in(tmp_path / "cache")
    record, first = tokens.record(), tokens.shard("train", 0)
    assert record is not None and record.precision == "bfloat16"
    before = first.read_bytes()
    first.unlink()
    choose(Precision.float32)
    later = planned(tmp_path, *probe, "optimizer.lr=1e-3")
    train(later)
    assert first.read_bytes() == before
    assert precision_in_result(later) == "float32"  # that of its head
    tokens.write_record(replace(record, precision=None))  # of an older version
    first.unlink()
    train(planned(tmp_path, *probe, "optimizer.lr=2e-3"))
    assert first.read_bytes() != before


def test_another_word_in_its_file_is_named(tmp_path: Path) -> None:
    folder = planned(tmp_path)
    (folder.path / "precision.txt").write_text("half\n")
    with pytest.raises(
        Damaged,
        match=r"precision.txt, expected float32 or bfloat16, found 'half'; write the precision that the run began in",
    ):
        folder.precision()
    assert isinstance(folder.damage(), Damaged)
    for precision in set(Precision) - {Precision.auto}:
        folder.write_precision(precision.value)
        assert folder.precision() == precision.value


@pytest.mark.parametrize("text", ["half\n", "float32\n", ""])
def test_of_a_run_that_is_over_the_result_counts_and_not_its_file(text: str, tmp_path: Path, capsys) -> None:
    folder = planned(tmp_path)
    folder.finish(RunResult("finished", {}, 2, 6, {}, {"precision": "bfloat16"}))
    (folder.path / "precision.txt").write_text(text)
    assert folder.precision() == "bfloat16" and folder.damage() is None
    assert give("explain", folder.path.name, "--output", tmp_path) == 0
    assert "  precision bfloat16, chosen by precision=auto\n" in capsys.readouterr().out


def test_explain_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auto, given = planned(tmp_path), planned(tmp_path, "precision=float32")
    auto.finish(RunResult("finished", {}, 2, 6, {}, {"precision": "bfloat16"}))  # by an older version
    given.write_precision("float32")
    for folder in (auto, given):
        assert give("explain", folder.path.name, "--output", tmp_path) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  precision ")]
    assert lines == ["  precision bfloat16, chosen by precision=auto", "  precision float32"]

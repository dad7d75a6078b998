"""A run on two processes (gloo) equals that on one, and loses nothing when a process dies."""

import os
import signal
from pathlib import Path

import pytest
import torch

import factories
import programs
from commands import TINY_RUN, command
from comparing import assert_equal
from composing import compose_run
from headsweep.config import PROJECT_ROOT
from headsweep.config.command_line import spell_out
from headsweep.errors import ConfigError, UserError
from headsweep.run.train_run import train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.training import compiled_evaluation, compiling
from headsweep.training.ranks import Ranks
from ranks import LOST, on_ranks, trained

pytestmark = pytest.mark.slow

STILL = ["model.dropout=0", "model.attention_dropout=0", "model.drop_path=0"]
SGD = [
    "optimizer=sgd",
    "optimizer.lr=0.05",
]  # AdamW's first steps are the signs of gradients, be they as small as noise
SHORT = [*TINY_RUN, "debug.eval_images=70", "duration='6 steps'", *SGD]


def planned(output: Path, *overrides: str) -> RunFolder:
    return factories.planned(output, *SHORT, *overrides)


def history(folder: RunFolder) -> dict[tuple[int, str], float]:
    return {
        (entry.step, name): value for entry in folder.metrics_log.entries() for name, value in entry.metrics.items()
    }


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    content = torch.load(folder.checkpoint, weights_only=True)
    return content["model"] | {f"average of {name}": value for name, value in (content["state_dict_ema"] or {}).items()}


@pytest.mark.parametrize(
    ("of_two", "of_one"),
    [
        (["head=ga", "heads=2", "augmentation=paper", "accumulation=2", *STILL], []),
        (["head=seqattn", "augmentation=paper", "clip_norm=0.1", "ema_decay=0.9", *STILL], []),
        (["head=seqattn", "model.dropout=0.2"], ["accumulation=2"]),
    ],
    ids=["batch norm", "no batch norm", "with dropout, one rank with as many micro-batches"],
)
def test_two_ranks_train_what_one_trains(tmp_path, of_two, of_one):
    two, one = planned(tmp_path / "two", *of_two), planned(tmp_path / "one", *of_two, *of_one)
    assert trained(two, 2) == [0, 0]
    train_folder(one, lambda progress: None)
    assert history(two) == pytest.approx(history(one), abs=1e-5)
    assert two.test_correct().tolist() == one.test_correct().tolist()
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-3, atol=1e-5)
    assert two.result().environment["ranks"] == 2 and one.result().environment["ranks"] == 1


def test_two_ranks_meet_outside_of_what_is_compiled(tmp_path, monkeypatch):
    """In the batch normalisation before the classifiers, that is: the second rank traces nothing, and still meets."""

    def of_the_first(*_: object, **options: object) -> dict[str, object]:
        return {"backend": "eager", "dynamic": False, "disable": os.environ["RANK"] != "0"}

    monkeypatch.setattr(compiling, "compile_options", of_the_first)
    monkeypatch.setattr(compiled_evaluation, "compile_options", lambda *_, **options: {"disable": True})  # none meet
    options = ["head=gap", "classifier_norm=true", *STILL]
    two, one = planned(tmp_path / "two", *options, "compile=step"), planned(tmp_path / "one", *options)
    assert trained(two, 2) == [0, 0]
    train_folder(one, lambda progress: None)
    assert two.result().environment["compile"] == "step"
    assert history(two) == pytest.approx(history(one), abs=1e-5)


def test_killed_and_stopped_two_ranks_end_with_the_same_bits(tmp_path):
    options = ["classifier_norm=true", "heads=2", "augmentation=paper", "ema_decay=0.9"]  # and dropout
    whole, parts = planned(tmp_path / "whole", *options), planned(tmp_path / "parts", *options)
    assert trained(whole, 2) == [0, 0]

    assert trained(parts, 2, asked(signal.SIGKILL, rank=1, after=9)) == [LOST, -signal.SIGKILL]
    assert (parts.failure(), parts.state()) == (None, RunState.partial)
    assert torch.load(parts.checkpoint, weights_only=True)["step"] == 4
    assert trained(parts, 2, asked(signal.SIGTERM, rank=1, after=0)) == [0, 0]
    assert torch.load(parts.checkpoint, weights_only=True)["step"] == 5  # both have stopped in the middle of an epoch
    assert trained(parts, 2) == [0, 0]
    assert parts.result() is not None
    assert history(parts) == history(whole)
    assert_equal(weights(parts), weights(whole))


def asked(number: int, rank: int, after: int):
    """A stop function; after so many calls, rank `rank` is killed or requested to stop."""
    calls = iter([False] * after)

    def stop() -> bool:
        if os.environ["RANK"] != str(rank) or not next(calls, True):
            return False
        if number == signal.SIGKILL:
            os.kill(os.getpid(), number)
        return True

    return stop


def test_a_run_that_fails_on_another_rank_has_failed_and_ends_on_all(tmp_path):
    folder = planned(tmp_path)

    luck = iter([False])

    def unlucky() -> bool:
        if os.environ["RANK"] == "1" and not next(luck, True):
            raise RuntimeError("rank 1 is unlucky")
        return False

    assert trained(folder, 2, unlucky) == [1, 1]
    assert folder.failed_tries() == 1
    assert folder.failure().startswith("Traceback") and "RuntimeError: rank 1 is unlucky" in folder.failure()


def test_ranks_average_and_agree():
    def work(ranks: Ranks) -> None:
        values = [torch.full((2, 3), float(ranks.rank)), torch.tensor(10.0 * ranks.rank)]
        ranks.average(values)
        assert torch.equal(values[0], torch.full((2, 3), 1.0)) and values[1].item() == 10
        assert ranks.any(ranks.rank == 2) and not ranks.any(False)
        assert ranks.gather(f"rank {ranks.rank}") == ["rank 0", "rank 1", "rank 2"]

    assert on_ranks(3, work) == [0, 0, 0]


def test_a_batch_size_that_ranks_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=32: expected a multiple of 6: 3 processes with accumulation=2 "):
        compose_run("batch_size=32", "accumulation=2").check_ranks(3)


def test_a_grid_under_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="-m: expected one run under torchrun, whose processes train it together"):
        spell_out(["-m", "heads=1,2"])


@pytest.mark.slow
def test_torchrun_trains_one_run_and_only_rank_0_prints(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    job = [*torchrun, *command("head=ga", "heads=2", "tracking=none", *SHORT, f"paths.output={tmp_path}")[1:]]
    environment = {**os.environ, "PYTHON_EXEC": programs.write_interpreter(tmp_path / "python", ".runs")}
    done = programs.run(job, cwd=PROJECT_ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nruns  ") == 1 and done.stderr.count("[1/1]") == 1
    (path,) = tmp_path.glob("runs/*")
    assert RunFolder(path).result().environment["ranks"] == 2

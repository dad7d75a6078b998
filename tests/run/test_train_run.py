"""One run in this process, from its folder to its result."""

import errno
import os
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from threading import Event

import pytest
import torch

import factories
from commands import TINY_RUN
from comparing import assert_equal, differences
from composing import compose_run
from factories import weights
from headsweep.data.datasets import open_splits
from headsweep.data.loader import EvalLoader
from headsweep.errors import UserError
from headsweep.launch.local import worker
from headsweep.models import model_of
from headsweep.plan.frozen import frozen
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.load_model import trained as load_trained
from headsweep.run.train_run import train_folder
from headsweep.tracking.metrics_log import series
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.typed_files import Damaged
from headsweep.training.checkpoint import Snapshot
from headsweep.training.evaluation import evaluate
from headsweep.training.progress import Busy, Progress, Stopped
from headsweep.training.ranks import Ranks
from power import synced

pytestmark = pytest.mark.slow

# The first epoch is the best on held-out images, and the last as good.
NOISY = ["duration='5 epochs'", "schedule=constant", "schedule.min_lr=0", "optimizer.lr=0.3", "seed=1"]
SHORT = TINY_RUN
EVALUATED = ("loss", "top1", "top5", "mean_per_class", "auroc")


def planned(tmp_path, *overrides: str) -> RunFolder:
    return factories.planned(tmp_path, "duration='2 epochs'", *overrides)


def trained(tmp_path, *overrides: str) -> RunFolder:
    folder = planned(tmp_path, *overrides)
    train_folder(folder, lambda progress: None)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Callable[..., RunFolder]:
    """A run of these overrides, which is trained once for all tests of this file; none may change it."""
    return cache(lambda *overrides: trained(tmp_path_factory.mktemp("once"), *overrides))


@pytest.fixture
def finished(once, tmp_path) -> RunFolder:
    """A copy of a finished run."""
    path = once().path
    return RunFolder(Path(shutil.copytree(path, tmp_path / "runs" / path.name)))


def test_a_run_logs_each_epoch_and_the_test_set_at_the_end(tmp_path):
    folder = trained(tmp_path, "heads=2")
    entries = folder.metrics_log.entries()
    per_head = ["per_head/top1_1", "per_head/top1_2"]
    assert [entry.epoch for entry in entries] == [1, 2, 2]
    assert set(entries[0].metrics) == {"train/loss", *(f"val/{m}" for m in (*EVALUATED, *per_head))}
    best = {f"best/{m}" for m in ("epoch", *EVALUATED)}
    assert set(entries[2].metrics) == best | {f"test/{m}" for m in (*EVALUATED, *per_head)}
    result = folder.result()
    assert result is not None and result.metrics == entries[1].metrics | entries[2].metrics
    assert (result.epochs, result.steps, result.state) == (2, 8, "finished")
    assert 0.1 < result.clock["peak_memory_gib"] < 64
    assert ("peak_gpu_memory_gib" in result.clock) == torch.cuda.is_available()


@pytest.mark.parametrize("held_out", [["dataset.validation=0"], []], ids=["each epoch", "at the end"])
def test_which_test_images_are_right_is_kept_of_the_last_weights(once, held_out):
    folder = once(*held_out)
    correct = folder.test_correct()
    assert correct.shape == (128,) and correct.dtype == bool
    assert correct.mean() == folder.result().metrics["test/top1"]
    assert 0 < correct.sum() < 128


@pytest.mark.parametrize(("part", "average"), [("model", []), ("state_dict_ema", ["ema_decay=0.5"])])
def test_the_weights_of_the_first_epoch_that_was_best_on_held_out_images_are_kept_and_tested(
    tmp_path, monkeypatch, part, average
):
    folder, of_epoch, save = planned(tmp_path, *NOISY, *average), {}, Snapshot.save

    def watched(self, path: Path) -> None:
        save(self, path)
        of_epoch[len(of_epoch) + 1] = weights(folder, part)

    monkeypatch.setattr(Snapshot, "save", watched)
    train_folder(folder, lambda progress: None)
    scores = series(folder.metrics_log.entries(), "val/top1")
    first_best = max(scores, key=scores.__getitem__)
    assert first_best < len(scores), "a test of the last epoch would tell nothing"
    kept = torch.load(folder.best, weights_only=True)
    assert kept["epoch"] == folder.result().metrics["best/epoch"] == first_best
    assert kept["state_dict"].keys() == of_epoch[first_best].keys()
    assert all(torch.equal(value, of_epoch[first_best][name]) for name, value in kept["state_dict"].items())
    assert on_the_test_set(folder, kept["state_dict"]) == {
        name: folder.result().metrics[f"best/{name}"] for name in EVALUATED
    }


def on_the_test_set(folder: RunFolder, state: dict[str, torch.Tensor]) -> dict[str, float]:
    run, cpu = frozen(folder), torch.device("cpu")
    model = model_of(run)
    model.load_state_dict(state)
    source = open_splits(run.dataset, run.seed, run.loader, run.debug).test
    return evaluate(model, EvalLoader(source, run.dataset, 32, cpu, 0), nullcontext(), Ranks()).metrics


def test_stopped_while_the_best_weights_are_tested_the_last_ones_stay_in_the_checkpoint(tmp_path):
    folder, whole = planned(tmp_path / "stopped", *NOISY), trained(tmp_path / "whole", *NOISY)
    asked = iter(
        [False] * (5 * (4 + 1 + 4) + 4 + 1)
    )  # after steps, epochs and batches of 'val' and 'test'; 1 of 'best'
    with pytest.raises(Stopped):
        train_folder(folder, lambda progress: None, lambda: next(asked, True))
    assert len(folder.metrics_log.entries()) == 5
    train_folder(folder, lambda progress: None)
    assert differences(folder, whole) == []


def test_without_held_out_images_no_weights_count_as_best(once):
    """Chosen on the images of the test they would be."""
    folder = once("dataset.validation=0")
    assert not folder.best.exists()
    assert not [name for name in folder.result().metrics if name.startswith("best/")]


def test_metrics_are_on_disk_before_a_checkpoint_or_a_result_builds_on_them(tmp_path, monkeypatch):
    """Law 6, and law 5 after a power cut: a checkpoint that is ahead of the log would leave a gap in the history."""
    folder, replace, seen = planned(tmp_path), Path.replace, []
    on_disk = synced(folder.metrics_log.path, monkeypatch)

    def watched(self, target):
        if target.name in ("checkpoint.pt", "result.json"):  # training may be ahead of the checkpoint
            needed = [1, 2, 3][len(seen)]
            seen.append((target.name, on_disk().count(b"\n") >= needed))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    train_folder(folder, lambda progress: None)
    assert seen == [("checkpoint.pt", True), ("checkpoint.pt", True), ("result.json", True)]


def test_training_goes_on_while_a_checkpoint_is_written(once, tmp_path, monkeypatch):
    """It does not wait for the disk, and the checkpoint is of the moment at which it was begun."""
    folder, save, ahead, steps = planned(tmp_path), Snapshot.save, Event(), []
    whole = once()

    def slow(self, path: Path) -> None:
        assert ahead.wait(20), "training waits for the disk"
        save(self, path)
        steps.append(torch.load(path, weights_only=True)["step"])

    def stop() -> bool:
        asked.append(None)
        if (
            len(asked) > 4 + 4 + 1 + 2
        ):  # of the first epoch: after steps, evaluated batches and all steps; then two more
            ahead.set()
        return False

    asked = []
    monkeypatch.setattr(Snapshot, "save", slow)
    train_folder(folder, lambda progress: None, stop)
    assert steps == [4, 8]
    assert differences(folder, whole) == []


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_one_line_and_the_one_before_it_remains(
    tmp_path, monkeypatch
):
    options = ["duration='3 epochs'"]
    folder, whole = planned(tmp_path / "full", *options), trained(tmp_path / "whole", *options)
    sync, written, begun = os.fsync, [], Event()

    def full_at_the_second(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name.startswith("checkpoint.pt"):
            written.append(handle)
            if len(written) == 2:
                begun.set()
                full_disk(handle)
        sync(handle)

    def stop() -> bool:
        if len(folder.metrics_log.entries()) == 2:
            assert begun.wait(20)
            time.sleep(0.1)  # until it has failed
        return False

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(UserError, match=r"runs/\w+: No space left on device; fix this and give the command again$"):
        train_folder(folder, lambda progress: None, stop)
    assert len(folder.metrics_log.entries()) == 2, "it has ended within the epoch after"
    monkeypatch.undo()
    assert torch.load(folder.checkpoint, weights_only=True)["step"] == 4
    assert [path.name for path in folder.path.glob("*.part")] == []
    assert folder.state() is RunState.failed
    train_folder(folder, lambda progress: None)
    assert differences(folder, whole) == []


def test_weights_that_break_in_the_last_step_of_an_epoch_are_a_divergence(tmp_path):
    """The losses of the steps before are finite; only the evaluation sees it."""
    options = ["optimizer.lr=1e30", "schedule=constant", "schedule.min_lr=0"]
    result = trained(tmp_path, *options, "duration='1 steps'").result()
    assert result is not None and result.state == "diverged"
    assert result.note == "the loss is nan at step 1 of 1"
    assert "test/top1" not in result.metrics


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_later(tmp_path, monkeypatch):
    folder = planned(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        train_folder(folder, lambda progress: None)
    monkeypatch.undo()
    train_folder(folder, lambda progress: None)
    assert [entry.epoch for entry in folder.metrics_log.entries()] == [1, 2, 2]


def full_disk(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_held_out_images_the_test_set_is_evaluated_each_epoch_and_named_so(once):
    entries = once("dataset.validation=0").metrics_log.entries()
    assert [entry.epoch for entry in entries] == [1, 2]
    assert all("test/top1" in entry.metrics and "val/top1" not in entry.metrics for entry in entries)


def test_a_duration_in_steps_ends_within_an_epoch(tmp_path):
    folder = trained(tmp_path, "duration='6 steps'")
    assert [(entry.epoch, entry.step) for entry in folder.metrics_log.entries()] == [(1, 4), (2, 6), (2, 6)]


def test_a_second_writer_that_no_lock_kept_away_is_left_alone(once, tmp_path):
    """As where locks do not reach another machine: after one epoch the lock is taken away and another one trains."""
    folder, written, alone = planned(tmp_path), [], once()

    def be_overtaken(progress: Progress) -> None:
        if progress.metrics and not written:
            (folder.path / "lock").unlink()
            train_folder(RunFolder(folder.path), lambda progress: None)
            written.append(contents(folder))

    with pytest.raises(Busy):
        train_folder(folder, be_overtaken)
    assert contents(folder) == written[0], "the first wrote nothing more"
    assert [entry.metrics for entry in folder.metrics_log.entries()] == [
        entry.metrics for entry in alone.metrics_log.entries()
    ]
    assert_equal(weights(folder), weights(alone))


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name != "lock"}


def test_a_crash_before_the_result_is_written_repeats_nothing(finished):
    before = finished.metrics_log.path.read_bytes()
    (finished.path / "result.json").unlink()
    assert finished.state() is RunState.partial
    train_folder(finished, lambda progress: None)
    assert finished.metrics_log.path.read_bytes() == before
    assert finished.state() is RunState.finished


def test_a_metrics_log_that_lacks_epochs_is_damaged_and_not_continued(finished):
    log = finished.metrics_log.path
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0])
    with pytest.raises(Damaged, match=r"metrics.jsonl, expected the 2 epochs that result.json has, found no epoch 2;"):
        finished.entries()
    (finished.path / "result.json").unlink()
    for left, absent in ((lines[:1], 2), (lines[1:], 1), ([], 1)):
        log.write_bytes(b"".join(left))
        with pytest.raises(UserError, match=rf"expected the 2 epochs that checkpoint.pt has, found no epoch {absent};"):
            train_folder(finished, lambda progress: None)
        assert log.read_bytes() == b"".join(left)
    assert finished.result() is None


def test_a_finished_run_is_left_alone(finished):
    stamp = finished.checkpoint.stat().st_mtime_ns
    train_folder(finished, lambda progress: None)
    assert finished.checkpoint.stat().st_mtime_ns == stamp


def test_accumulation_takes_the_same_steps(tmp_path):
    plain = ["model.attention_dropout=0", "model.drop_path=0", "head=seqattn", "heads=2", "optimizer=sgd"]
    plain += ["optimizer.lr=0.01", "duration='4 steps'"]
    whole = weights(trained(tmp_path, *plain))
    split = weights(trained(tmp_path, *plain, "accumulation=4"))
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-3, atol=1e-5)


def test_dropout_differs_between_micro_batches_and_steps(tmp_path):
    """A step's masks come from the seed and the step alone; with one seed for all of them nothing would be random."""
    drops = ["model.attention_dropout=0", "model.drop_path=0", "model.dropout=0.5", "duration='2 steps'"]
    one, other = trained(tmp_path, *drops), trained(tmp_path, *drops, "accumulation=2")
    assert not torch.allclose(weights(one)["head.classifier.weight"], weights(other)["head.classifier.weight"])


def test_the_average_is_what_is_evaluated(once, tmp_path):
    moving, plain = trained(tmp_path, "ema_decay=0.999"), once()
    assert_equal(weights(moving), weights(plain))
    assert moving.metrics_log.entries()[-1].metrics != plain.metrics_log.entries()[-1].metrics
    assert not torch.equal(
        weights(moving, "state_dict_ema")["head.classifier.weight"], weights(moving)["head.classifier.weight"]
    )


def test_clipping_bounds_the_step(tmp_path):
    options = ["optimizer=sgd", "optimizer.name=momentum", "optimizer.weight_decay=0", "duration='1 steps'"]
    options += ["schedule=constant", "optimizer.lr=1.0", "clip_norm=1e-3"]
    folder = planned(tmp_path, *options)
    start = weights(trained(tmp_path, *options[:-2], "optimizer.lr=1e-30"))
    train_folder(folder, lambda progress: None)
    end = weights(folder)
    moved = torch.stack([(end[name] - value).double().norm() for name, value in start.items()]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"0 is not a checkpoint", pickle.dumps(print)])
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(tmp_path, damage):
    folder = planned(tmp_path)
    folder.checkpoint.write_bytes(damage)
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged: .*remove it to start the run again") as refused:
        train_folder(folder, lambda progress: None)
    assert "weights_only" not in str(refused.value) + folder.failure(), "torch advises to run what is in the file"
    assert folder.state() is RunState.failed


def test_a_checkpoint_of_another_run_is_refused(once, tmp_path):
    """Also one with weights of the same shapes, as of another seed."""
    folder, content = planned(tmp_path, "heads=2"), torch.load(once().checkpoint, weights_only=True)
    torch.save({key: value for key, value in content.items() if key != "fingerprint"}, folder.checkpoint)  # older
    with pytest.raises(UserError, match=r"is not a checkpoint of this run"):
        train_folder(folder, lambda progress: None)
    folder = planned(tmp_path, "seed=1")
    shutil.copy(once().checkpoint, folder.checkpoint)
    expected = f"expected the weights of {folder.path.name}, found those of {once().path.name}; remove it to start"
    with pytest.raises(UserError, match=rf"checkpoint.pt was written by another run: {expected}"):
        train_folder(folder, lambda progress: None)
    with pytest.raises(UserError, match=r"checkpoint.pt: was written by another run"):
        load_trained(folder)


def test_best_weights_of_another_run_are_refused(finished):
    best = torch.load(finished.best, weights_only=True)
    torch.save(best | {"fingerprint": "0" * 12}, finished.best)
    with pytest.raises(UserError, match=r"best.pt: was written by another run"):
        load_trained(finished, best=True)
    (finished.path / "result.json").unlink()
    log = finished.metrics_log.path  # without the metrics on the test images
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"best.pt was written by another run: .*; remove it to end the run without"):
        train_folder(finished, lambda progress: None)


def test_the_frozen_configuration_refers_to_nothing_outside_itself(tmp_path):
    """Editing the YAML files later changes nothing that is planned (law 3)."""
    folder = planned(tmp_path)
    text = folder.config.read_text()
    assert "duration: 2 epochs" in text and "root: null" in text and "${" not in text


def test_the_shape_of_the_model_is_counted_before_it_is_trained(tmp_path):
    cost = planned(tmp_path, "head=seqattn", "heads=4").record().cost
    assert 0 < cost["head_parameters"] < cost["parameters"] and 0 < cost["head_flops"] < cost["flops"]


def test_a_configuration_that_was_changed_is_not_trained_under_the_old_fingerprint(tmp_path):
    folder = planned(tmp_path)
    folder.config.write_text(folder.config.read_text().replace("batch_size: 32", "batch_size: 16"))
    with pytest.raises(UserError, match=r"damaged: .*config.yaml, expected the configuration of fingerprint"):
        train_folder(folder, lambda progress: None)
    assert folder.state() is RunState.failed and folder.metrics_log.entries() == []


def test_weights_of_another_model_are_one_line(tmp_path):
    folder = planned(tmp_path)
    torch.save({"model": {"head.weight": torch.ones(2)}}, folder.checkpoint)
    with pytest.raises(UserError, match=r"checkpoint.pt: expected the weights of this model, found others"):
        load_trained(folder)


def test_where_a_launcher_chose_the_device_its_choice_counts(tmp_path):
    """A process that sees one GPU has no cuda:7, which its run was planned with."""
    plan = make_plan([compose_run(*SHORT, "device=cuda:7", "duration='1 steps'", f"paths.output={tmp_path}")])
    freeze(plan, {run.fingerprint: {} for run in plan.runs})
    (folder,) = plan.folders
    with pytest.raises(UserError, match="device=cuda:7: expected a visible CUDA device"):
        train_folder(folder, lambda progress: None)
    train_folder(folder, lambda progress: None, device="cpu")
    assert folder.state() is RunState.finished


def test_a_process_on_a_gpu_sees_it_as_the_only_one():
    run = compose_run(*SHORT, "device=cuda:7")
    assert (worker._placed(run, "GPU-a1").device, worker._placed(run, None).device) == ("cuda", "cuda:7")

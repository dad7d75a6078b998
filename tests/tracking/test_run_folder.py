"""The state of a run is what its files and its lock show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composing import compose_run
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState


def test_a_planned_run_is_new_until_it_has_a_checkpoint(tmp_path, make_run):
    assert RunFolder(tmp_path / "nothing").state() is RunState.new
    folder = make_run()
    assert folder.state() is RunState.new
    folder.checkpoint.write_bytes(b"weights")
    assert folder.state() is RunState.partial


def test_a_run_keeps_its_first_record(make_run):
    folder = make_run()
    first = folder.record()
    folder.create(replace(first, sweep="another"), "heads: 8\n")
    assert folder.record() == first
    assert folder.config.read_text() == "heads: 4\n"


@pytest.mark.parametrize("seed", [10**15 + 1, 2**64 - 1, 10**20])
def test_any_seed_that_a_configuration_may_have_reads_back(tmp_path, make_run, seed):
    assert compose_run(f"seed={seed}").seed == seed
    folder = RunFolder(tmp_path / "large")
    folder.create(replace(make_run().record(), seed=seed), "")
    assert folder.record().seed == seed


def test_a_failure_lasts_until_a_try_succeeds(make_run, result):
    folder = make_run()
    folder.checkpoint.write_bytes(b"weights")
    folder.fail("ValueError: no http://anna:geheim@host")
    assert folder.state() is RunState.failed
    assert folder.failure() == "ValueError: no http://anna:***@host\n"
    folder.finish(result)
    assert folder.state() is RunState.finished
    assert folder.failure() is None
    assert folder.result() == result


def test_a_diverged_run_is_over(make_run, result):
    folder = make_run()
    folder.finish(replace(result, state="diverged"))
    assert folder.state() is RunState.diverged


def test_a_locked_run_is_running_and_a_kill_frees_it(make_run, holder):
    folder = make_run()
    folder.checkpoint.write_bytes(b"weights")
    process = holder(folder)
    assert folder.state() is RunState.running
    process.kill()
    process.wait()
    assert folder.state() is RunState.partial


def test_a_run_locked_in_this_process_is_running(make_run):
    folder = make_run()
    with folder.lock():
        assert folder.state() is RunState.running
    assert folder.state() is RunState.new


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside(tmp_path):
    path = tmp_path / "state.json"
    atomic_files.write_json(path, {"epoch": 1})
    before = path.read_bytes()

    def half(file):
        file.write(b'{"epo')
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_files.write_with(path, half)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_a_write_makes_its_folder_and_replaces(tmp_path):
    path = tmp_path / "deep" / "text"
    atomic_files.write_text(path, "é")
    atomic_files.write_text(path, "ü")
    assert path.read_text() == "ü"

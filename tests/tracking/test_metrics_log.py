"""The metrics log loses nothing that was written, and believes nothing that was torn."""

from __future__ import annotations

import resource

import pytest

from headsweep.tracking.metrics_log import MetricsLog, series


def test_no_file_is_no_entries(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.rewind(5)
    assert log.entries() == []


def test_entries_come_back_as_they_were_written(tmp_path, make_entry):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        log.append(make_entry(epoch))
    assert log.entries() == [make_entry(epoch) for epoch in (1, 2, 3)]
    assert series(log.entries(), "train/loss") == {1: 1.0, 2: 0.5, 3: 1 / 3}


def test_torn_last_line_is_no_entry(tmp_path, make_entry):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(make_entry(1))
    whole = log.path.read_bytes()
    log.append(make_entry(2))
    for torn in (1, 40, len(whole) - 1):
        log.path.write_bytes(whole + log.path.read_bytes()[len(whole) : len(whole) + torn])
        assert log.entries() == [make_entry(1)]


def test_what_a_power_cut_left_as_zeros_ends_the_log(tmp_path, make_entry):
    """A block before a written one may never have been written."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        log.append(make_entry(epoch))
    first, second, third = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(first + bytes(20) + second[20:] + third)
    assert log.entries() == [make_entry(1)]
    log.rewind(make_entry(1).step)
    assert log.path.read_bytes() == first


def test_a_disk_that_takes_a_part_of_a_line_is_an_error(tmp_path, make_entry):
    log, limits = MetricsLog(tmp_path / "metrics.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.append(make_entry(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(make_entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.entries() == [make_entry(1)]


def test_rewind_forgets_what_is_later_and_what_is_torn(tmp_path, make_entry):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        log.append(make_entry(epoch))
    with log.path.open("ab") as file:
        file.write(b'{"epoch": 4, "st')
    log.rewind(make_entry(2).step)
    assert log.entries() == [make_entry(1), make_entry(2)]


def test_appending_after_a_rewind_gives_the_bytes_of_an_unbroken_run(tmp_path, make_entry):
    unbroken, resumed = MetricsLog(tmp_path / "unbroken.jsonl"), MetricsLog(tmp_path / "resumed.jsonl")
    for epoch in (1, 2, 3):
        unbroken.append(make_entry(epoch))
    resumed.append(make_entry(1))
    resumed.append(make_entry(2))
    with resumed.path.open("ab") as file:
        file.write(b'{"epo')
    resumed.rewind(make_entry(1).step)
    resumed.append(make_entry(2))
    resumed.append(make_entry(3))
    assert resumed.path.read_bytes() == unbroken.path.read_bytes()

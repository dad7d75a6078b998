"""The spool loses nothing that was written, and believes nothing that was torn."""

from __future__ import annotations

import resource

import pytest

from headsweep.tracking.metrics_log import Spool, series


def test_no_file_is_no_entries(tmp_path):
    spool = Spool(tmp_path / "metrics.jsonl")
    spool.rewind(5)
    assert spool.entries() == []


def test_entries_come_back_as_they_were_written(tmp_path, make_entry):
    spool = Spool(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        spool.append(make_entry(epoch))
    assert spool.entries() == [make_entry(epoch) for epoch in (1, 2, 3)]
    assert series(spool.entries(), "train/loss") == {1: 1.0, 2: 0.5, 3: 1 / 3}


def test_torn_last_line_is_no_entry(tmp_path, make_entry):
    spool = Spool(tmp_path / "metrics.jsonl")
    spool.append(make_entry(1))
    whole = spool.path.read_bytes()
    spool.append(make_entry(2))
    for torn in (1, 40, len(whole) - 1):
        spool.path.write_bytes(whole + spool.path.read_bytes()[len(whole) : len(whole) + torn])
        assert spool.entries() == [make_entry(1)]


def test_what_a_power_cut_left_as_zeros_ends_the_spool(tmp_path, make_entry):
    """A block before a written one may never have been written."""
    spool = Spool(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        spool.append(make_entry(epoch))
    first, second, third = spool.path.read_bytes().splitlines(keepends=True)
    spool.path.write_bytes(first + bytes(20) + second[20:] + third)
    assert spool.entries() == [make_entry(1)]
    spool.rewind(make_entry(1).step)
    assert spool.path.read_bytes() == first


def test_a_disk_that_takes_a_part_of_a_line_is_an_error(tmp_path, make_entry):
    spool, limits = Spool(tmp_path / "metrics.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    spool.append(make_entry(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.append(make_entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert spool.entries() == [make_entry(1)]


def test_rewind_forgets_what_is_later_and_what_is_torn(tmp_path, make_entry):
    spool = Spool(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        spool.append(make_entry(epoch))
    with spool.path.open("ab") as file:
        file.write(b'{"epoch": 4, "st')
    spool.rewind(make_entry(2).step)
    assert spool.entries() == [make_entry(1), make_entry(2)]


def test_appending_after_a_rewind_gives_the_bytes_of_an_unbroken_run(tmp_path, make_entry):
    unbroken, resumed = Spool(tmp_path / "unbroken.jsonl"), Spool(tmp_path / "resumed.jsonl")
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

"""The keys of the launcher `local`, typed and checked where they are read, and nowhere else."""

import pytest

from headsweep.config.launcher.launchers import LocalConfig, parse_launcher
from headsweep.errors import ConfigError

KEYS = {"slots": None, "runs_per_gpu": None, "threads": None, "attempts": None, "timeout": None, "halving": None}


def test_numbers_auto_and_null_are_taken():
    for slots in (1, 64, "auto", None):
        assert parse_launcher(LocalConfig, {**KEYS, "slots": slots}).slots == slots


@pytest.mark.parametrize("key", ["slots", "threads", "runs_per_gpu", "attempts"])
@pytest.mark.parametrize("given", [0, -1, "many", 1.5])
def test_what_is_no_whole_number_above_0_is_refused(key, given):
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key}={given}: expected an integer"):
        parse_launcher(LocalConfig, {**KEYS, key: given})


def test_threads_that_no_machine_has_are_refused():
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.threads=100000: expected at most 1024 CPU threads"):
        parse_launcher(LocalConfig, {**KEYS, "threads": 100_000})

"""The keys of the launcher `slurm`: each mistake is one line that names the key, what was got and what is wanted."""

from functools import cache

import pytest
from hydra import compose, initialize_config_dir

from headsweep.config import PROJECT_ROOT
from headsweep.config.slurm import Projection, SlurmConfig, parse_slurm
from headsweep.errors import ConfigError


@cache
def keys(launcher: str = "slurm") -> dict[str, object]:
    """What Hydra hands to the launcher, from a preset."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True)
    return {key: value for key, value in config.hydra.launcher.items() if key not in ("_target_", "exclude")}


def test_presets_are_the_launcher_with_other_values():
    plain, node, short = (parse_slurm(keys(f"slurm{name}")) for name in ("", "_node", "_preemptible"))
    assert isinstance(plain, SlurmConfig) and plain.mlflow is Projection.login
    assert (node.gpus, node.cpus, node.runs_per_job, node.slots, node.time) == (8, 64, 16, 16, plain.time)
    assert (short.time, short.warning, short.requeues, short.cpus) == (60, 60, 1000, plain.cpus)


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("time", 4, "want a whole number of at least 5"),
        ("time", "1:00:00", ""),
        ("gpus", -1, "want a whole number of at least 0"),
        ("cpus", 0, "want a whole number of at least 1"),
        ("cpus", "many", ""),
        ("memory", "lots", "want a number and a unit, e.g. 16GB, or null"),
        ("setup", "module", ""),
        ("extra", "x", ""),
        ("max_parallel", 0, "want a whole number of at least 1"),
        ("runs_per_job", 0, "want a whole number of at least 1"),
        ("slots", 0, "want a whole number of at least 1"),
        ("threads", 0, "want a whole number of at least 1"),
        ("warning", 5, "want a whole number of at least 10"),
        ("warning", 20000, "want fewer seconds than hydra.launcher.time=240 minutes"),
        ("requeues", -1, "want a whole number of at least 0"),
        ("attempts", 0, "want a whole number of at least 1"),
        ("timeout", 0, "want minutes, a number above 0, or null"),
        ("mlflow", "both", ""),
        ("wait", "perhaps", ""),
        ("dry_run", "7x", ""),
    ],
)
def test_a_mistake_is_one_line(key, value, want):
    with pytest.raises(ConfigError) as error:
        parse_slurm({**keys(), key: value})
    message = str(error.value)
    assert message.startswith(f"hydra.launcher.{key}={value}") and want in message and "\n" not in message


def test_a_key_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.node=2.*unknown; known: account, attempts, constraint"):
        parse_slurm({**keys(), "node": 2})

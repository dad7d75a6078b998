"""The keys of the launcher `slurm`: each mistake is one line that names the key, what was got and what is wanted."""

import math
from functools import cache

import pytest
from hydra import compose, initialize_config_dir

from headsweep.config import PROJECT_ROOT
from headsweep.config.launcher.launchers import NOT_SETTINGS, parse_launcher
from headsweep.config.launcher.slurm import Projection, SlurmConfig
from headsweep.errors import ConfigError
from headsweep.launch.slurm.grouping import check_needs


@cache
def keys(launcher: str = "slurm") -> dict[str, object]:
    """What Hydra hands to the launcher, from a preset."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True)
    return {key: value for key, value in config.hydra.launcher.items() if key not in NOT_SETTINGS}


@pytest.mark.slow
def test_presets_are_the_launcher_with_other_values():
    plain, node, short = (parse_launcher(SlurmConfig, keys(f"slurm{name}")) for name in ("", "_node", "_preemptible"))
    assert isinstance(plain, SlurmConfig) and plain.mlflow is Projection.login
    assert (node.gpus, node.cpus, node.runs_per_job, node.slots, node.time) == (8, 64, 16, 16, plain.time)
    assert (short.time, short.warning, short.requeues, short.cpus) == (60, 60, 1000, plain.cpus)


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("time", 4, "expected an integer >= 5"),
        ("time", "1:00:00", "expected minutes, an integer >= 5"),
        ("gpus", -1, "expected an integer >= 0"),
        ("cpus", 0, "expected an integer >= 1"),
        ("cpus", "many", "expected an integer"),
        ("memory", "lots", "expected an integer and a unit, e.g. 16GB, or null"),
        ("memory", "3", "expected an integer and a unit, e.g. 16GB, or null"),
        ("memory", "5.5GB", "expected an integer and a unit, e.g. 16GB, or null"),
        ("setup", "module", 'expected a list of shell lines, e.g. ["module load cuda"]'),
        ("extra", "x", "expected options of sbatch and their values, e.g. {mail-type: END}"),
        ("max_parallel", 0, "expected an integer >= 1"),
        ("max_submitted", 0, "expected an integer >= 1"),
        ("container", " ", "expected an image, e.g. headsweep.sif, or null"),
        ("container_runtime", "docker", "expected apptainer or pyxis"),
        ("container_mounts", ["/data"], "expected [] without hydra.launcher.container"),
        ("needs", "head=ga", "expected CONDITIONS: RESOURCES, e.g. 'head=ga heads>4: memory=32GB time=480', in a list"),
        ("time_factor", 0, "expected an integer >= 1"),
        ("runs_per_job", 0, "expected an integer >= 1"),
        ("slots", 0, "expected an integer >= 1"),
        ("threads", 0, "expected an integer >= 1"),
        ("warning", 5, "expected an integer >= 10"),
        ("warning", 20000, "expected fewer seconds than hydra.launcher.time=240 minutes"),
        ("requeues", -1, "expected an integer >= 0"),
        ("attempts", 0, "expected an integer >= 1"),
        ("timeout", 0, "expected minutes, a number above 0, or null"),
        ("timeout", "soon", "expected minutes, a number above 0, or null"),
        ("timeout", math.nan, "expected minutes, a number above 0, or null"),
        ("slots", "x", "expected an integer or null"),
        ("partition", ["main"], "expected a text or null"),
        ("setup", {"module": "cuda"}, "expected a list of shell lines"),
        ("setup", [{"module": "cuda"}], "expected a list of shell lines"),
        ("mlflow", "both", "expected login or jobs"),
        ("wait", "perhaps", "expected true or false"),
        ("dry_run", "7x", "expected true or false"),
    ],
)
def test_a_mistake_is_one_line(key, value, want):
    with pytest.raises(ConfigError) as error:
        parse_launcher(SlurmConfig, {**keys(), key: value})
    message = str(error.value)
    assert message.startswith(f"hydra.launcher.{key}={value}") and want in message and "\n" not in message


@pytest.mark.parametrize("key", ["time", "gpus", "setup", "extra", "mlflow", "wait"])
def test_null_where_a_value_is_wanted_is_one_line(key):
    with pytest.raises(ConfigError, match=rf"^hydra\.launcher\.{key}=null: expected [^\n]*$"):
        parse_launcher(SlurmConfig, {**keys(), key: None})


def test_a_value_that_no_option_of_sbatch_can_have_is_refused():
    assert (
        parse_launcher(SlurmConfig, {**keys(), "extra": {"mail-type": "END", "nice": 3, "hold": True}}).extra["nice"]
        == 3
    )
    for value, shown in ((None, "null"), (False, "False"), ([1], r"\[1\]")):
        with pytest.raises(
            ConfigError, match=rf"^hydra\.launcher\.extra\.hold={shown}: expected a text, a number, or true"
        ):
            parse_launcher(SlurmConfig, {**keys(), "extra": {"hold": value}})


def test_a_key_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.node=2.*unknown; known: account, attempts, check, "):
        parse_launcher(SlurmConfig, {**keys(), "node": 2})


@pytest.mark.parametrize("option", ["job-name", "job_name", "output", "array"])
def test_options_by_which_jobs_are_found_cannot_be_changed(option):
    with pytest.raises(ConfigError, match=f"hydra.launcher.extra.{option}=x: expected another option: headsweep finds"):
        parse_launcher(SlurmConfig, {**keys(), "extra": {option: "x"}})


@pytest.mark.parametrize("mount", ["data", "/a,/b", "/a:b", "/a:/b:ro:x", "/a\n/b"])
def test_mounts_are_absolute_paths(mount):
    with pytest.raises(ConfigError, match=r"hydra.launcher.container_mounts=.*: expected absolute paths"):
        parse_launcher(SlurmConfig, {**keys(), "container": "x.sif", "container_mounts": [mount]})


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("head=ga", "expected CONDITIONS: RESOURCES, e.g. "),
        (": memory=8GB", "expected CONDITIONS: RESOURCES, e.g. "),
        ("head=ga:", "expected CONDITIONS: RESOURCES, e.g. "),
        ("head=ga: memory", "expected CONDITIONS: RESOURCES, e.g. "),
        ("head: memory=8GB", "expected KEY OP VALUE"),
        ("head=ga: partition=big", "partition=big: unknown resource; known: cpus, gpus, memory, time"),
        ("head=ga: gpus=two", "gpus=two: expected an integer"),
        ("head=ga: time=1", "time=1: expected an integer >= 5"),
        ("head=ga: memory=lots", "memory=lots: expected an integer and a unit, e.g. 16GB, or null"),
    ],
)
def test_a_wrong_need_is_one_line(need: str, reason: str):
    with pytest.raises(ConfigError) as error:
        parse_launcher(SlurmConfig, {**keys(), "needs": [need]})
    message = str(error.value)
    assert message.startswith(f"hydra.launcher.needs={need!r}: {reason}") and "\n" not in message


def test_the_last_need_for_a_key_holds_and_the_others_stay():
    needs = ["head=ga: memory=32GB time=480", "head=ga heads>4: memory=64GB gpus=2", "heads=1: cpus=2"]
    settings = parse_launcher(SlurmConfig, {**keys(), "needs": needs})
    large = settings.of_run({"head": {"name": "ga"}, "heads": 8})
    assert (large.memory, large.time, large.gpus, large.cpus) == ("64GB", 480, 2, settings.cpus)
    small = settings.of_run({"head": {"name": "gap"}, "heads": 1})
    assert (small.memory, small.time, small.gpus, small.cpus) == (None, settings.time, settings.gpus, 2)


def test_conditions_that_cannot_be_meant_are_one_line(capsys):
    configs = [{"head": {"name": name}, "heads": 1} for name in ("ga", "gap")]

    def check(need: str) -> None:
        check_needs(parse_launcher(SlurmConfig, {**keys(), "needs": [need]}), configs)

    with pytest.raises(ConfigError, match=r"needs='hed=ga: cpus=2': hed: unknown key; did you mean head or heads"):
        check("hed=ga: cpus=2")
    with pytest.raises(ConfigError, match=r"needs='head>2: cpus=2': expected a number, found the text 'ga'"):
        check("head>2: cpus=2")
    check("head=cls head.depth>1: cpus=2")
    assert capsys.readouterr().out == (
        "hydra.launcher.needs='head=cls head.depth>1: cpus=2' applies to no run of this sweep\n"
    )

"""Whatever the words of a command are: it is planned, or one line gives the reason, with exit code 2."""

from __future__ import annotations

import random
import re
import warnings
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from commands import enter, give
from composing import compose_run
from headsweep.autotune.sharing import Sharing
from headsweep.cli.group import commands as group
from headsweep.config import PROJECT_ROOT
from headsweep.config.overrides import _flat, hydra_value
from headsweep.launch import run_sweep
from headsweep.plan import plan, preview
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.sweep_folder import SweepFolder

pytestmark = pytest.mark.slow

REFUSAL = re.compile(r"headsweep: [^\n]+\n|headsweep: \d+ of \d+ cells are not valid, .*(\n  .+)*\n")
LISTS = 60  # of overrides, in a run of this test
GROUPS = sorted(path.name for path in (PROJECT_ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra")
CHOICES = {group: sorted(path.stem for path in (PROJECT_ROOT / "conf" / group).glob("*.yaml")) for group in GROUPS}
USUAL = {key: hydra_value(value) for key, value in _flat(OmegaConf.structured(compose_run())).items()}
COMMANDS = 40  # of `headsweep`, in a run of this test
LAUNCHER = ["slots", "threads", "timeout", "halving", "attempts", "exclude", "runs_per_gpu", "time", "extra", "class"]
HYDRA = ["hydra.mode", "hydra.verbose", "hydra.job.chdir", "hydra.run.dir", "hydra.sweeper", "hydra.sweeper.params"]
HYDRA += ["hydra.launcher", "hydra.launcher._target_", "hydra.launcher.x._target_", "hydra.sweeper.max_batch_size"]
HYDRA += ["hydra.searchpath", "hydra.callbacks.x", "hydra.job.env_copy", "hydra.output_subdir", "hydra.job_logging"]
VALUES = [
    "",
    *("null", "true", "0", "1", "-1", "2.5", "1e400", "-inf", "nan", "9" * 30, "0x10", "1_000", "٣", "'٣'", "1e-3"),
    *("[]", "[1,2]", "[[[]]]", "[null]", "{}", "{a:1}", "{name:ga}", "{_target_:os.system}", "[{a:[1,{b:null}]}]"),
    *("a", "ä", "'a b'", '"a"', "'", '"', "'\\'", "a b", "a=b", "a:b", "../x", "/", "~", "~x", "'~nosuchuser/x'", "\\"),
    *("${seed}", "${nosuch}", "${oc.env:NOSUCH}", "${oc.env:HOME}", "${x:1}", "${", "$", "${seed", "${.a}", "???"),
    *("${oc.create:{a:1}}", "${oc.decode:'['}", "'${oc.decode:\"1/\"}'", "${hydra:job.name}", "${now:%Y}", "'${'"),
    *("1,2", "1,", ",", "1,1", "null,1", "[1],[2]", "range(1,4)", "range(1,5,0)", "range(0,1e18)", "range(a,b)"),
    *("choice(1,2)", "choice()", "interval(0,1)", "glob(*)", "glob([a*],exclude=b)", "sort(2,1)", "shuffle(1,2)"),
    *("int(a)", "str(1)", "tag(a,1)", "extend_list(1)", "float([1,2])", "range(", "nosuch(1)", "os.system", "\x1b[31m"),
    *("a\nb", "a\tb", "\udcff", "x" * 300, "'2 epochs'", "'1e400 epochs'", "(1)", "%", "#", "@", "local", "slurm"),
]


def words(draw: random.Random) -> list[str]:
    """A list of overrides, most of them of keys that there are."""
    return [_word(draw) for _ in range(draw.choice([1, 1, 2, 3]))] + draw.choice(
        [[]] * 4 + [["-m"]] * 5 + [["--nosuch"]]
    )


def _word(draw: random.Random) -> str:
    key = draw.choice(
        [
            *draw.sample(sorted(USUAL), 4),
            draw.choice(GROUPS),
            f"hydra.launcher.{draw.choice(LAUNCHER)}",
            draw.choice(HYDRA),
            draw.choice(
                ["", "a", "a.b", "head.", ".head", "a/b", "hydra/launcher", "sweeps", "head@x", "@", "ä", "seeds"]
            ),
        ]
    )
    value = draw.choice(VALUES)
    if key in CHOICES and draw.random() < 0.5:
        value = draw.choice(CHOICES[key])
    elif key in USUAL and draw.random() < 0.5:
        value = USUAL[key]
    sign = draw.choice(["", "", "", "", "", "", "+", "++", "~"])
    return draw.choice([f"{sign}{key}={value}"] * 12 + [f"{sign}{key}"])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A folder with a sweep of two runs that have ended."""
    folder = tmp_path_factory.mktemp("outputs")
    planned = plan.make_plan([compose_run(f"head={head}", f"paths.output={folder}") for head in ("gap", "ga")])
    cost = {"parameters": 9, "head_parameters": 1, "flops": 9, "head_flops": 2}
    plan.freeze(planned, {run.fingerprint: cost for run in planned.runs})
    for run in planned.folders:
        run.finish(RunResult("finished", {"test/top1": 0.5}, epochs=20, steps=20, clock={"train_seconds": 1.0}))
    SweepFolder(planned.folder).register(planned.folders)
    return folder


def _command(draw: random.Random) -> list[str]:
    """A command of `headsweep` that reads, with some of its options and arguments."""
    name = draw.choice(["table", "power", "status", "logs", "explain", "plan", "match", "cancel"])
    given = [name]
    for parameter in draw.sample(group.commands[name].params, k=min(3, len(group.commands[name].params))):
        value = draw.choice([*VALUES, "latest", "digits", "head=ga", "heads=1,2", "top1", "params", "1e3", "http://["])
        if parameter.param_type_name == "argument":
            given.append(draw.choice([value, "latest", "head=ga"]))
        elif parameter.name in ("output", "write", "verify", "watch", "follow"):
            continue  # places, and what has no end
        else:
            option = parameter.opts[-1]
            given += [option] if getattr(parameter, "is_flag", False) else [option, value]
    return given


@pytest.mark.parametrize("seed", range(4))
def test_any_options_of_a_command_are_one_line(seed, outputs, _planning_only, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(seed)
    for _ in range(COMMANDS // 4):
        given = _command(draw)
        place = [] if given[0] in ("plan", "match") else ["--output", str(outputs)]
        try:
            code = give(given[0], *place, *given[1:])
        except Exception as error:
            raise AssertionError(f"{given} ends in a traceback") from error
        said = capfd.readouterr().err
        assert code in (0, 2), (given, said)
        assert code == 0 or REFUSAL.fullmatch(said), (given, said)


@pytest.fixture
def _planning_only(monkeypatch, hydra_state):
    """Nothing is trained or measured, no data is looked at, and the mode is asked for once."""

    def end(*_, **__):
        raise SystemExit(0)

    for place, name in (
        (run_sweep, "run_sweep"),
        (Sharing, "batch_size"),
        (plan, "plan_of"),
        (preview, "plan_of"),  # imported here, or its own name would be the stand-in for ever
    ):
        monkeypatch.setattr(place, name, end)
    monkeypatch.setattr(Hydra, "get_mode", _mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _mode(hydra: Hydra, config_name: str, overrides: list[str]) -> RunMode | None:
    """As Hydra's own, which composes everything to find it."""
    return RunMode.MULTIRUN if "hydra.mode=MULTIRUN" in overrides else None


@pytest.mark.parametrize("seed", range(4))
def test_any_overrides_are_planned_or_refused_in_one_line(seed, _planning_only, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(seed)
    for _ in range(LISTS // 4):
        given = words(draw)
        try:
            code = enter(*given, *([] if any("paths" in word for word in given) else [f"paths.output={tmp_path}/o"]))
        except Exception as error:
            raise AssertionError(f"{given} ends in a traceback") from error
        said = capsys.readouterr().err
        assert code in (0, 2), (given, said)
        if code:
            assert re.fullmatch(
                r"headsweep: [^\n]+\n|headsweep: \d+ of \d+ cells are not valid, .*(\n  .+)*\n", said
            ), given

"""From a command line to the runs that are handed to a launcher: `python src/train.py`, in this process."""

from pathlib import Path

import pytest

from commands import enter, give
from headsweep.autotune.sharing import Sharing
from headsweep.config import RunConfig
from headsweep.data import locate
from headsweep.launch import run_sweep
from headsweep.launch.local import launcher

pytestmark = pytest.mark.usefixtures("hydra_state")


@pytest.fixture
def handed(monkeypatch) -> list[tuple[str, list[RunConfig]]]:
    """By which launcher, and which runs would have been started by the commands that were given."""
    found: list[tuple[str, list[RunConfig]]] = []

    def take(runs, launcher, *_):
        found.append((type(launcher).__name__, list(runs)))
        raise SystemExit(0)

    monkeypatch.setattr(run_sweep, "run_sweep", take)
    return found


@pytest.fixture
def studies(tmp_path) -> list[str]:
    """The option for a folder of studies, each a group of its own kind."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "exp").mkdir()
    axes = "hydra: {sweeper: {params: {heads: '1,2'}}%s}\n"
    cluster = "# @package _global_\ndefaults: [{override /hydra/launcher: slurm}]\n"
    (tmp_path / "sweeps/cluster.yaml").write_text(cluster + axes % ", launcher: {partition: big, time: 60}")
    (tmp_path / "exp/mode.yaml").write_text("# @package _global_\n" + axes % ", mode: MULTIRUN")
    (tmp_path / "exp/single.yaml").write_text("# @package _global_\nhydra: {mode: RUN}\n")
    (tmp_path / "exp/slots.yaml").write_text("# @package _global_\nhydra: {launcher: {slots: 1}}\n")
    (tmp_path / "exp/cluster.yaml").write_text(cluster)
    (tmp_path / "exp/block.yaml").write_text("# @package _global_\nhydra: {launcher: slurm}\n")
    (tmp_path / "exp/slash.yaml").write_text("# @package _global_\nhydra/launcher: slurm\n")
    (tmp_path / "exp/typo.yaml").write_text("# @package _global_\nhydra: {launcher: {slost: 1}}\n")
    return ["--config-dir", str(tmp_path)]


@pytest.mark.slow
def test_a_study_chooses_its_launcher_and_the_command_line_has_the_last_word(handed, studies, capsys):
    assert enter(*studies, "-m", "+sweeps=cluster") == 0
    assert enter(*studies, "-m", "+sweeps=cluster", "hydra/launcher=local", "~hydra.launcher.partition=big") == 2
    assert "hydra.launcher.time=60: unknown; known: attempts" in capsys.readouterr().err
    assert enter(*studies, "-m", "+exp=cluster", "hydra/launcher=local", "heads=1,2") == 0
    assert enter(*studies, "-m", "+exp=slots", "heads=1,2") == 0
    assert enter(*studies, "+exp=mode") == 0
    assert enter(*studies, "-m", "+exp=single", "heads=1,2") == 0
    assert [(by, [run.heads for run in runs]) for by, runs in handed] == [
        ("SlurmLauncher", [1, 2]),
        *[("AutotunedLauncher", [1, 2])] * 4,
    ]


@pytest.mark.slow
def test_a_study_for_a_cluster_can_be_planned(studies, capsys):
    study, folder = "+sweeps=cluster", f"hydra.searchpath=[file://{studies[1]}]"
    assert give("plan", "--list", folder, study) == 0
    assert "2 runs in digits-cct_2_3x2-" in capsys.readouterr().out
    assert give("plan", "--list", folder, study, "hydra.launcher.time=1") == 2
    assert "hydra.launcher.time=1: expected an integer >= 5" in capsys.readouterr().err
    assert give("plan", "--list", "heads=1,2", "hydra/launcher=slurm", "hydra.launcher.partition=big") == 0
    assert give("plan", "--list", "heads=1,2", "hydra/launcher=basic") == 0


MISTAKES = [
    (
        "+sweeps=cluster",
        "+sweeps=cluster: expected -m, as a study is a grid, whose axes a single run would drop; add -m",
    ),
    ("+exp=cluster", "hydra/launcher=slurm: expected -m, as launchers start grids and a single run would ignore it"),
    (
        "hydra/launcher=slurm",
        "hydra/launcher=slurm: expected -m, as launchers start grids and a single run would ignore it",
    ),
    ("+hydra.launcher.extra.x=1", "+hydra.launcher.extra.x=1: expected -m, as launchers start grids and a single run"),
    ("seeds=3", "seed=0,1,2: expected one value, found several, which make a grid; add -m"),
    ("-m +exp=block", "hydra.launcher=slurm: expected the keys of a launcher; choose one with hydra/launcher=NAME"),
    ("-m +exp=slash", "hydra/launcher: a file chooses a group in its `defaults`: `- override /hydra/launcher: NAME`"),
    ("-m +exp=typo", "hydra.launcher.slost=1: unknown; known: attempts, halving"),
    ("-m +exp=slots,cluster", "expected one hydra.launcher for all cells, found an axis with a value that sets it"),
    ("-m --dry-run", "hydra.launcher.dry_run: unknown key of this launcher; hydra/launcher=slurm has it"),
    ("-m +hydra.launcher.unknown=1", "hydra.launcher.unknown=1: unknown; known: attempts, halving, runs_per_gpu"),
    ("-m ~hydra.launcher.timeout", "hydra.launcher.timeout: expected a value, found none"),
    ("-m hydra.launcher.threads=100000", "hydra.launcher.threads=100000: expected at most 1024 CPU threads"),
    ("paths.output=null", "paths.output: expected a value, found null"),
    ("-m +hydra.callbacks.x._target_=os.system", "_target_=os.system: expected a part of Hydra"),
    ("-m hydra.launcher._target_=os.system", "hydra.launcher._target_=os.system: expected a part of Hydra"),
    ("-m +hydra.launcher.x._target_=os.system", "_target_=os.system: expected a part of Hydra"),
    ("-m hydra.sweeper.params=3", "hydra.sweeper.params=3: expected axes and their values"),
    ("-m hydra.sweeper.max_batch_size=2", "hydra.sweeper.max_batch_size=2: expected null"),
    ("-m seed=range(0,1e18)", "expected a grid of at most 100000 cells, found more (values of seed: more)"),
    ("-m seed=range(0,400) heads=range(0,400)", "expected a grid of at most 100000 cells, found more (values of"),
    ("-m head=glob(zz*)", "head: expected at least one value of an axis, found none"),
    ("-m heads=range(1,5,0)", "heads=range(1,5,0): range() arg 3 must not be zero"),
    ("--nosuch", "--nosuch: unknown option (--help, --hydra-help)"),
    ("--config-name nosuch", "--config-name nosuch: no such file in conf/ or --config-dir"),
    ("--experimental-rerun missing", "--experimental-rerun missing: expected a job's pickle, found no such file"),
    ("head=null", "head=null: expected the name of a choice, found null; see conf/head/"),
    ("optimizer=1", "optimizer=1: expected the name of a choice, found 1; see conf/optimizer/"),
    ("head=[1,2]", "head=[1,2]: expected the name of a choice, found [1, 2]"),
    ("~dataset=0.5", "~dataset=0.5: expected the name of a choice, found 0.5"),
    ("=3", "=3: expected KEY=VALUE, found no key"),
    ("-m head=ga,null", "head=null: expected the name of a choice, found null; see conf/head/ (1 of 2 cells"),
    ("seed=${nosuch}", "seed: expected ${...} to name a key or a resolver that exists (Interpolation key 'nosuch'"),
    ("-m seed=${nosuch}", "seed: expected ${...} to name a key or a resolver that exists (Interpolation key 'nosuch'"),
    ("paths.output=/my(1)", """expected a quoted value, found a special character; give 'paths.output="/my(1)"'"""),
    ("paths.output=~/x", """expected a quoted value, found a special character; give 'paths.output="~/x"'"""),
    ("paths.output=/a=b", """expected a quoted value, found a special character; give 'paths.output="/a=b"'"""),
    ("paths.output=/für", """expected a quoted value, found a special character; give 'paths.output="/für"'"""),
    ("paths.output=/a,b", """which make a grid; add -m, or quote a text that has a comma: 'paths.output="/a,b"'"""),
    (
        "paths.output='~nosuchuser/x'",
        """expected a quoted value, found a special character; give 'paths.output="~nosuchuser/x"'""",
    ),
    ("-m hydra/launcher=plan heads=1,2", "hydra/launcher=plan: expected a launcher that starts runs; give `headsweep"),
    ("-m hydra.launcher.class=os.path", "hydra.launcher.class=os.path: expected path in os to be a class derived from"),
    ("-m hydra.launcher.exclude=3", "hydra.launcher.exclude=3: expected a list"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_line(words, message, handed, studies, capsys):
    given = [word.replace("'", "") for word in words.split()]
    assert enter(*([] if "--config-name" in given else studies), *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("headsweep: ") and message in error and error.count("\n") == 1
    assert handed == []


@pytest.mark.slow
def test_cells_of_equal_values_are_one_run_and_are_reported(handed, capsys):
    for words, why in (
        (["heads=1,2,1"], "1 of 3 cells repeat earlier cells: heads=1 is given 2 times"),
        (
            ["optimizer.lr=1e-3,0.001", "heads=1,2"],
            "2 of 4 cells repeat earlier cells: optimizer.lr=0.001",
        ),
        (["heads=1,'1'"], "1 of 2 cells repeat earlier cells: heads=1 and heads='1' are equal"),
        (["duration='2 epochs'", "heads=1,2"], None),
    ):
        assert enter("-m", *words) == 0
        said = capsys.readouterr().out
        assert said.startswith(why) and said.count("\n") == 1 if why else said == ""


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["compile=off,step", "device=auto,cpu", "loader.workers=0,1"])
def test_an_axis_that_changes_no_result_is_said_to_collapse(axis, tmp_path, capsys):
    words = [axis, "heads=1,2", f"paths.output={tmp_path}"]
    assert give("plan", "--list", *words) == 0
    said, *runs, _ = capsys.readouterr().out.splitlines()
    assert said == f"{axis}: changes no result; 4 cells are 2 runs, each trained as its first cell"
    assert len(runs) == 2


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["paths.output=/a,b", "tracking=mlflow,none", "tracking.experiment=a,b"])
def test_a_grid_has_one_folder_and_one_tracker(axis, handed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert enter("-m", "heads=1,2", axis) == 2
    error = capsys.readouterr().err
    assert "expected one value for all cells of a grid; give one, or quote a value that has a comma, as in" in error
    assert handed == [] and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_data_is_located_once_a_command(tmp_path, monkeypatch):
    """Also where the batch size, the slots and the rounds of a screening depend on it."""
    located, resolve = [], locate.resolve

    def stop(sweep):
        raise SystemExit(0)

    monkeypatch.setattr(locate, "resolve", lambda dataset: located.append(dataset) or resolve(dataset))
    monkeypatch.setattr(Sharing, "batch_size", lambda self, runs, measure=True: 32)
    monkeypatch.setattr(launcher, "LocalPool", lambda timeout: None)
    monkeypatch.setattr(run_sweep, "launching", stop)
    words = ["heads=1,2", "batch_size=auto", f"paths.output={tmp_path}"]
    keys = ["hydra.launcher.slots=auto", "hydra.launcher.halving=2"]
    assert enter("-m", *words, *keys) == 0
    assert len(located) == 1
    assert give("plan", "--list", *words, *keys) == 0
    assert len(located) == 2


@pytest.mark.slow
def test_an_option_may_stand_between_the_overrides(handed):
    assert enter("heads=2", "-m", "seeds=2") == 0
    assert [(run.heads, run.seed) for run in handed[0][1]] == [(2, 0), (2, 1)]


@pytest.mark.slow
def test_a_relative_folder_counts_from_where_the_command_is_given(handed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["hydra.job.chdir=true"], ["-m", "hydra.job.chdir=true"]):
        assert enter(*words, "paths.output=out") == 0
    assert {Path(runs[0].paths.output) for _, runs in handed} == {tmp_path / "out"}


@pytest.mark.slow
def test_a_crash_is_no_mistake(monkeypatch, capsys):
    def crash(*_, **__):
        raise RuntimeError("out of luck with http://anna:geheim@host")

    monkeypatch.setattr(run_sweep, "run_sweep", crash)
    for words in ([], ["-m"]):
        assert enter(*words) == 1
        error = capsys.readouterr().err
        assert "Traceback" in error and "RuntimeError: out of luck with http://anna:***@host" in error
        assert "geheim" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device; free some space"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied; choose a folder that you may"),
        (FileNotFoundError(2, "No such file", "/x/y"), "/x/y: No such file\n"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused\n"),
        (TimeoutError("too late"), "TimeoutError: too late\n"),
    ],
)
def test_what_the_system_refuses_says_what_and_where(error, message, monkeypatch, capsys):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(run_sweep, "run_sweep", refuse)
    assert enter() == 2
    assert capsys.readouterr().err.startswith(f"headsweep: {message}")

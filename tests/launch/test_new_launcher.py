"""A launcher of ten lines, added as docs/development.md says: a class and a YAML."""

from dataclasses import dataclass

import pytest
from hydra.core.singleton import Singleton

from commands import TINY_RUN, enter
from headsweep.errors import UserError
from headsweep.launch.launcher import Launcher, make_launcher
from headsweep.run.train_run import preflight, train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState


@dataclass
class Settings:
    backwards: bool  # the last run first


class OneByOne(Launcher):
    settings_type = Settings

    def check(self, runs):
        return [preflight(run) for run in runs]

    def start(self, missing, display, notify):
        for folder in reversed(missing) if self.settings.backwards else missing:
            display.started(folder)
            train_folder(folder, lambda progress: None)
            display.ended(folder)


YAML = """
_target_: hydra_plugins.headsweep_launcher.HeadsweepLauncher
class: test_new_launcher.OneByOne
backwards: true
exclude: []
"""


class WithoutStart(Launcher):
    def check(self, runs):
        return []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lab_broken.Remote", "expected a module lab_broken that can be imported, found ImportError: cannot import"),
        ("lab_nowhere.Remote", "expected a module lab_nowhere that can be imported, found ModuleNotFoundError"),
        (f"{__name__}.WithoutStart", "expected WithoutStart to implement start"),
        ("Remote", "expected the name of a class derived from headsweep.launch.launcher.Launcher"),
    ],
)
def test_a_class_that_cannot_be_used_is_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "lab_broken.py").write_text("from math import nothing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        make_launcher({"class": name})
    assert str(error.value).startswith(f"hydra.launcher.class={name}: {message}") and "\n" not in str(error.value)


@pytest.fixture
def train(tmp_path):
    """Exit code of a grid of two runs with this launcher."""
    (tmp_path / "conf/hydra/launcher").mkdir(parents=True)
    (tmp_path / "conf/hydra/launcher/one_by_one.yaml").write_text(YAML)
    state = Singleton.get_state()  # Hydra knows one command a process
    grid = ["-m", "hydra/launcher=one_by_one", "heads=1,2", "duration='1 steps'", *TINY_RUN, "tracking=none"]
    place = ["--config-dir", str(tmp_path / "conf"), f"paths.output={tmp_path / 'outputs'}"]
    yield lambda *more: enter(*place, *grid, *more)
    Singleton.set_state(state)


@pytest.mark.slow
def test_it_trains_a_grid_that_is_planned_skipped_and_tabled_as_with_any_launcher(train, tmp_path, capsys):
    assert train("hydra.launcher.exclude=['heads=2 seed=1']", "seed=0,1") == 0
    shown = capsys.readouterr()
    ended = [line.split()[1] for line in shown.err.splitlines() if line.startswith("[")]
    names = [f"seqpool{heads}-cct_2_3x2-digits-seed{seed}" for heads, seed in ((1, 0), (2, 0), (1, 1))]
    assert ended == names[::-1]
    assert "1 of 4 cells left out" in shown.out and "table.md" in shown.out
    runs = [RunFolder(path) for path in (tmp_path / "outputs/runs").iterdir()]
    assert [folder.state() for folder in runs] == [RunState.finished] * 3
    assert not (tmp_path / "outputs/hydra").exists(), "Hydra's basic sweeper composes every cell, and writes this"
    assert train("seed=0") == 0
    assert "2 runs of 3 in digits-" in (again := capsys.readouterr().err) and "2 done already" in again


@pytest.mark.slow
def test_its_settings_are_typed_and_checked(train, capsys):
    for words, message in {
        "hydra.launcher.backwards=maybe": "hydra.launcher.backwards=maybe: expected true or false",
        "+hydra.launcher.forwards=true": "hydra.launcher.forwards=True: unknown; known: backwards",
        "batch_size=auto": "batch_size=auto: expected a number with this launcher",
    }.items():
        assert train(words) == 2
        assert capsys.readouterr().err.startswith(f"headsweep: {message}")

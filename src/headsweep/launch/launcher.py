"""The interface of launchers, which start the runs of a sweep.

A new launcher is a class derived from `Launcher` and a file conf/hydra/launcher/NAME.yaml, which names the class and
gives a value to each of its settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from headsweep.config import RunConfig
from headsweep.config.auto_batch_size import AUTO, KEY
from headsweep.config.launcher.launchers import NoSettings, parse_launcher
from headsweep.errors import ConfigError, UserError
from headsweep.launch.halving import Halving
from headsweep.launch.progress_bars import Display
from headsweep.loading import load_class
from headsweep.plan.plan import Plan
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder

Notify = Callable[[RunFolder], None]  # called when a run has new metrics or another state


class Launcher(ABC):
    """What starts the runs of a sweep. `run_sweep` calls the methods in the order in which they stand here."""

    settings_type: ClassVar[type[Any]] = NoSettings  # dataclass of the launcher's own keys in its YAML
    attempts: int | None = None  # tries of a run that fails; None: no limit
    detached: bool = False  # `start` returns while runs are queued or training, and they go on without this process
    wait: bool = False  # follow a detached sweep until it has ended

    def __init__(self, settings: Any) -> None:
        """Take the launcher's keys, an instance of `settings_type`."""
        self.settings = settings

    def batch_size(self, runs: Sequence[RunConfig]) -> int:
        """Return the batch size for batch_size=auto, which fits all of `runs`; their data has been located.

        Raises:
            UserError: it cannot be found.
        """
        raise ConfigError(
            KEY, AUTO, "expected a number with this launcher; `headsweep plan` measures what fits on this machine"
        )

    def prepare(self, runs: Sequence[RunConfig]) -> None:  # noqa: B027 - most launchers need none
        """Start slow imports, before the data of `runs` is located. Raises UserError for runs that it cannot start."""

    def accept(self, plan: Plan) -> None:  # noqa: B027 - most launchers need none
        """Check that the runs of a plan can be started; nothing has been written yet. Raises UserError."""

    def screening(self, plan: Plan) -> Halving | None:
        """Return what starts the runs of a plan in rounds, each with fewer cells; None: start all. Raises UserError."""
        return None

    @abstractmethod
    def check(self, runs: Sequence[RunConfig]) -> list[RunCost | UserError]:
        """Return the cost of each run, or why it cannot be built."""

    def forecast(self, plan: Plan) -> list[str]:
        """Return lines about how the runs of a plan would be started, for `headsweep plan`; nothing is written."""
        return []

    def dry_run(self, plan: Plan) -> str | None:
        """Return a text to print instead of starting runs; None: start them."""
        return None

    def lock(self, sweep: Path) -> AbstractContextManager[object]:
        """Keep other commands from starting runs of the sweep in folder `sweep` until `start` has returned.

        With a detached launcher, it is called before the plan is written.
        """
        return nullcontext()

    def active(self, plan: Plan) -> set[RunFolder]:
        """Return the runs that are queued or training already and are not to be started."""
        return set()

    @abstractmethod
    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify) -> None:
        """Start the runs in the folders `missing`, perhaps none, and wait for their ends unless `detached`.

        Raises:
            Interrupted: the process was asked to stop; the runs have written checkpoints.
        """

    def refill(self, sweep: Path) -> None:  # noqa: B027 - most launchers start all runs at once
        """Start runs that `start` could not start yet. Raises UserError."""

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `predictor.log_models`."""
        from headsweep.run.predictor import log_models  # imports torch

        return log_models(folders, config)


def make_launcher(keys: Mapping[str, Any]) -> Launcher:
    """Return the launcher that the keys of conf/hydra/launcher/NAME.yaml describe.

    Raises:
        UserError: `class` names no launcher, or one of its settings is wrong.
    """
    launcher = _named(str(keys.get("class")))
    return launcher(parse_launcher(launcher.settings_type, keys))


def _named(name: str) -> type[Launcher]:
    module, _, attribute = name.rpartition(".")
    if not module:
        expected = f"expected the name of a class derived from {Launcher.__module__}.Launcher"
        raise ConfigError("hydra.launcher.class", name, expected)
    return load_class(f"hydra.launcher.class={name}", f"{module}:{attribute}", Launcher)  # type: ignore[type-abstract]

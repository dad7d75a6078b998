"""The door: from Hydra's composed configurations to a study, and from any mistake to one line."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep import console
from headsweep.config import RunConfig, parse
from headsweep.config.auto_batch_size import AUTO, KEY, Fit, cell_with_size, is_wanted, with_size
from headsweep.config.command_line import spell_out
from headsweep.config.composition import composing, one_line
from headsweep.config.exclusions import Exclusions, left_out
from headsweep.config.expansion import given, study_axes
from headsweep.config.grid import Cell, Compose, Grid
from headsweep.config.launchers import LocalConfig, PlanConfig
from headsweep.config.slurm import parse_slurm
from headsweep.credentials import hidden
from headsweep.errors import EXPECTED, ConfigError, Crash, FailedRunsError, Interrupted, LostPeer, UserError
from headsweep.processes import starved
from headsweep.text import escaped

T = TypeVar("T")
_FOLDERS = "runs are written to paths.output, what torch compiles to TORCHINDUCTOR_CACHE_DIR"
_ADVICE = {
    errno.ENOSPC: f"; free some space, or choose another disk: {_FOLDERS}",
    errno.EDQUOT: f"; free some space, or choose another disk: {_FOLDERS}",
    errno.EACCES: f"; choose a folder that you may write: {_FOLDERS}",
    errno.EROFS: f"; choose a folder that you may write: {_FOLDERS}",
}
FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"  # Hydra's own switch: show tracebacks


def run_single(config: DictConfig) -> float:
    """Train one run in this process; the accuracy that a search would maximise."""
    if HydraConfig.get().mode is RunMode.RUN:
        with _exit_on_errors():  # before Hydra adds a line of its own
            _check_single(HydraConfig.get())
            return _run_single(config)
    return _run_single(config)


@contextmanager
def crashing() -> Iterator[None]:
    """Raise Crash for an error that is no mistake of the user, as `composing` around it would take it for one."""
    try:
        yield
    except (*EXPECTED, OSError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise Crash(traceback.format_exc()) from error


def _check_single(hydra: HydraConf) -> None:
    """Raise UserError where a single run would ignore what the command line or a study says of grids."""
    launchers = (word for word in given(hydra.overrides.hydra) if re.match(r"[+~]*hydra[./]launcher\b", word))
    if key := next(launchers, None):
        raise UserError(f"{key}: launchers start grids, and a single run would ignore it; want -m, or no {key}")
    if axes := study_axes(hydra.sweeper):
        study = next((word for word in given(hydra.overrides.task) if word.startswith("+")), "hydra.sweeper.params")
        raise UserError(
            f"{study}: a study is a grid, whose axes a single run would drop; want -m {study} ({' '.join(axes)})"
        )
    launcher = hydra.runtime.choices.get("hydra/launcher")
    if launcher != "local":
        raise UserError(f"hydra/launcher={launcher}: launchers start grids, and a single run would ignore it; want -m")


@crashing()
def _run_single(config: DictConfig) -> float:
    run = parse(_sized_single(config), HydraConfig.get().runtime.cwd)
    if _is_one_of_several():
        from headsweep.launch.torchrun import train_together

        return train_together(run)
    from headsweep.launch.in_process import InProcess
    from headsweep.launch.run_sweep import objectives, run_study

    return objectives(run_study([run], InProcess()))[0]


def _sized_single(config: DictConfig) -> DictConfig:
    """The configuration with the batch size that fits, if it asks for that: the run has its device to itself."""
    if not is_wanted([OmegaConf.select(config, KEY)]):
        return config
    if _is_one_of_several():
        want = "is measured by one process; want python src/train.py alone to find it, and here that number times ranks"
        raise ConfigError(KEY, AUTO, want)
    if HydraConfig.get().mode is not RunMode.RUN:
        want = "is one number for all cells, and this launcher starts each on its own; want hydra/launcher=local"
        raise ConfigError(KEY, AUTO, f"{want}, or a number")
    from headsweep.autotune.sharing import ALONE

    return with_size(config, ALONE.batch_size([parse(with_size(config, None))]))


def _is_one_of_several() -> bool:
    """Has torchrun started this process beside others?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def run_grid(
    cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, machine: LocalConfig
) -> list[float | None]:
    """Train the cells of a grid on this machine, but for those that `exclusions` leave out.

    Args:
        cells: the overrides of each.
        compose: gives the configuration of a list of overrides.
        exclusions: see `left_out`.
        machine: how this machine shares them out.

    Returns:
        For each cell, in order, the accuracy that a search would maximise; None where it was left out.

    Raises:
        UserError: cells are not valid; nothing has been started.
    """
    from headsweep.autotune.sharing import Sharing

    sharing = Sharing(machine.slots, machine.threads, machine.runs_per_gpu)
    answers, runs = _valid(cells, compose, exclusions, sharing.batch_size)
    from headsweep.launch.halving import Halving
    from headsweep.launch.local.pool import LocalPool
    from headsweep.launch.run_sweep import objectives, run_study

    pool = LocalPool(sharing.slots_of(runs), timeout=machine.timeout)
    screen = None if machine.halving is None else partial(Halving, machine.halving, pool)
    values = iter(objectives(run_study(runs, pool, attempts=machine.attempts, halving=screen)))
    return [None if answer is None else next(values) for answer in answers]


def submit_grid(
    cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, settings: Mapping[str, Any]
) -> list[float | None]:
    """Hand the cells of a grid to a SLURM cluster, but for those that `exclusions` leave out.

    Args:
        cells, compose, exclusions: as for `run_grid`.
        settings: the keys of `SlurmConfig`.

    Returns:
        As `run_grid`, if the settings say to wait; else None for each cell.

    Raises:
        UserError: cells or settings are not valid, or there is no cluster; nothing has been submitted.
    """
    slurm = parse_slurm(settings)
    answers, runs = _valid(cells, compose, exclusions, _fit_cluster)
    from headsweep.launch.run_sweep import objectives
    from headsweep.launch.slurm.submit import submit_study

    plan = submit_study(runs, slurm)
    values = iter(objectives(plan) if slurm.wait else [None] * len(runs))
    return [None if answer is None else next(values) for answer in answers]


def _valid(
    cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, fit: Fit
) -> tuple[list[RunConfig | Exception | None], list[RunConfig]]:
    """What `_expand` answers, and the runs in it. Raises UserError if a cell is not valid."""
    answers = _expand(cells, compose, exclusions, fit)
    return answers, _without_mistakes(cells, answers)


def _without_mistakes(cells: Sequence[Sequence[str]], answers: Sequence[object]) -> list[RunConfig]:
    """The runs in what was found of each of the cells. Raises UserError if one is not valid."""
    from headsweep.plan.plan import refusal

    runs = [run for run in answers if isinstance(run, RunConfig)]
    bad = _mistakes(cells, answers)
    if bad:
        raise refusal(bad, len(bad) + len(runs))
    return runs


def plan_grid(cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, machine: PlanConfig) -> None:
    """Print what `run_grid` would train, and every cell that is not valid; exit with 2 if there is one.

    Args:
        cells, compose, exclusions: as for `run_grid`.
        machine: as for `run_grid`, and how the plan is shown. To count costs imports torch, in another process; what
            batch_size=auto asks for is measured then, too.
    """
    from headsweep.autotune.sharing import Sharing

    sharing = Sharing(machine.slots, machine.threads, machine.runs_per_gpu)
    fit = partial(sharing.batch_size, measure=machine.costs)
    answers = _expand(cells, compose, exclusions, fit, say=not machine.json)
    runs = [run for run in answers if isinstance(run, RunConfig)]
    from headsweep.autotune.slots import AutoSlots
    from headsweep.launch.local.pool import LocalPool
    from headsweep.plan.preview import preview, show

    slots = sharing.slots_of(runs)
    slots = slots.expected() if isinstance(slots, AutoSlots) else slots
    check = (lambda new: LocalPool(slots).check(new)) if machine.costs else None
    plan = preview(runs, _mistakes(cells, answers), check, on_gpus=bool(slots.gpus))
    if machine.halving is not None and not plan.bad:
        from headsweep.launch.halving import Halving
        from headsweep.plan.plan import make_plan

        opening = Halving(machine.halving, None, make_plan(runs)).opening
        print(opening, file=sys.stderr)
    show(plan, slots.count, machine.json)
    if plan.bad:
        sys.exit(2)


def _expand(
    cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, fit: Fit, say: bool = True
) -> list[RunConfig | Exception | None]:
    """For each cell its checked configuration, or what is wrong with it, or None where it is left out.

    `fit` finds what is asked for by batch_size=auto. Raises UserError if it is not found.
    """
    from headsweep.plan.same_runs import check_shared, repetitions

    grid = Grid(compose)
    answers: list[Any] = [_try(grid.cell, overrides) for overrides in cells]
    composed = [at for at, answer in enumerate(answers) if isinstance(answer, Cell)]
    absent = left_out([answers[at] for at in composed], exclusions) if composed else []
    for at, out in zip(composed, absent, strict=True):
        answers[at] = None if out else answers[at]
    if any(absent) and say:
        print(f"{sum(absent)} of {len(cells)} cells left out (hydra.launcher.exclude)")
    if is_wanted([cell.select(KEY, None) for cell in answers if isinstance(cell, Cell)]):
        size = fit(_without_mistakes(cells, _parsed([_resized(answer, grid, None) for answer in answers])))
        answers = [_resized(answer, grid, size) for answer in answers]
    parsed = _parsed(answers)
    check_shared([run for run in parsed if isinstance(run, RunConfig)])
    if say and (repeated := repetitions(cells, parsed, exclusions.axes)):
        print(repeated)
    return parsed


def _resized(answer: Any, grid: Grid, size: int | None) -> Any:
    return cell_with_size(answer, grid, size) if isinstance(answer, Cell) else answer


def _parsed(answers: Sequence[Any]) -> list[Any]:
    return [_try(answer.parse) if isinstance(answer, Cell) else answer for answer in answers]


def _try(make: Callable[..., T], *arguments: Any) -> T | Exception:
    try:
        return make(*arguments)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return error


def _mistakes(cells: Sequence[Sequence[str]], answers: Sequence[object]) -> list[tuple[str, str]]:
    """Name, by the overrides that not all cells have, and mistake of each cell that has one."""
    common = set(cells[0]).intersection(*cells)
    return [
        (" ".join(word for word in words if word not in common) or "the only cell", one_line(answer))
        for words, answer in zip(cells, answers, strict=True)
        if isinstance(answer, Exception)
    ]


def _fit_cluster(runs: Sequence[RunConfig]) -> int:
    want = (
        "is measured where runs train, and no job has a node yet; want a number (`headsweep plan` on a node finds it)"
    )
    raise ConfigError(KEY, AUTO, want)


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Hand the words of a command to Hydra, which is called inside, and say any mistake in them in one line."""
    with one_line_errors(), composing(words):
        sys.argv[1:] = spell_out(words)
        yield


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's mistake as one line and exit with 2; failed runs exit with 1, Ctrl-C with 130, SIGTERM with 143.

    A closed terminal (SIGHUP) exits with 129, a process that has lost another of its run with 143, too. Streams that
    take no text raise nothing: see `printing`.

    HYDRA_FULL_ERROR=1 shows tracebacks instead, as Hydra's users know it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, over many lines
    try:
        with console.tolerant(), _exit_on_errors():
            yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def _exit_on_errors() -> Iterator[None]:
    try:
        yield
    except FailedRunsError as error:
        _exit(1, error, str(error))
    except Crash as error:
        if FULL_ERRORS:
            raise
        print(hidden(str(error)), file=sys.stderr)
        sys.exit(1)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _exit(2, error, one_line(error))
    except OSError as error:
        _exit(2, error, _system_error(error))
    except (ImportError, MemoryError) as error:
        _exit(2, error, starved(error))
    except KeyboardInterrupt as error:
        code = 128 + (error.signal if isinstance(error, Interrupted) else signal.SIGINT)
        _exit(code, error, "interrupted; the same command goes on from the runs' last checkpoints")
    except LostPeer as error:
        _exit(143, error, f"{error}; the same command goes on from the run's last checkpoint")


def _exit(code: int, error: BaseException, message: str) -> NoReturn:
    if FULL_ERRORS:
        raise error
    sys.stdout.flush()
    if os.environ.get("RANK", "0") == "0" or isinstance(error, LostPeer):  # what all ranks find, one says
        lines = re.split(r"\n(?=  )", hidden(message))  # an indented line for each of several mistakes
        print(f"headsweep: {chr(10).join(map(escaped, lines))}", file=sys.stderr)
    sys.exit(code)


def _system_error(error: OSError) -> str:
    """What failed and where; where it can help, what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or f'{type(error).__name__}: {error}'}{_ADVICE.get(error.errno or 0, '')}"

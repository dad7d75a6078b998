"""The door: from Hydra's composed configurations to a study, and from any mistake to one line."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep import printing
from headsweep.children import starved
from headsweep.config import RunConfig, explain, parse
from headsweep.config.automatic import AUTO, KEY, Fit, cell_with_size, is_wanted, with_size
from headsweep.config.exclusions import Exclusions, left_out
from headsweep.config.grid import Cell, Compose, Grid
from headsweep.config.slurm import parse_slurm
from headsweep.errors import ConfigError, FailedRunsError, Interrupted, LostPeer, UserError

T = TypeVar("T")
_SHOWING = {"-c", "--cfg", "-i", "--info", "-h", "--help", "--hydra-help", "-sc", "--shell-completion"}
FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"  # Hydra's own switch: show tracebacks


def run_single(config: DictConfig) -> float:
    """Train one run in this process; the accuracy that a search would maximise."""
    if HydraConfig.get().mode is RunMode.RUN:
        with _exit_on_errors():  # before Hydra adds a line of its own
            return _run_single(config)
    return _run_single(config)


def _run_single(config: DictConfig) -> float:
    run = parse(_sized_single(config))
    if _is_one_of_several():
        from headsweep.sweep.together import train_together

        return train_together(run)
    from headsweep.sweep.in_process import InProcess
    from headsweep.sweep.study import objectives, run_study

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
    from headsweep.sweep.sharing import ALONE

    return with_size(config, ALONE.batch_size([parse(with_size(config, None))]))


def _is_one_of_several() -> bool:
    """Has torchrun started this process beside others?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def run_grid(
    cells: Sequence[Sequence[str]],
    compose: Compose,
    exclusions: Exclusions,
    slots: int | str | None,
    threads: int | None,
    runs_per_gpu: int | None = None,
    attempts: int | None = None,
    timeout: float | None = None,
    halving: int | None = None,
) -> list[float | None]:
    """Train the cells of a grid on this machine, but for those that `exclusions` leave out.

    Args:
        cells: the overrides of each.
        compose: gives the configuration of a list of overrides.
        exclusions: see `left_out`.
        slots, threads, runs_per_gpu: see `Slots`, and `AutoSlots` for slots="auto".
        attempts: see `run_study`.
        timeout: see `LocalPool`.
        halving: of the cells that are left, one in so many goes on after each round; None: all are trained to the end.

    Returns:
        For each cell, in order, the accuracy that a search would maximise; None where it was left out.

    Raises:
        UserError: cells are not valid; nothing has been started.
    """
    from headsweep.sweep.sharing import Sharing

    sharing = Sharing(slots, threads, runs_per_gpu)
    answers, runs = _valid(cells, compose, exclusions, sharing.batch_size)
    from headsweep.sweep.halving import Halving
    from headsweep.sweep.local import LocalPool
    from headsweep.sweep.study import objectives, run_study

    pool = LocalPool(sharing.slots_of(runs), timeout=timeout)
    screen = None if halving is None else partial(Halving, halving, pool)
    values = iter(objectives(run_study(runs, pool, attempts=attempts, halving=screen)))
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
    from headsweep.sweep.slurm.submission import submit_study
    from headsweep.sweep.study import objectives

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
    from headsweep.sweep.plan import refusal

    runs = [run for run in answers if isinstance(run, RunConfig)]
    bad = _mistakes(cells, answers)
    if bad:
        raise refusal(bad, len(bad) + len(runs))
    return runs


def plan_grid(
    cells: Sequence[Sequence[str]],
    compose: Compose,
    exclusions: Exclusions,
    costs: bool,
    json: bool,
    slots: int | str | None,
    threads: int | None,
    runs_per_gpu: int | None,
    halving: int | None = None,
    **_: object,
) -> None:
    """Print what `run_grid` would train, and every cell that is not valid; exit with 2 if there is one.

    Args:
        cells, compose, exclusions: as for `run_grid`.
        slots, threads, runs_per_gpu, halving: as for `run_grid`, whose other options change nothing here.
        costs: count the parameters and FLOPs of new runs too, which imports torch in another process, and measure
            what batch_size=auto asks for.
        json: print one JSON object.
    """
    from headsweep.sweep.sharing import Sharing

    sharing = Sharing(slots, threads, runs_per_gpu)
    answers = _expand(cells, compose, exclusions, partial(sharing.batch_size, measure=costs), say=not json)
    runs = [run for run in answers if isinstance(run, RunConfig)]
    from headsweep.sweep.auto_slots import AutoSlots
    from headsweep.sweep.local import LocalPool
    from headsweep.sweep.planning import show, survey

    machine = sharing.slots_of(runs)
    machine = machine.expected() if isinstance(machine, AutoSlots) else machine
    check = (lambda new: LocalPool(machine).check(new)) if costs else None
    survey_ = survey(runs, _mistakes(cells, answers), check, on_gpus=bool(machine.gpus))
    if halving is not None and not survey_.bad:
        from headsweep.sweep.halving import Halving
        from headsweep.sweep.plan import make_plan

        opening = Halving(halving, None, make_plan(runs)).opening
        print(opening, file=sys.stderr)
    show(survey_, machine.count, json)
    if survey_.bad:
        sys.exit(2)


def _expand(
    cells: Sequence[Sequence[str]], compose: Compose, exclusions: Exclusions, fit: Fit, say: bool = True
) -> list[RunConfig | Exception | None]:
    """For each cell its checked configuration, or what is wrong with it, or None where it is left out.

    `fit` finds what is asked for by batch_size=auto. Raises UserError if it is not found.
    """
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
    return _parsed(answers)


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
        (" ".join(word for word in words if word not in common) or "the only cell", _one_line(answer))
        for words, answer in zip(cells, answers, strict=True)
        if isinstance(answer, Exception)
    ]


def _fit_cluster(runs: Sequence[RunConfig]) -> int:
    want = (
        "is measured where runs train, and no job has a node yet; want a number (`headsweep plan` on a node finds it)"
    )
    raise ConfigError(KEY, AUTO, want)


def spell_out(arguments: Sequence[str]) -> list[str]:
    """The arguments with what Hydra does not know spelled out: `seeds=3` as `seed=0,1,2`, and `--dry-run`.

    Raises:
        UserError: `seeds` is no number of at least 1; it, a study or a launcher's key stands without -m; --cfg or
            torchrun stands beside -m.
    """
    grid = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(arguments)
    shows = any(word.split("=")[0] in ("-c", "--cfg") for word in arguments)
    if grid and shows:
        raise UserError("--cfg shows one configuration and -m makes a grid: want one of the two")
    if grid and _is_one_of_several():
        raise UserError("-m under torchrun: its processes train one run together; want one run, or -m without torchrun")
    study = next((word for word in arguments if word.lstrip("+").startswith("sweeps=")), None)
    if study and not (grid or shows):
        raise UserError(f"{study}: a study is a grid, whose axes a single run would drop; want -m {study}")
    key = next((word for word in arguments if re.match(r"\+{0,2}hydra[./]launcher[.=]", word)), None)
    if key and not grid and _SHOWING.isdisjoint(word.split("=")[0] for word in arguments):
        raise UserError(f"{key}: launchers start grids, and a single run would ignore it; want -m, or no {key}")
    return [_spell_out(word, arguments) for word in arguments]


def _spell_out(word: str, arguments: Sequence[str]) -> str:
    if word == "--dry-run":
        if not any(other.startswith("hydra/launcher=slurm") for other in arguments):
            raise UserError(
                "--dry-run prints what sbatch would be given; want hydra/launcher=slurm (or `headsweep plan`)"
            )
        return "hydra.launcher.dry_run=true"
    if not word.startswith("seeds="):
        return word
    number = word.partition("=")[2]
    if not re.fullmatch(r"[1-9]\d{0,3}", number):
        raise UserError(f"{word}: want a number of seeds of at least 1, e.g. seeds=3 for seed=0,1,2")
    if {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(arguments):
        raise UserError(f"{word}: several seeds are a grid; want -m, or seed=N for one run")
    if any(other.startswith("seed=") for other in arguments):
        raise UserError(f"{word}: the seeds are given twice; want either seeds={number} or seed=...")
    return f"seed={','.join(map(str, range(int(number))))}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's mistake as one line and exit with 2; failed runs exit with 1, Ctrl-C with 130, SIGTERM with 143.

    A closed terminal (SIGHUP) exits with 129, a process that has lost another of its run with 143, too. Streams that
    take no text raise nothing: see `printing`.

    HYDRA_FULL_ERROR=1 shows tracebacks instead, as Hydra's users know it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, over many lines
    try:
        with printing.tolerant(), _exit_on_errors():
            yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def _exit_on_errors() -> Iterator[None]:
    try:
        yield
    except FailedRunsError as error:
        _exit(1, error, str(error))
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _exit(2, error, _one_line(error))
    except OSError as error:  # a full disk, a folder that may not be written
        where = error.filename or "input or output"
        want = "runs are written to paths.output, what torch compiles to TORCHINDUCTOR_CACHE_DIR"
        _exit(2, error, f"{where}: {error.strerror or error}; {want}")
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
        print(f"headsweep: {message}", file=sys.stderr)
    sys.exit(code)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error.missing_cfg_file, error.options or ())
    if isinstance(error, OverrideParseException):
        reason = str(error).split("\n", 1)[0]
        return f"'{error.override}' is not an override ({reason}); want key=value, e.g. heads=1,4,8"
    if isinstance(error.__cause__, OmegaConfBaseException):
        return str(explain(error.__cause__))
    if isinstance(error, OmegaConfBaseException):
        return str(explain(error))
    return re.sub(r"\s*\n\s*", "; ", str(error).strip())


def _unknown_choice(missing: str, options: Sequence[str]) -> str:
    group, _, choice = missing.rpartition("/")
    known = ", ".join(sorted(options))
    return str(ConfigError(group, choice, f"unknown {group.replace('/', ' ')}; known: {known}"))

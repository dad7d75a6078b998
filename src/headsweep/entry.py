"""The door: from Hydra's composed configurations to a study, and from any mistake to one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from headsweep.config import explain, parse
from headsweep.config.exclusions import left_out
from headsweep.errors import ConfigError, FailedRunsError, UserError

FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"  # Hydra's own switch: show tracebacks


def run_single(config: DictConfig) -> float:
    """Train one run in this process; the accuracy that a search would maximise."""
    if HydraConfig.get().mode is RunMode.RUN:
        with _exit_on_errors():  # before Hydra adds a line of its own
            return _run_single(config)
    return _run_single(config)


def _run_single(config: DictConfig) -> float:
    run = parse(config)
    from headsweep.sweep.in_process import InProcess
    from headsweep.sweep.study import objectives, run_study

    return objectives(run_study([run], InProcess()))[0]


def run_grid(
    configs: Sequence[DictConfig], exclusions: Sequence[str], slots: int | None, threads: int | None
) -> list[float | None]:
    """Train the cells of a grid on this machine, but for those that `exclusions` leave out.

    Returns:
        For each cell, in order, the accuracy that a search would maximise; None where it was left out.
    """
    absent = left_out(configs, exclusions)
    runs = [parse(config) for config, out in zip(configs, absent, strict=True) if not out]
    if any(absent):
        print(f"{sum(absent)} of {len(configs)} cells left out (hydra.launcher.exclude)")
    from headsweep.sweep.gpus import visible_gpus
    from headsweep.sweep.local import LocalPool, Slots
    from headsweep.sweep.study import objectives, run_study

    gpus = () if all(run.device == "cpu" for run in runs) else visible_gpus()
    values = iter(objectives(run_study(runs, LocalPool(Slots.of_this_machine(slots, threads, len(runs), gpus)))))
    return [None if out else next(values) for out in absent]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's mistake as one line and exit with 2; failed runs exit with 1, an interrupt with 130.

    HYDRA_FULL_ERROR=1 shows tracebacks instead, as Hydra's users know it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, over many lines
    try:
        with _exit_on_errors():
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
        _exit(2, error, f"{where}: {error.strerror or error}; paths.output is the folder that runs are written to")
    except KeyboardInterrupt as error:
        _exit(130, error, "interrupted; the same command goes on from the last whole epochs")


def _exit(code: int, error: BaseException, message: str) -> NoReturn:
    if FULL_ERRORS:
        raise error
    sys.stdout.flush()
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

"""The keys of launchers (`conf/hydra/launcher/*.yaml`), typed and checked; those of `slurm` are in `slurm.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.checks import is_one_line
from headsweep.errors import ConfigError

T = TypeVar("T")

MOST_THREADS = 1024  # with many more, the system cannot start a process
MINUTES = "expected minutes, a number above 0, or null"


@dataclass
class LocalConfig:
    """How this machine trains the runs of a grid."""

    slots: int | str | None  # runs at a time; None: runs_per_gpu per GPU, or one per CPU core; "auto": measured
    runs_per_gpu: int | None  # runs that share a GPU; None: one, unless there are more slots
    threads: int | None  # CPU threads of a run; None: the cores divided by the slots
    attempts: int | None  # tries of a run that fails; None: no limit
    timeout: float | None  # minutes without progress after which a run counts as hanging; None: never
    halving: int | None  # of the cells that are left, one in so many goes on after each round; None: all

    def __post_init__(self) -> None:
        for key, least in (("runs_per_gpu", 1), ("threads", 1), ("attempts", 1), ("halving", 2)):
            check_least(key, getattr(self, key), least)
        if isinstance(self.slots, int):
            check_least("slots", self.slots, 1)
        elif self.slots not in ("auto", None):
            raise wrong("slots", self.slots, BY_TYPE["int | str | None"])
        check_threads(self.threads)
        check_timeout(self.timeout)


@dataclass
class NoSettings:
    """The keys of a launcher that has none."""


NOT_SETTINGS = ("_target_", "class", "exclude")  # keys of every launcher, read before its own
EXPECTED = "expected"  # in the metadata of a field: the values that it takes, for the message about any other
# The same, by the type of the field.
BY_TYPE = {
    "int": "expected an integer",
    "int | None": "expected an integer or null",
    "int | str | None": "expected an integer >= 1, auto or null",
    "float | None": MINUTES,
    "bool": "expected true or false",
    "str | None": "expected a text or null",
}


def parse_launcher(schema: type[T], settings: Mapping[str, Any]) -> T:
    """Return a launcher's keys, but for `NOT_SETTINGS`, typed as the dataclass `schema` and checked.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type or contradicts another.
    """
    known = {field.name: field for field in fields(schema)}  # type: ignore[arg-type]
    typed = OmegaConf.structured(schema)
    for key, value in settings.items():
        if key in NOT_SETTINGS:
            continue
        if key not in known:
            raise wrong(key, value, f"unknown; known: {', '.join(sorted(known)) or 'none'}")
        if isinstance(value, str) and not is_one_line(value):
            raise wrong(key, value, "expected a text of one line, without control characters")
        try:
            typed[key] = value
        except OmegaConfBaseException as error:
            kind = getattr(known[key].type, "__name__", str(known[key].type))
            raise wrong(
                key, value, known[key].metadata.get(EXPECTED) or BY_TYPE.get(kind, f"expected {kind}")
            ) from error
    if missing := known.keys() - settings.keys():
        raise ConfigError(f"hydra.launcher.{min(missing)}", None, "expected a value, found none; give one")
    return OmegaConf.to_object(typed)  # type: ignore[return-value]


def check_least(key: str, got: int | None, least: int) -> None:
    """Raise ConfigError unless `got` is None or at least `least`."""
    if got is not None and got < least:
        raise wrong(key, got, f"expected an integer >= {least}")


def check_threads(got: int | None) -> None:
    """Raise ConfigError for more CPU threads than a process can have."""
    if got is not None and got > MOST_THREADS:
        raise wrong("threads", got, f"expected at most {MOST_THREADS} CPU threads of a run")


def check_timeout(got: float | None) -> None:
    """Raise ConfigError unless `got` is None or minutes."""
    if got is not None and not 0 < got < math.inf:
        raise wrong("timeout", got, MINUTES)


def wrong(key: str, found: object, expected: str) -> ConfigError:
    """Return the error for the value of a launcher's key."""
    return ConfigError(f"hydra.launcher.{key}", "null" if found is None else found, expected)

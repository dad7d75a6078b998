"""Hydra's composition, every error of which is a mistake in the overrides, reported in one line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.checks import is_one_line
from headsweep.config.omegaconf_errors import as_config_error
from headsweep.config.study_keys import SWEEPER
from headsweep.errors import EXPECTED, ConfigError, UserError
from headsweep.folders import CONF
from headsweep.text import escaped, first_line

# Hydra's message about several values where it composes one run.
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:\n| requires)", re.DOTALL)

# Its message about the choice of a group that is given by an interpolation.
_UNRESOLVED = re.compile(r"Error resolving interpolation '(.*?)', possible interpolation keys: (.*)")

_NO_TEXT = re.compile(r"""^\w+\(|^[{[]|\$\{|['"\\]""")  # a function, a dictionary, a list, an interpolation, quotes


# What commands report in one line, or pass on: anything else is an error in the program, or of Hydra's parser.
KNOWN = (*EXPECTED, OSError, HydraException, OmegaConfBaseException)


@contextmanager
def composing(overrides: Sequence[str]) -> Iterator[None]:
    """Raise UserError for exceptions of Hydra that are not its own; nothing but composition may run inside.

    Hydra, OmegaConf and their parser raise ValueError, TypeError, KeyError, AssertionError and others for values that
    they do not expect. All of them are mistakes in `overrides`, or in the files that these choose.
    """
    try:
        yield
    except KNOWN:
        raise
    except Exception as error:
        raise UserError(_culprit(overrides) or _unnamed(error)) from error


def one_line(error: Exception) -> str:
    """Return the one line that a user needs of an error of Hydra, OmegaConf or this package."""
    if known := next((it for it in _causes(error) if isinstance(it, UserError)), None):
        return str(known)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, first_line(error))
    if several := _SEVERAL.match(str(error)):
        return f"{several[1]}: expected one value, found several, which make a grid; add -m{_or_quoted(several[1])}"
    if unresolved := _UNRESOLVED.match(str(error)):
        expected = "expected the name of a choice, or ${GROUP} of a group that refers to no other"
        return f"{escaped(unresolved[1])}: {expected}: {unresolved[2]}"
    if cause := next((it for it in _causes(error) if isinstance(it, OmegaConfBaseException)), None):
        return str(as_config_error(cause))
    return _joined(str(error)) or type(error).__name__


def quoted(override: str) -> str | None:
    """Return an override whose value is a text, quoted for the shell; None where it is likely to be something else."""
    key, equals, value = override.partition("=")
    if not (key and equals) or _NO_TEXT.search(value) or not is_one_line(override):
        return None
    word = f'{key}="{value}"'
    try:
        is_text = OverridesParser.create().parse_override(word).value() == value
    except HydraException:
        return None
    return shlex.quote(word) if is_text else None


def _or_quoted(override: str) -> str:
    word = quoted(override)
    return f", or quote a text that has a comma: {word}" if word else ""


def _unreadable(override: str, reason: str) -> str:
    key, _, value = override.lstrip("+").partition("=")
    if key.startswith(f"{SWEEPER}.") and value[:1] in ("{", "["):
        advice = """quote each value that has a comma or another special character, e.g. {heads:"1,4"}"""
        return f"{key}: expected keys and values as Hydra reads them, found something else; {advice}"
    word = quoted(override)
    if word:
        return f"{escaped(override)}: expected a quoted value, found a special character; give {word}"
    return f"{escaped(override)}: expected KEY=VALUE, e.g. heads=1,4,8, found something else ({escaped(reason)})"


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"--config-name {choice}: no such file in conf/ or --config-dir; leave it out for conf/train.yaml"
    known = ", ".join(sorted(error.options or ())) or f"none, there is no folder {group}"
    return str(ConfigError(group, choice, f"unknown {group.replace('/', ' ')}; known: {known}"))


def _culprit(overrides: Sequence[str]) -> str | None:
    """Return the first override that Hydra cannot handle, and why."""
    parser = OverridesParser.create()
    for word in overrides:
        try:
            override = parser.parse_override(word)
            if override.is_discrete_sweep():
                next(override.sweep_string_iterator(), None)
        except HydraException:
            continue  # Hydra reports it when it reads the override
        except Exception as error:
            return f"{escaped(word)}: {_joined(str(error))}"
        if reason := _wrong_choice(override):
            return f"{escaped(word)}: {reason}"
    return None


def _wrong_choice(override: Override) -> str | None:
    key = override.key_or_group
    if not key:
        return "expected KEY=VALUE, found no key"
    if not ("/" in key or (CONF / key).is_dir()) or override.is_sweep_override():
        return None  # a key with a value of any type, or a grid
    value = override.value()
    names = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or all(isinstance(name, str) for name in names):
        return None
    if override.is_delete() and value is None:
        return None
    return f"expected the name of a choice, found {'null' if value is None else value}; see conf/{key}/"


def _unnamed(error: Exception) -> str:
    reason = f"{type(error).__name__}: {_joined(str(error))}".removesuffix(": ")
    return f"expected a configuration that Hydra can compose, found {reason}; HYDRA_FULL_ERROR=1 shows where"


def _joined(text: str) -> str:
    return escaped(re.sub(r"\s*\n\s*", "; ", text.strip()))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__

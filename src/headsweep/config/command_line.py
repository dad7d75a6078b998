"""The command line, before Hydra reads it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from headsweep.config.study.words import spelled_for_hydra
from headsweep.credentials import store_passwords
from headsweep.errors import UserError
from headsweep.text import escaped

_BY_NAME = "hydra/launcher=slurm"


def spell_out(words: Sequence[str]) -> list[str]:
    """Return the words with options first, and `seeds=3` and `--dry-run` replaced by the overrides that they stand for.

    The password of `tracking.uri` is stored separately, and is *** in what is returned.

    Raises:
        UserError: an option is unknown; `seeds` is no number of at least 1, or given beside `seed`; --cfg or torchrun
            stands beside -m.
    """
    options = ["hydra.launcher.dry_run=true" if word == "--dry-run" else word for word in store_passwords(words)]
    given, unknown = _Parser(parents=[get_args_parser()], add_help=False).parse_known_intermixed_args(options)
    if wrong := [word for word in unknown if word.startswith("-")]:
        raise unknown_option(wrong[0], "unknown option (--help, --hydra-help)")
    grid = given.multirun or "hydra.mode=MULTIRUN" in given.overrides
    if grid and given.cfg:
        raise UserError("--cfg and -m: expected one of them, as --cfg shows one configuration and -m makes a grid")
    if grid and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "-m: expected one run under torchrun, whose processes train it together; leave out -m, or torchrun"
        )
    if given.experimental_rerun and not Path(given.experimental_rerun).is_file():
        raise UserError(f"--experimental-rerun {given.experimental_rerun}: expected a job's pickle, found no such file")
    for word in given.overrides:
        options.remove(word)  # Hydra's parser misses overrides after an option that follows another override
    return [*options, *(_spell_out(word, given.overrides) for word in given.overrides)]


def unknown_option(word: str, reason: str) -> UserError:
    """Return the error for an option that no command with words KEY=VALUE has."""
    if word.partition("=")[0] == "--output":
        return UserError(f"{escaped(word)}: expected paths.output=FOLDER, as this command takes words KEY=VALUE")
    return UserError(f"{escaped(word)}: {reason}")


class _Parser(argparse.ArgumentParser):
    """Hydra's options; an error is one line, without their usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{escaped(message)} (--help, --hydra-help)")


def _spell_out(word: str, overrides: Sequence[str]) -> str:
    if re.match(r"\+{0,2}hydra\.[^=]*_target_=(?!hydra_plugins\.|hydra\.)", word):
        raise UserError(
            f"{escaped(word)}: expected a part of Hydra or of its plugins; choose one by name, e.g. {_BY_NAME}"
        )
    if word == "hydra/launcher=plan":
        raise UserError("hydra/launcher=plan: expected a launcher that starts runs; give `headsweep plan ARGUMENTS`")
    if not word.startswith("seeds="):
        return spelled_for_hydra(word)
    number = word.partition("=")[2]
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"{escaped(word)}: expected an integer in [1, 9999]; seeds=3 stands for seed=0,1,2")
    if any(other.startswith("seed=") for other in overrides):
        raise UserError(f"{word}: expected either seeds or seed, found both; leave one out")
    return f"seed={','.join(map(str, range(int(number))))}"

"""The words of the command line, before Hydra reads them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from headsweep.credentials import store_passwords
from headsweep.errors import UserError
from headsweep.text import escaped

_BY_NAME = "hydra/launcher=slurm"


def spell_out(words: Sequence[str]) -> list[str]:
    """Return the words with options first and what Hydra does not know spelled out: `seeds=3`, and `--dry-run`.

    The password of `tracking.uri` is kept aside, and is *** in what is returned.

    Raises:
        UserError: an option is unknown; `seeds` is no number of at least 1, or given beside `seed`; --cfg or torchrun
            stands beside -m.
    """
    options = ["hydra.launcher.dry_run=true" if word == "--dry-run" else word for word in store_passwords(words)]
    given, unknown = _Parser(parents=[get_args_parser()], add_help=False).parse_known_intermixed_args(options)
    if wrong := [word for word in unknown if word.startswith("-")]:
        raise UserError(f"{escaped(wrong[0])}: unknown option (--help, --hydra-help)")
    grid = given.multirun or "hydra.mode=MULTIRUN" in given.overrides
    if grid and given.cfg:
        raise UserError("--cfg shows one configuration and -m makes a grid: want one of the two")
    if grid and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("-m under torchrun: its processes train one run together; want one run, or -m without torchrun")
    if given.experimental_rerun and not Path(given.experimental_rerun).is_file():
        raise UserError(f"--experimental-rerun {given.experimental_rerun}: expected a job's pickle, found no such file")
    for word in given.overrides:
        options.remove(word)  # Hydra's parser finds no override behind an option that stands behind another
    return [*options, *(_spell_out(word, given.overrides) for word in given.overrides)]


class _Parser(argparse.ArgumentParser):
    """Hydra's options, of which a wrong one is one line without their usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{escaped(message)} (--help, --hydra-help)")


def _spell_out(word: str, overrides: Sequence[str]) -> str:
    if re.match(r"\+{0,2}hydra\.[^=]*_target_=(?!hydra_plugins\.|hydra\.)", word):
        raise UserError(
            f"{escaped(word)}: expected a part of Hydra or of its plugins; choose one by name, e.g. {_BY_NAME}"
        )
    if not word.startswith("seeds="):
        return word
    number = word.partition("=")[2]
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"{escaped(word)}: want a number of seeds of at least 1, e.g. seeds=3 for seed=0,1,2")
    if any(other.startswith("seed=") for other in overrides):
        raise UserError(f"{word}: the seeds are given twice; want either seeds={number} or seed=...")
    return f"seed={','.join(map(str, range(int(number))))}"

"""`headsweep.sweep`: train a grid from Python."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from hydra.core.utils import setup_globals

from headsweep.api.errors import user_errors
from headsweep.api.results import Results, results
from headsweep.config.command_line import spell_out
from headsweep.config.overrides import hydra_value
from headsweep.config.study.expansion import composer, read_grid
from headsweep.entry import expand_grid
from headsweep.errors import UserError
from headsweep.plan.plan import Plan


def sweep(*overrides: str, seeds: int | None = None, output: str | Path | None = None) -> Results:
    """Train what is missing of a grid, as `headsweep train -m OVERRIDES` does, and return its results.

    The same call again trains nothing. Interrupting it (Ctrl-C, or the stop button of a notebook) lets the runs write
    checkpoints, from which the same call resumes.

    Args:
        overrides: axes, keys and studies as on the command line: `"head=ga,seqattn"`, `"heads=1,4"`, `"+sweeps=mine"`.
        seeds: the number of seeds: 3 stands for `"seed=0,1,2"`.
        output: output folder of the runs, `paths.output`.

    Returns:
        The table of the sweep; inconsistent runs are compared, with a warning. With a launcher that does not wait, such
        as `"hydra/launcher=slurm"`, it is the state of the runs after submission; `headsweep.results` returns it later.

    Raises:
        UserError: a value or the data is not valid; nothing has been started. Its message is one line.
        FailedRunsError: some runs failed; the others have been trained, and are in `headsweep.results`.
        KeyboardInterrupt: the sweep was interrupted.
    """
    words = list(overrides)
    words += [] if seeds is None else [f"seeds={seeds}"]
    words += [] if output is None else [f"paths.output={hydra_value(str(Path(output).expanduser().absolute()))}"]
    with user_errors():
        _check(words)
        words = spell_out(words)
        with _as_command(words):
            plan = _train(words)
    return results(plan.name, output=plan.output, mark=True)  # as the table that the command prints


def _check(words: Sequence[object]) -> None:
    for word in words:
        if not isinstance(word, str) or word.startswith("-"):
            raise UserError(f"{word}: expected an override as a text, such as 'heads=1,4'")
    if threading.current_thread() is not threading.main_thread():
        raise UserError("sweep: expected the main thread, which receives signals; in others start `headsweep train`")


def _train(words: Sequence[str]) -> Plan:
    with composer():
        request, hydra = read_grid(words)
        grid = expand_grid(request, hydra.launcher)
    return grid.run(shows_table=False)


@contextmanager
def _as_command(words: Sequence[str]) -> Iterator[None]:
    """Let the plan record the command that does the same, and the processes of runs import no script of the caller.

    Such a script would call `sweep` again in each process, unless it guards the call with `__name__`.
    """
    arguments, main = sys.argv, sys.modules["__main__"]
    sys.argv, sys.modules["__main__"] = ["headsweep", "-m", *words], ModuleType("__main__")
    try:
        yield
    finally:
        sys.argv, sys.modules["__main__"] = arguments, main
        setup_globals()  # of Hydra's resolvers, `now` was replaced

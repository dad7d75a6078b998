"""Errors for a caller in Python: exceptions, where a command would print a line and exit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from headsweep.config.composition import one_line
from headsweep.credentials import redacted
from headsweep.errors import EXPECTED, UserError
from headsweep.exit_codes import system_error
from headsweep.processes import resource_error


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise UserError for what a command reports in one line with exit code 2."""
    try:
        yield
    except EXPECTED:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(redacted(one_line(error))) from error
    except OSError as error:
        raise UserError(redacted(system_error(error))) from error
    except (ImportError, MemoryError) as error:
        raise UserError(resource_error(error)) from error

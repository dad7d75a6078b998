"""The class or function that a record names, checked against its interface. Each mistake is one line."""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from headsweep.errors import UserError
from headsweep.folders import relative
from headsweep.text import message_of

T = TypeVar("T")
_LONGEST = 200  # characters of an error


def load_class(owner: str, class_path: str, base: type[T]) -> type[T]:
    """Return a class that implements all of an interface.

    Args:
        owner: who names it, for messages: e.g. head=median.
        class_path: package.module:Class, or FILE.py:Class.
        base: the interface.

    Raises:
        UserError: the module cannot be imported, or has no such class, or the class does not implement the interface.
    """
    place, name, found = _named(owner, class_path)
    if not (isinstance(found, type) and issubclass(found, base)):
        what = "nothing" if found is None else repr(found)
        raise UserError(f"{owner}: expected {name} in {place} to be a class derived from {base.__name__}, found {what}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UserError(f"{owner}: expected {name} to implement {', '.join(missing)}, found no such method")
    return found


def load_function(owner: str, path: str) -> Callable[..., Any]:
    """Return a function, as `load_class`. Raises UserError: the module cannot be imported, or has no such function."""
    place, name, found = _named(owner, path)
    if not callable(found):
        raise UserError(
            f"{owner}: expected {name} in {place} to be a function, found {'nothing' if found is None else repr(found)}"
        )
    return found


def _named(owner: str, path: str) -> tuple[str, str, Any]:
    """Return module, name and object of a path MODULE:NAME; None if the module has no such name."""
    place, _, name = path.rpartition(":")
    try:
        module = _file_module(place) if place.endswith(".py") else import_module(place)
    except (Exception, SystemExit) as error:  # of the user's own code
        reason = message_of(error)
        raise UserError(
            f"{owner}: expected a module {place} that can be imported, found {type(error).__name__}: {reason}"
        ) from error
    return place, name, getattr(module, name, None)


def check_options(owner: str, kind: type, options: set[str]) -> None:
    """Raise UserError unless the keyword-only parameters of a class are the options of its record."""
    parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    own = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    if own != options:
        expected, found = (", ".join(sorted(names)) or "none" for names in (options, own))
        raise UserError(
            f"{owner}: expected the options of its record ({expected}) as keyword-only parameters of "
            f"{kind.__name__}.__init__, found {found}"
        )


def described(error: BaseException, module: str) -> str:
    """Return type and first line of an exception, with the last line of code of `module`'s package that it passed."""
    lines = [line for line in map(str.strip, str(error).splitlines()) if line] or ["no reason"]
    text = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    place = last_frame(error, module)
    return f"{type(error).__name__}: {text}{f' ({place})' if place else ''}"


def last_frame(error: BaseException, module: str) -> str | None:
    """Return FILE:LINE of the last frame of an exception in the package of `module`, or in `module` itself."""
    top, found = module.partition(".")[0], None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == top:
            found = f"{relative(Path(frame.f_code.co_filename))}:{line}"
    return found


class _Uncached(SourceFileLoader):
    """Leaves no __pycache__ beside the file, which may be in the folder of a run."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        """Write nothing."""


def _file_module(file: str) -> ModuleType:
    return _module_of(Path(file).resolve(), hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12])


@cache
def _module_of(file: Path, digest: str) -> ModuleType:
    """Import a file under a name of its own; one that has changed is another module."""
    name = f"headsweep_file_{digest}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_Uncached(name, str(file)))
    assert spec is not None and spec.loader is not None, "it is given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses and pickle need it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module

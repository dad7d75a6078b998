"""Records by name: those of headsweep, and those that installed packages name in an entry point group.

A record holds what can be read of a head, a backbone or a data set without importing torch. Both kinds are added and
checked by the same code; an entry point is loaded when its record is asked for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from headsweep.errors import UserError
from headsweep.text import message_of

R = TypeVar("R")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Package:
    """Where a record comes from: a module of an installed distribution."""

    distribution: str
    version: str
    module: str

    @property
    def top(self) -> str:
        """The top-level module, whose files are the package's code."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class _Entry(Generic[R]):
    load: Callable[[], object]
    package: Package | None  # None: headsweep


class Registry(Mapping[str, R]):
    """Records of one kind. Iteration leaves out those that cannot be loaded, with one line on stderr for each.

    Args:
        group: entry point group in which packages name records.
        key: configuration key whose values are the names.
        kind: type of the records.
        records: those of headsweep.
    """

    def __init__(self, group: str, key: str, kind: type[R], records: Mapping[str, R]) -> None:
        self.group, self._key, self._kind, self._own = group, key, kind, records
        self._outcomes: dict[str, R | UserError] = {}

    def __getitem__(self, name: str) -> R:
        """Return a record. Raises KeyError if there is none, UserError if it cannot be loaded."""
        if name not in self._outcomes:
            self._outcomes[name] = self._outcome(name, self._entries[name])
        outcome = self._outcomes[name]
        if isinstance(outcome, UserError):
            raise outcome
        return outcome

    def __iter__(self) -> Iterator[str]:
        return iter(self._sound)

    def __len__(self) -> int:
        return len(self._sound)

    def package(self, name: str) -> Package | None:
        """Return the package that a record comes from; None for one of headsweep, or if there is no such record."""
        return self._entries[name][0].package if name in self._entries else None

    def packages(self) -> list[Package]:
        """Return the packages that name records, without loading any."""
        found = (entry.package for entries in self._entries.values() for entry in entries)
        return [package for package in dict.fromkeys(found) if package]

    def lines(self, distribution: str) -> list[str]:
        """Return the entry points of a distribution as in its metadata: NAME = MODULE:RECORD."""
        points = _installed().select(group=self.group)
        return [f"{point.name} = {point.value}" for point in points if _package(point).distribution == distribution]

    @cached_property
    def _entries(self) -> dict[str, list[_Entry[R]]]:
        found = {name: [_Entry[R](partial(self._own.__getitem__, name), None)] for name in self._own}
        for point in _installed().select(group=self.group):
            found.setdefault(point.name, []).append(_Entry(point.load, _package(point)))
        return found

    @cached_property
    def _sound(self) -> list[str]:
        names = []
        for name in self._entries:
            try:
                self[name]
            except UserError as error:
                print(f"headsweep: {error}", file=sys.stderr)
            else:
                names.append(name)
        return names

    def _outcome(self, name: str, entries: list[_Entry[R]]) -> R | UserError:
        """Return the only record of a name, or the error in one line."""
        if len(entries) > 1:
            owners = " and ".join(str(entry.package or "headsweep") for entry in entries)
            expected = f"expected one package that names it in {self.group}, found {owners}"
            return UserError(f"{self._key}={name}: {expected}; rename one of the entry points, or uninstall a package")
        found = self._load(name, entries[0])
        if isinstance(found, str):
            return UserError(f"{self._key}={name}: {found} (entry point of {entries[0].package} in {self.group})")
        return found

    def _load(self, name: str, entry: _Entry[R]) -> R | str:
        """Return the record of an entry, or why there is none."""
        if not _NAME.fullmatch(name):
            return "expected a name of letters, digits and _"
        is_light = "torch" not in sys.modules
        try:
            record = entry.load()
        except UserError as error:
            return str(error)
        except Exception as error:  # of the package's own code
            reason = message_of(error)
            return f"expected a record that can be imported, found {type(error).__name__}: {reason}"
        if not isinstance(record, self._kind):
            return f"expected a {self._kind.__name__}, found {_kind_of(record)}"
        if is_light and "torch" in sys.modules:
            return "expected a record whose module does not import torch, found that it does; put it in another module"
        return record


def _kind_of(record: object) -> str:
    return f"the class {record.__name__}" if isinstance(record, type) else f"a {type(record).__name__}"


@cache
def _installed() -> Any:
    """Return all entry points of this interpreter, with the method `select`; one scan takes some 20 ms."""
    return entry_points()


def _package(point: EntryPoint) -> Package:
    owner: Distribution | None = point.dist
    name, version = (owner.name, owner.version) if owner else ("an unknown package", "")
    return Package(name, version, point.module)

"""A head in a plain Python file, for a first try: `head=./my_head.py:MyHead`.

The file is read as text, since to import it would import torch: the options of the head are the keyword-only parameters
of its `__init__`, with their types and defaults. The file's content is part of a run's identity, its path is not; a run
keeps a copy in its folder.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from headsweep.config.records.head import HEADS, HeadConfig, HeadSpec
from headsweep.config.traits import NOTHING, USUAL
from headsweep.errors import ConfigError
from headsweep.folders import relative

_CHOICE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>.*))?")
_TYPES = {"int": int, "float": float, "bool": bool, "str": str}

MISSING = "???"  # as OmegaConf has it, whose import would slow `headsweep status`
Field = tuple[str, Any, Any]  # name, type, default (MISSING if there is none)


@dataclass
class FileHeadConfig(HeadConfig):
    """The keys of every head in a file; options are added by `spec_in`."""

    file: Annotated[str, NOTHING]
    digest: Annotated[str, USUAL]  # 12 hexadecimal digits of the SHA-256 of the file

    def __post_init__(self) -> None:
        if (found := digest_of(self.file)) != self.digest:
            expected = f"expected the content with digest {self.digest}, found {found}: the file was changed"
            raise ConfigError("head.file", self.file, f"{expected}; restore it, or give the command again")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.file, self.name, dataclasses.asdict(self))


def _rebuilt(file: str, name: str, values: dict[str, Any]) -> HeadConfig:
    return spec_in(file, name).options(**values)


def spec_of(head: HeadConfig) -> HeadSpec:
    """Return the record of a head. Raises UserError if it cannot be loaded."""
    return spec_in(head.file, head.name) if isinstance(head, FileHeadConfig) else HEADS[head.name]


def is_file(choice: str) -> bool:
    """Return whether a choice of the group `head` is in a file: ./my_head.py:MyHead, or without a class."""
    return _CHOICE.fullmatch(choice) is not None


def values_in(choice: str) -> dict[str, Any]:
    """Return the keys of a head in a file, with its options' defaults. Raises ConfigError as `spec_in`."""
    given = _CHOICE.fullmatch(choice)
    assert given is not None, "is_file"
    file = str(Path(given["file"]).expanduser().resolve())
    if not (given["name"] or "").isidentifier():
        known = ", ".join(_classes_in(_read(file), choice)) or "none"
        raise ConfigError("head", choice, f"expected FILE.py:CLASS; classes in it: {known}")
    fields = _fields_in(_read(file), file, given["name"])
    return {"name": given["name"], "file": file, "digest": digest_of(file)} | {name: value for name, _, value in fields}


def spec_in(file: str, name: str) -> HeadSpec:
    """Return the record of the class `name` in a file.

    Raises:
        ConfigError: there is no such file or class, its name is that of another head, or an option has no plain type.
    """
    return _spec(_read(file), file, name)


def shown(head: HeadConfig) -> str:
    """Return the choice of a head as it is given: NAME, or FILE.py:CLASS relative to the working directory."""
    return _shown(head.file, head.name) if isinstance(head, FileHeadConfig) else head.name


def _shown(file: str, name: str) -> str:
    return f"{relative(Path(file))}:{name}"


def digest_of(file: str) -> str:
    """Return 12 hexadecimal digits of a file's SHA-256. Raises ConfigError if it cannot be read."""
    return hashlib.sha256(_read(file)).hexdigest()[:12]


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError("head", file, f"expected a readable file, found: {error.strerror or error}") from error


@lru_cache(maxsize=256)  # one class of options for each content, however many cells have it
def _spec(content: bytes, file: str, name: str) -> HeadSpec:
    fields = [
        (field, kind) if default is MISSING else (field, kind, dataclasses.field(default=default))
        for field, kind, default in sorted(_fields_in(content, file, name), key=lambda field: field[2] is not MISSING)
    ]
    options = dataclasses.make_dataclass(name, fields, bases=(FileHeadConfig,))
    node = _class_in(content, file, name)
    return HeadSpec(options, f"{file}:{name}", file, f"{name} in {Path(file).name}", _reads_class_token(node))


def _class_in(content: bytes, file: str, name: str) -> ast.ClassDef:
    """Return the definition of a class in the text of a file."""
    choice = _shown(file, name)
    if name in HEADS:
        raise ConfigError("head", choice, f"expected another name than that of the head {name}; rename the class")
    classes = _classes_in(content, choice)
    if name not in classes:
        known = ", ".join(classes) or "none"
        raise ConfigError("head", choice, f"expected a class of the file, found no {name}; its classes: {known}")
    return classes[name]


def _classes_in(content: bytes, choice: str) -> dict[str, ast.ClassDef]:
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError) as error:
        raise ConfigError("head", choice, f"expected Python code, found {' '.join(str(error).split())}") from error
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _fields_in(content: bytes, file: str, name: str) -> list[Field]:
    return list(_fields(_class_in(content, file, name), _shown(file, name)))


def _fields(node: ast.ClassDef, choice: str) -> Iterator[Field]:
    """Yield the keyword-only parameters of a class's `__init__`."""
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            for parameter, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
                yield _field(parameter, default, choice)


def _field(parameter: ast.arg, default: ast.expr | None, choice: str) -> Field:
    hint = ast.unparse(parameter.annotation) if parameter.annotation else "no type"
    kind = _TYPES.get(hint.removesuffix(" | None"))
    if kind is None:
        expected = f"expected {', '.join(_TYPES)}, or one of them with | None, as the type of the option"
        raise ConfigError("head", choice, f"{expected} {parameter.arg}, found {hint}")
    if parameter.arg in ("name", "file", "digest"):
        raise ConfigError("head", choice, f"expected another name than {parameter.arg} for an option; rename it")
    try:
        value = MISSING if default is None else ast.literal_eval(default)
    except ValueError as error:
        expected = f"expected a plain value as the default of {parameter.arg}"
        raise ConfigError("head", choice, f"{expected}, found {ast.unparse(default or parameter)}") from error
    return parameter.arg, kind | None if hint.endswith(" | None") else kind, value


def _reads_class_token(node: ast.ClassDef) -> bool:
    """Return whether the class has the line `class_token = True`."""
    for line in node.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        if any(isinstance(target, ast.Name) and target.id == "class_token" for target in targets):
            return isinstance(value, ast.Constant) and value.value is True
    return False

"""The dotted keys of the schema and their traits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from headsweep.config.records.head import head_options
from headsweep.config.records.head_file import FileHeadConfig
from headsweep.config.records.model import model_options
from headsweep.config.schema import RunConfig
from headsweep.config.traits import USUAL, Neutral, Trait


def keys_with(trait: Trait) -> list[str]:
    """Return the keys that have `trait`, in the order of the schema."""
    return [key for key, found in all_keys().items() if trait in found]


@cache  # a plan asks for each key of each of its thousands of runs
def has_trait(key: str, trait: Trait) -> bool:
    """Return whether `key` has `trait`.

    A section is its name (`model` is `model.name`). A key that the schema does not have, such as one recorded by an
    earlier version, has the traits of its section.
    """
    known = all_keys()
    section = _sections().get(key.partition(".")[0], USUAL)
    return trait in known.get(key, known.get(f"{key}.name", section))


@cache
def all_keys() -> Mapping[str, Trait]:
    """Return key -> traits, with the options of every head and every family of models."""
    found = dict(keys_of(RunConfig)) | dict(keys_of(FileHeadConfig, "head."))
    for section, schemas in (("head", head_options()), ("model", model_options())):
        for schema in schemas.values():
            found |= keys_of(schema, f"{section}.")
    return found


def keys_of(schema: Any, prefix: str = "", traits: Trait = USUAL) -> Iterator[tuple[str, Trait]]:
    """Yield each key of a dataclass and of its sections, with its traits; `traits` are those of a key without any."""
    for name, type_, marks in _fields(schema):
        of_key = next((mark for mark in marks if isinstance(mark, Trait)), traits)
        if dataclasses.is_dataclass(type_):
            yield from keys_of(type_, f"{prefix}{name}.", of_key)
        else:
            yield prefix + name, of_key


@cache
def _sections() -> Mapping[str, Trait]:
    found = ((name, marks) for name, type_, marks in _fields(RunConfig) if dataclasses.is_dataclass(type_))
    return {name: next((mark for mark in marks if isinstance(mark, Trait)), USUAL) for name, marks in found}


@cache
def neutral_values() -> Mapping[str, Any]:
    """Return key -> neutral value of the keys that were added to every run (see `traits.Neutral`)."""
    return dict(_neutral_in(RunConfig, ""))


@cache
def _neutral_values_with_options() -> Mapping[str, Any]:
    """Return the same with the options of every head and every family of models."""
    found = dict(neutral_values())
    for section, schemas in (("head", head_options()), ("model", model_options())):
        for schema in schemas.values():
            found |= _neutral_in(schema, f"{section}.")
    return found


def _neutral_in(schema: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, type_, marks in _fields(schema):
        if dataclasses.is_dataclass(type_):
            yield from _neutral_in(type_, f"{prefix}{name}.")
        yield from ((prefix + name, mark.value) for mark in marks if isinstance(mark, Neutral))


def without_neutral(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value without the added keys at their neutral values, as earlier versions hashed it."""
    neutral = _neutral_values_with_options()
    return {key: value for key, value in values.items() if key not in neutral or value != neutral[key]}


def _fields(schema: Any) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield name, type and marks (traits, neutral value) of each field of a dataclass."""
    hints = get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        type_, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        yield field.name, type_, tuple(marks)


def flat(run: RunConfig) -> dict[str, Any]:
    """Return key -> plain value of every key; a dictionary of options is one value, as JSON."""
    return dict(_flat(run, ""))


def flat_record(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return key -> value of a configuration as a run's record has it: nested, a section in each key that has one."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, Mapping) else {key: value}
    return found


@cache
def _names(schema: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(schema))


def _flat(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in _names(section.__class__):
        value, key = getattr(section, name), prefix + name
        if hasattr(value, "__dataclass_fields__"):
            yield from _flat(value, f"{key}.")
        elif isinstance(value, dict):
            yield key, json.dumps(value, sort_keys=True)
        else:
            yield key, value.value if isinstance(value, Enum) else value

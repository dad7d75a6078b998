"""Classification heads: N tokens to the logits of K branches. Each has a record in `headsweep.config.records.head`."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from headsweep.config.records.head import HEADS as SPECS
from headsweep.config.records.head import HeadConfig, HeadSpec
from headsweep.config.records.head_file import FileHeadConfig, shown, spec_of
from headsweep.errors import UserError
from headsweep.heads.base import Head
from headsweep.heads.fitted import FittedHead
from headsweep.loading import check_options, load_class


class _Classes(Mapping[str, type[Head]]):
    """The class of each record of heads that are trained, or fitted, imported when it is asked for."""

    def __init__(self, are_fitted: bool) -> None:
        self._are_fitted = are_fitted

    def __getitem__(self, name: str) -> type[Head]:
        """Return the class. Raises KeyError if there is no such head, UserError if its class cannot be used."""
        if SPECS[name].is_fitted is not self._are_fitted:
            raise KeyError(name)
        return _class(name, SPECS[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name, spec in SPECS.items() if spec.is_fitted is self._are_fitted)

    def __len__(self) -> int:
        return sum(1 for _ in self)


HEADS: Mapping[str, type[Head]] = _Classes(are_fitted=False)
FITTED_HEADS: Mapping[str, type[Head]] = _Classes(are_fitted=True)


def build_head(name: str, *, width: int, num_classes: int, heads: int, tokens: int, **options: Any) -> Head:
    """Build the head of that name.

    Args:
        name: a key of HEADS or FITTED_HEADS.
        width: D, the width of a token.
        num_classes: C.
        heads: K, the number of branches.
        tokens: N, the number of patch tokens of an image of the size that the model is built for.
        **options: the head's own, e.g. `gram_dim` of `ga`.

    Raises:
        ValueError: there is no such head, or it does not accept these sizes or options.
        UserError: its class, of a package, does not implement the interface, or is not what its record says.
    """
    if name not in SPECS:
        raise ValueError(f"head={name}: unknown head; known: {', '.join(sorted(SPECS))}")
    return _class(name, SPECS[name])(width=width, num_classes=num_classes, heads=heads, tokens=tokens, **options)


def head_class(head: HeadConfig) -> type[Head]:
    """Return the class of a configured head. Raises UserError if it does not implement the interface."""
    return _class(shown(head), spec_of(head))


def head_options(head: HeadConfig) -> dict[str, Any]:
    """Return the keywords of a configured head's class: its options."""
    return {name: getattr(head, name) for name in _own_options(type(head))}


@cache
def _class(name: str, spec: HeadSpec) -> type[Head]:
    kind: type[Head] = load_class(f"head={name}", spec.class_path, Head)  # type: ignore[type-abstract]
    check_options(f"head={name}", kind, _own_options(spec.options))
    _check_record(f"head={name}", kind, spec)
    return kind


def _check_record(owner: str, kind: type[Head], spec: HeadSpec) -> None:
    """Raise UserError unless a class is what its record says: tokens are stored and shared by the record alone."""
    is_in_file = spec.class_path.rpartition(":")[0].endswith(".py")
    if kind.class_token is not spec.class_token:
        place = f"the lines of {kind.__name__}" if is_in_file else "its record"
        expected = f"expected class_token={kind.class_token} in {place}, as the class has it"
        raise UserError(f"{owner}: {expected}, found {spec.class_token}")
    is_fitted = issubclass(kind, FittedHead)
    if is_in_file and is_fitted:
        raise UserError(f"{owner}: expected a head that is trained, found a FittedHead; put it into a package")
    if is_fitted is not spec.is_fitted:
        derived = "derived" if is_fitted else "not derived"
        expected = f"expected is_fitted={is_fitted} in its record, as {kind.__name__} is {derived} from FittedHead"
        raise UserError(f"{owner}: {expected}, found {spec.is_fitted}")


def _own_options(options: type[HeadConfig]) -> set[str]:
    return {field.name for field in fields(options)} - {field.name for field in fields(FileHeadConfig)}


__all__ = ["FITTED_HEADS", "HEADS", "FittedHead", "Head", "build_head", "head_class", "head_options"]

"""Convert state dicts of other layouts to that of headsweep.

Read: headsweep's, with other image sizes and class counts; SeqAttention's and the CCT authors' (see `published_names`);
timm's own for a backbone of timm.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headsweep.config import Block, Positions
from headsweep.heads import Head
from headsweep.models.backbone import Backbone
from headsweep.models.checkpoints.fill import Conversion, Views, fill
from headsweep.models.checkpoints.published_names import (
    HEAD_COUNTS,
    POSITIONS,
    UNUSED_CLASSIFIER,
    block_in,
    classifier_names,
    has_branches,
    head_in,
    head_name,
    is_of_backbone,
    published_views,
)
from headsweep.models.checkpoints.state import CheckpointError, copied_state, listed
from headsweep.models.compact import CompactTransformer
from headsweep.models.compact.recorded import ARCHITECTURE, describe, recorded_architecture
from headsweep.models.compact.transformer import sine_positions
from headsweep.models.timm_backbone import TimmBackbone
from headsweep.text import plural

SINE_TOLERANCE = 1e-4  # the published table is computed in float32, with errors up to 3e-5
_IN_TIMM = "backbone.model."


@dataclass
class Fitted:
    """A state dict converted to the layout of headsweep."""

    state: dict[str, Tensor]
    block: Block | None = None  # kind of blocks that the file was trained with; None if unknown
    grid: tuple[int, int] | None = None  # rows and columns of the file's tokens; None if unknown
    notes: list[str] = field(default_factory=list)  # one line for each change


def fit(backbone: Backbone, head: Head | None, given: Mapping[str, Tensor]) -> Fitted:
    """Convert a state dict to the layout and shapes of the model, which is not changed.

    Without `head`, only the backbone of the file is converted, whatever its head is.

    Positions of another image size are resized bilinearly, as the CCT authors do; classifiers for another number of
    classes, and the head where the file is timm's, keep the model's present values.

    Raises:
        CheckpointError: the state dict is of no known layout, of another head, or does not fit.
    """
    with torch.device("cpu"):  # a model on the meta device is only checked
        fitted = Fitted(copied_state(backbone, head))
        rest = dict(given)
        _check_tensors(rest)
        views, classes_axis = _views(backbone, head, rest, fitted)
        fill(views, rest, Conversion(backbone, classes_axis, fitted.grid, fitted.notes))
        if isinstance(backbone, CompactTransformer):
            options = dataclasses.replace(backbone.options, block=fitted.block or backbone.options.block)
            fitted.state[ARCHITECTURE] = describe(options, backbone.grid)
        return fitted


def _check_tensors(given: Mapping[str, Tensor]) -> None:
    for name, tensor in given.items():
        if tensor.is_complex() or tensor.layout is not torch.strided:
            kind = tensor.dtype if tensor.is_complex() else tensor.layout
            raise CheckpointError(
                f"{name} of the file is {str(kind).removeprefix('torch.')}; expected dense real numbers"
            )


def count_classes(given: Mapping[str, Tensor]) -> int:
    """Return the number of classes in a file of headsweep or of a published code.

    Raises:
        CheckpointError: it holds no classifier that is known.
    """
    own = given.get("head.classifier.weight")
    if own is not None and own.ndim == 3:
        return own.shape[1]
    held = head_in(given)
    published = None if held is None else given.get(f"{classifier_names(held[0]).replace('*', '0')}.weight")
    if published is None:
        raise CheckpointError(f"expected weights of a known layout, found {listed(list(given))}")
    return published.shape[0]


def compute_as(kind: Block | None, backbone: Backbone) -> list[str]:
    """Set the kind of blocks to that of the trained weights; return notes about it."""
    if kind is None or not isinstance(backbone, CompactTransformer):
        return []
    if backbone.options.block is kind:
        return []
    backbone.set_block(kind)
    return [f"the model's blocks are now {kind.value}, as those of the file"]


def _views(backbone: Backbone, head: Head | None, rest: dict[str, Tensor], fitted: Fitted) -> tuple[Views, int]:
    """Return the tensors expected in a file of that layout and its axis of classes; drop unused ones from `rest`."""
    if not fitted.state.keys().isdisjoint(rest):
        _read_architecture(backbone, rest, fitted)
        if head is None:
            _take(rest, lambda key: key.startswith("head."))
        else:
            _check_heads(head, rest)
            _drop_classifiers(head, rest, "head.classifier.", fitted.notes)
        return ((name, name, tensor) for name, tensor in fitted.state.items() if name != ARCHITECTURE), 1
    fitted.block = block_in(rest)
    if isinstance(backbone, CompactTransformer) and fitted.block is not None:
        if head is None:
            _take(rest, lambda key: not is_of_backbone(key))
        else:
            _check_published_head(head, rest)
        _take_positions(backbone, rest, fitted.notes)
        if head is not None:
            _take_published_extras(head, rest, fitted)
        return published_views(backbone, head, fitted.block, fitted.state), 0
    if isinstance(backbone, TimmBackbone) and not backbone.model.state_dict().keys().isdisjoint(rest):
        dropped = _take_timm_classifier(backbone, rest)
        if head is not None:  # else no classifier is expected
            fitted.notes += dropped
            fitted.notes.append("the head is newly initialised: the file holds only the backbone")
        inside = {name: tensor for name, tensor in fitted.state.items() if name.startswith(_IN_TIMM)}
        return ((name.removeprefix(_IN_TIMM), name, tensor) for name, tensor in inside.items()), 0
    if isinstance(backbone, TimmBackbone):
        example = next(iter(backbone.model.state_dict()))
        raise CheckpointError(
            f"expected weights of {backbone.options.name} (e.g. {example}), found {listed(list(rest))}"
        )
    raise CheckpointError(f"expected weights of this model in a known layout, found {listed(list(rest))}")


def _read_architecture(backbone: Backbone, rest: dict[str, Tensor], fitted: Fitted) -> None:
    """Read kind of blocks, positions and grid from a file of headsweep."""
    if not isinstance(backbone, CompactTransformer):
        return
    recorded = recorded_architecture(rest)
    if recorded is None:
        raise CheckpointError(f"expected the kind of blocks in the file ({ARCHITECTURE}), found none")
    fitted.block, positions, fitted.grid = recorded
    del rest[ARCHITECTURE]
    if positions is not backbone.options.positions:
        raise CheckpointError(f"the file's positions are {positions.value}; use positions={positions.value}")


def _drop_classifiers(head: Head, rest: dict[str, Tensor], prefix: str, notes: list[str]) -> None:
    """Drop the classifiers of the file if the model has none."""
    if not head.num_classes and _take(rest, lambda key: key.startswith(prefix)):
        notes.append("the file's classifiers are dropped: the model has none")


def _check_heads(head: Head, rest: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if a file of headsweep has another number of heads."""
    classifier = rest.get("head.classifier.weight")
    if classifier is not None and classifier.ndim == 3 and len(classifier) != head.heads:
        raise CheckpointError(f"expected heads={head.heads}, found heads={len(classifier)} in the file")


def _take_published_extras(head: Head, rest: dict[str, Tensor], fitted: Fitted) -> None:
    name = head_name(head)
    if has_branches(name) and _take(rest, lambda key: key.rpartition(".")[0] == UNUSED_CLASSIFIER):
        fitted.notes.append(f"{UNUSED_CLASSIFIER} of the file is dropped: the published model never calls it")
    _drop_classifiers(head, rest, classifier_names(name).split("*")[0], fitted.notes)
    _take(rest, lambda key: key.endswith(".num_batches_tracked"))


def _check_published_head(head: Head, rest: Mapping[str, Tensor]) -> None:
    held, name = head_in(rest), head_name(head)
    if held == (name, head.heads):
        return
    if held is None:
        raise CheckpointError(f"this file holds no known head beside the blocks: {listed(list(rest))}")
    kind, count = held
    if not has_branches(kind):
        raise CheckpointError(
            f"this file holds one {kind} head, the model {head.heads} {name}: use head={kind} heads=1"
        )
    always_eight = " (upstream builds eight whatever the name says)" if count == 8 else ""
    what = plural(count, "head" if kind == name else f"{kind} head")
    named = f"{kind}{count}_cct_7_3x1_32" if count in HEAD_COUNTS else f"the model of {count} {kind} heads"
    raise CheckpointError(f"this file holds {what}{always_eight}: use {named}, in a run head={kind} heads={count}")


def _take_timm_classifier(backbone: TimmBackbone, rest: dict[str, Tensor]) -> list[str]:
    """Drop the classifier of the file, which the backbone does not have; return a note on it, if there is one."""
    described: Any = backbone.model.default_cfg
    names = described.get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    held = backbone.model.state_dict()
    taken = _take(rest, lambda key: key not in held and key.startswith(tuple(f"{name}." for name in names)))
    return [f"the file's classifier ({', '.join(names)}) is dropped"] if taken else []


def _take(rest: dict[str, Tensor], is_unused: Callable[[str], bool]) -> list[str]:
    """Remove the names that `is_unused` selects from the file, and return them."""
    taken = [name for name in rest if is_unused(name)]
    for name in taken:
        del rest[name]
    return taken


def _take_positions(backbone: CompactTransformer, rest: dict[str, Tensor], notes: list[str]) -> None:
    """Check the positions of a published file against the model's."""
    held = rest.get(POSITIONS)
    if backbone.options.positions is Positions.learnable:
        if held is None:
            raise CheckpointError(
                "expected positions in the file, found none; use positions=none, or sine if it was trained so"
            )
        return
    if held is None:
        return
    if backbone.options.positions is Positions.none:
        raise CheckpointError("the file holds positions and the model has none; use positions=learnable")
    if not torch.allclose(held.float(), sine_positions(held.shape[1], held.shape[2]), atol=SINE_TOLERANCE):
        raise CheckpointError("expected a sine table of positions, found learned ones; use positions=learnable")
    del rest[POSITIONS]
    notes.append("the file's positions are the model's own sine table")

"""A model's state dict under the names of the code that published its head."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from headsweep.config import Positions
from headsweep.errors import UserError
from headsweep.heads import Head
from headsweep.models.backbone import Backbone
from headsweep.models.checkpoints.published_names import (
    POSITIONS,
    UNUSED_CLASSIFIER,
    has_branches,
    head_name,
    published_views,
    was_published,
)
from headsweep.models.checkpoints.state import copied, copied_state
from headsweep.models.compact import CompactTransformer


def publish(backbone: Backbone, head: Head) -> dict[str, Tensor]:
    """Return the model's state dict with the names of the code that published its head.

    Raises:
        UserError: no published code can hold this model.
    """
    if not isinstance(backbone, CompactTransformer):
        raise UserError(
            "format=upstream: no published code has a head on another backbone than ViT-Lite, CVT and CCT; "
            "use --format headsweep"
        )
    if backbone.blocks_read is not None or head.pooled_norm is not None:
        keys = "tokens.layer, tokens.last, tokens.norm or classifier_norm"
        raise UserError(f"format=upstream: no published code has a head with {keys}; use --format headsweep")
    name, block = head_name(head), backbone.options.block
    if not was_published(name, head.heads, block):
        raise UserError(
            f"format=upstream: no published code has heads={head.heads} of {name} on {block.value} blocks; "
            "use --format headsweep"
        )
    state = copied_state(backbone, head)
    views = {published: view.clone() for published, _, view in published_views(backbone, head, block, state)}
    return views | dict(_published_extras(backbone, head, views))


def _published_extras(
    backbone: CompactTransformer, head: Head, views: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield published tensors without counterpart: batch counts, sine table, unused classifier (zeros)."""
    for name in views:
        if name.endswith(".running_mean"):
            yield name.replace("running_mean", "num_batches_tracked"), torch.tensor(0)
    if backbone.options.positions is Positions.sine:
        yield POSITIONS, copied(backbone.positions)
    if has_branches(head_name(head)):
        yield f"{UNUSED_CLASSIFIER}.weight", torch.zeros(head.num_classes, head.width)
        yield f"{UNUSED_CLASSIFIER}.bias", torch.zeros(head.num_classes)

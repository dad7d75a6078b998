"""What a run costs, as it is counted and as run.json has it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Cost:
    """Parameters and FLOPs of a model."""

    parameters: int  # trained ones, head included
    head_parameters: int
    flops: int  # products in one image's forward pass, head included; 2 per multiply-add (docs/heads.md)
    head_flops: int


MODEL_COSTS = tuple(count.name for count in fields(Cost))
# As run.json has it: a Cost by name, and "token_bytes" of an image where tokens are stored. Empty until it is counted.
RunCost = dict[str, int]


def of_model(cost: RunCost) -> RunCost:
    """Return what is of the model alone: the size of the tokens of all images, once stored, has the same name."""
    return {name: cost[name] for name in MODEL_COSTS if name in cost}

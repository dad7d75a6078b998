"""Readable names of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.config import RunConfig
from headsweep.plan.fingerprint import differing, identity


def run_names(runs: Sequence[RunConfig]) -> list[str]:
    """Return a readable name of each run that distinguishes it from the others."""
    values = [identity(run) for run in runs]
    axes = differing(values)
    return [run_name(value, axes) for value in values]


def run_name(values: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return a name with the values of the axes; `values` is the identity of the run."""
    named = {"head.name", "heads", "model.name", "dataset.name", "seed"}
    head = f"{values['head.name']}{values['heads']}-{values['model.name']}-{values['dataset.name']}"
    others = [f"{key.rpartition('.')[2]}={values[key]}" for key in axes if key not in named and key in values]
    return "-".join([head, *others, f"seed{values['seed']}"])

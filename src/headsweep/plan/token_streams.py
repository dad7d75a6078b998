"""Which runs read the same batches of stored tokens, and so train together in one process; no torch is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headsweep.config import HEADS, BackboneMode, TokenType
from headsweep.config.keys import flat_record
from headsweep.config.records.head_file import spec_in

# Tokens, their order and their batches depend on these alone. Some of them could differ (the dropout of a frozen
# backbone has no effect); runs that differ there are merely not trained together.
_SECTIONS = ("model", "dataset", "augmentation", "tokens", "loader", "debug", "paths")
_KEYS = ("backbone", "precision", "seed", "batch_size", "accumulation", "device")


def stream_of(config: Mapping[str, Any]) -> str | None:
    """Return a key that is equal for runs that read the same batches of stored tokens; None for other runs.

    Args:
        config: of the run, resolved, as in its run.json.
    """
    values = flat_record(config)
    is_frozen = BackboneMode(values.get("backbone", BackboneMode.train.value)).is_frozen
    if not is_frozen or values["tokens.cache"] == TokenType.off.value:
        return None
    name, file = values["head.name"], values.get("head.file")
    head = spec_in(file, name) if file else HEADS[name]
    if head.is_fitted:  # reads the training images once, in order
        return None
    kept = {key: value for key, value in values.items() if key in _KEYS or key.partition(".")[0] in _SECTIONS}
    return json.dumps({**kept, "class_token": head.class_token}, sort_keys=True)

"""Read weights from untrusted files without executing code in them."""

import argparse
import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor

from headsweep.errors import UserError
from headsweep.tracking.run_record import other_run

# Keys of the weights in a training checkpoint, averaged ones first: of headsweep, timm and SeqAttention.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_weights(path: Path, digest: str | None = None, fingerprint: str | None = None) -> dict[str, Tensor]:
    """Read the state dict in a file of headsweep, timm or a published code, on the CPU.

    Averaged weights are preferred. Prefixes of DDP and torch.compile are removed.

    Args:
        path: a file of torch.save or of safetensors.
        digest: SHA-256 that the file must have.
        fingerprint: of the run that must have written the file, unless the file names none.

    Raises:
        UserError: the file cannot be read, is another one, is damaged, holds more than data, or no state dict; the
            message is to follow the path.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        advice = f"; copy the file with SHA-256 {digest} there" if digest else ""
        raise UserError(f"cannot be read: {error.strerror or error}{advice}") from error
    if not content:
        raise UserError("expected a file of weights, found an empty one")
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(
            "has changed since the run was planned; give the command again to plan with the new file, or copy the one "
            f"with SHA-256 {digest} there"
        )
    parsed = _parse(content, path.suffix == ".safetensors")
    if other := other_run(parsed, fingerprint):
        raise UserError(other)
    return _state_dict(parsed)


def _parse(content: bytes, safe: bool) -> Any:
    """Load tensors and plain data only; any other object of a pickle is refused before it is created."""
    try:
        if safe:
            return safetensors.torch.load(content)
        # timm's training script stores its arguments in the file.
        with torch.serialization.safe_globals([argparse.Namespace]), torch.device("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below is clearer
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise UserError("expected weights only, found objects that could run code") from error
        raise UserError("expected a file of weights, found another or a damaged one") from error
    except Exception as error:  # damaged archives raise many kinds
        raise UserError("expected a file of weights, found another or a damaged one") from error


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Find the state dict in the content of a file."""
    if isinstance(content, dict):
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
    names = isinstance(content, dict) and content and all(isinstance(key, str) for key in content)
    if not names or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"expected a state dict, bare or under {', '.join(CONTAINERS)}")
    return clean_state_dict(content)

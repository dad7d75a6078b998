"""Pretrained weights of timm's models: the file that timm would load, and how to load it as timm does."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model
from timm.models._hub import download_cached_file

from headsweep.errors import ConfigError
from headsweep.text import first_line

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_KEY = "model.pretrained"


def pretrained_file(name: str) -> Path | None:
    """Return the file of a model's weights, downloaded into timm's cache if it is not there.

    None if timm does not know the model, which is reported where the model is built.

    Raises:
        ConfigError: there are no such weights, or they can be neither found nor downloaded.
    """
    if not is_model(name):
        return None
    try:
        described = get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise ConfigError("model.name", name, f"expected a tag that timm knows: {error}") from error
    if described is None or not described.has_weights:
        raise ConfigError(_KEY, "true", f"expected false: timm has no weights of {name}; give model.checkpoint=FILE")
    try:
        return Path(described.file or _download(described))
    except Exception as error:  # without a network, each client raises its own kinds
        place = described.hf_hub_id or described.url
        reason = first_line(error)[:200] or type(error).__name__
        found = f"expected the weights of {name} in timm's cache, or a network to download {place}, found neither"
        raise ConfigError(_KEY, "true", f"{found}; give them as model.checkpoint=FILE ({reason})") from error


def _download(described: PretrainedCfg) -> str:
    if not described.hf_hub_id:
        return download_cached_file(described.url)
    repository, _, revision = described.hf_hub_id.partition("@")
    names = (described.hf_hub_filename,) if described.hf_hub_filename else _HUB_FILES
    download = partial(hf_hub_download, repository, revision=revision or None)
    for name in names:
        with suppress(LocalEntryNotFoundError):
            return download(name, local_files_only=True)
    for name in names[:-1]:
        with suppress(EntryNotFoundError):
            _reach(repository, name, revision)
            return download(name)
    _reach(repository, names[-1], revision)
    return download(names[-1])


def _reach(repository: str, name: str, revision: str) -> None:
    """Ask for a file's size: without a network this fails at once, while a download is tried for 20 s with warnings."""
    get_hf_file_metadata(hf_hub_url(repository, name, revision=revision or None))


def loading(name: str, weights: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords with which timm's builder loads these weights, adapted to image size and channels.

    Without their classifier, and as if they had none: timm would otherwise ignore weights that do not fit.
    """
    described = get_pretrained_cfg(name)
    names = (described and described.classifier) or ()
    prefixes = tuple(f"{layer}." for layer in ((names,) if isinstance(names, str) else names))
    kept = {key: value for key, value in weights.items() if not (prefixes and key.startswith(prefixes))}
    overlay = {"state_dict": kept, "custom_load": False, "num_classes": 0, "label_offset": 0}
    return {"pretrained": True, "pretrained_cfg_overlay": overlay}

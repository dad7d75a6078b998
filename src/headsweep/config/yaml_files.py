"""YAML as OmegaConf reads it, parsed by libyaml in a tenth of the time.

libyaml accepts tabs where OmegaConf's parser refuses them, so texts with tabs are left to the latter.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

_MOST_CHARACTERS = 10_000  # libyaml recurses, and tens of thousands of brackets overflow the stack of a process


def read_yaml(text: str) -> DictConfig | ListConfig:
    """Return the content of a YAML document.

    Raises:
        YAMLError: it is no YAML, or has a key twice.
        OmegaConfBaseException: a key or a value has a type that OmegaConf does not have.
    """
    loader = (
        _fast_loader()
        if yaml.__with_libyaml__ and len(text) <= _MOST_CHARACTERS and "\t" not in text
        else get_yaml_loader()
    )
    content = yaml.load(text, loader)
    return OmegaConf.create({} if content is None else {content: None} if isinstance(content, str) else content)


def load_yaml(path: Path) -> DictConfig | ListConfig:
    """Return the content of a YAML file. Raises what `read_yaml` raises, or OSError."""
    return read_yaml(path.read_text(encoding="utf-8"))


@cache
def _fast_loader() -> Any:
    """Return OmegaConf's loader with libyaml as its parser."""
    from yaml.cyaml import CParser  # type: ignore[import-untyped]

    class Loader(CParser, get_yaml_loader()):  # type: ignore[misc]
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader

"""Python imports this at its start: where NO_TORCH is set, torch is not installed as far as anybody can tell."""

import os
from importlib.machinery import PathFinder

_find = PathFinder.find_spec

if os.environ.get("NO_TORCH"):
    PathFinder.find_spec = lambda name, *where: None if name == "torch" else _find(name, *where)

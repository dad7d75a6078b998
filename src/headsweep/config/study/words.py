r"""The study language on the command line, before Hydra reads it.

Hydra's grammar takes `{EMA:[ema_decay=0.9]}` for a syntax error, as it needs `{EMA:[ema_decay\=0.9]}`, and keeps the
last of two equal keys of a dictionary without a word. It adds keys to a dictionary of a study with `++` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headsweep.config.study_keys import KEYS, SWEEPER
from headsweep.errors import ConfigError

# Quoted text, a character after a backslash, a bracket or separator, other text.
_TOKEN = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|[{}\[\],:=]|[^"'\\{}\[\],:=]+|.)""", re.DOTALL)


def spelled_for_hydra(word: str) -> str:
    """Return an override of a study with each = in its value escaped, unless it is quoted or escaped already.

    A dictionary is given with `++`, so that it may add to that of a study.

    Raises:
        ConfigError: a dictionary has a key twice.
    """
    key, _, value = word.partition("=")
    if not key.lstrip("+").startswith(f"{SWEEPER}."):
        return word
    tokens = _TOKEN.findall(value)
    for twice in _repeated_keys(tokens):
        raise ConfigError(key, None, f"expected each key once, found {twice} twice")
    adds = value.startswith("{") and key in {f"{SWEEPER}.{name}" for name in KEYS}
    return "++" * adds + f"{key}=" + "".join("\\=" if token == "=" else token for token in tokens)


def _repeated_keys(tokens: list[str]) -> Iterator[str]:
    """Yield the keys that a dictionary has twice."""
    keys: list[set[str] | None] = []  # of each open dictionary, None for a list
    text = ""
    for token in tokens:
        if token in "{[":
            keys.append(set() if token == "{" else None)
        elif token in "}]" and keys:
            keys.pop()
        elif token == ":" and keys and (known := keys[-1]) is not None:
            if (name := text.strip()) in known:
                yield name
            known.add(name)
        text = "" if token in ",:{}[]" else text + token

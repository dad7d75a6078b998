"""Text without secrets and without the names of users and of their folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from getpass import getuser
from pathlib import Path
from typing import Any

from headsweep import credentials
from headsweep.folders import PROJECT_ROOT

_MASK = "***"
_SECRET_NAME = re.compile(
    r"passw(?:or)?d|(?:^|_)(?:(?:api|access|secret|private)?key|token|secret|pass|pwd|credentials?|auth)(?:_|$)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6  # a shorter value of the environment may be a word of any text
# A quoted value, or one of letters and digits, under a name that is a secret's; `class_token` is a part of a model.
_ASSIGNED = re.compile(
    r"""((?<!class_)(?<!cls_)(?:api_?key|access_?key|token|secret|passw(?:or)?d|pwd)["']?\s*[:=]\s*)"""
    r"""(["'][^"'\s]{4,}["']|(?=[\w+/-]*\d)(?=[\w+/-]*[A-Za-z])[\w+/-]{6,}=*)""",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(://)[^/?#@\s]+@")
_OTHER_HOME = re.compile(r"/(?:home|Users)/[^/\s'\":,]+")


class Anonymizer:
    """Replaces secrets and places in the texts of one output folder.

    Args:
        outputs: where the output folder is and was: they become `outputs`. The checkout, homes of users and their names
            in paths are shortened, too.
        environment: a value of a variable whose name is that of a secret becomes ***.
    """

    def __init__(self, outputs: Iterable[Path], environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        places = {str(path): "outputs" for output in outputs for path in (output.absolute(), output.resolve())}
        places |= {f"{PROJECT_ROOT}/": "", str(PROJECT_ROOT): ".", str(Path.home()): "~"}
        # The longest first: one may be inside another.
        self._places = sorted(((place, name) for place, name in places.items() if len(place) > 1), key=_by_length)
        self._user = re.compile(rf"(?<=/){re.escape(_user())}(?=/|\b)") if _user() else None

    @cached_property
    def _secrets(self) -> list[str]:
        """Values of variables that are named as secrets, and stored passwords, the longest first."""
        found = {value for name, value in self._environment.items() if _SECRET_NAME.search(name)}
        found |= set(credentials.passwords())
        # A folder is no secret, e.g. of XAUTHORITY or SSH_AUTH_SOCK.
        return sorted((it for it in found if len(it) >= _SHORTEST_SECRET and not it.startswith("/")), key=len)[::-1]

    def text(self, text: str) -> str:
        """Return a text without them."""
        text = _USER_INFO.sub(r"\1", credentials.redacted(text))
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        text = _ASSIGNED.sub(rf"\g<1>{_MASK}", text)
        for place, name in self._places:
            text = text.replace(place, name)
        text = _OTHER_HOME.sub("~", text)
        return self._user.sub("user", text) if self._user else text

    def value(self, value: Any) -> Any:
        """Return a value of JSON with its texts, keys included, as `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list) else value

    def json(self, text: str) -> str:
        """Return JSON likewise, as `atomic_files.write_json` writes it."""
        return json.dumps(self.value(json.loads(text)), indent=1, sort_keys=True) + "\n"


def neutral_places(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's nested configuration with neutral folders; none of these keys is part of its identity."""
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for section, key, neutral in _neutral(config):
        if found.get(section, {}).get(key) is not None:
            found[section][key] = neutral
    return found


def _neutral(config: Mapping[str, Any]) -> Iterable[tuple[str, str, str | None]]:
    """Yield section, key and the value that takes the place of a path or an address."""
    yield from (("paths", "output", "outputs"), ("paths", "data", "data"), ("paths", "cache", None))
    yield from (("tracking", "uri", None), ("loader", "stage", None), ("dataset", "root", "data"))
    yield "head", "file", "head.py"  # whose copy in the run's folder is read
    if checkpoint := (config.get("model") or {}).get("checkpoint"):
        yield "model", "checkpoint", f"checkpoints/{Path(checkpoint).name}"


def _by_length(place: tuple[str, str]) -> int:
    return -len(place[0])


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # a user without a name
        return ""

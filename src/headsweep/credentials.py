"""Passwords in the addresses of stores: kept in one file of mode 600, and hidden wherever else an address is written.

`http://anna:secret@host` becomes `http://anna:***@host` at the entry. That is what is printed, recorded and uploaded,
and by which whoever connects finds the password again.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from headsweep.errors import UserError

_HIDDEN = "***"
# A port before the path is no password, nor is an interpolation, which Hydra resolves later.
_START = r"(://[^:/?#@\s]*:)(?!\d+[/?#]|\$\{)"
_PASSWORD = re.compile(_START + r"[^\s@]*@(?:[^\s@/?#]*@)*")
_WITH_SPACES = re.compile(_START + r"[^@]*@(?:[^@/?#]*@)*")  # only where there is nothing but an address
_USER = re.compile(r"(https?://)(?!\*{3}@|\$\{)[^:/?#@\s]+@")  # alone, it is a token more often than a name
_TOKEN = re.compile(
    r"([?&#](?:password|passwd|pwd|sslpassword|token|access_token|api_key|secret)=)(?!\$\{)[^&\s'\"#]+", re.IGNORECASE
)
_OPTION = re.compile(r"(--uri=|\+{0,2}tracking\.uri=)(.*)", re.DOTALL)
_known: dict[str, str] = {}  # address as it is shown -> with its password


def file() -> Path:
    """Where passwords are kept: JSON, address as it is shown -> with its password."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "headsweep" / "credentials.json"


def hidden(text: str) -> str:
    """`text` with *** for the passwords and tokens of the addresses in it."""
    for secret, after in ((_PASSWORD, "@"), (_USER, "@"), (_TOKEN, "")):
        text = secret.sub(rf"\g<1>{_HIDDEN}{after}", text)
    return text


def keep(uri: str) -> str:
    """The address as it may be written; its password is kept for `complete`.

    Raises:
        UserError: the file for it cannot be written.
    """
    shown = hidden(_WITH_SPACES.sub(rf"\g<1>{_HIDDEN}@", uri))
    if shown != uri and _known.get(shown) != uri:
        try:
            _write(shown, uri)
        except OSError as error:
            raise UserError(
                f"tracking.uri={shown}: {file()} cannot keep its password ({error.strerror or error}); set "
                "XDG_CONFIG_HOME to a writable folder, or leave the password out and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD (http) or PGPASSWORD (postgresql)"
            ) from error
        _known[shown] = uri
    return shown


def keep_all(arguments: Sequence[str]) -> list[str]:
    """The words of a command with their addresses of stores as they may be written; see `keep`."""
    return [keep(word) if before == "--uri" else _keep_option(word) for before, word in pairwise(("", *arguments))]


def complete(uri: str) -> str:
    """The address to connect to. Where its password is not known, it has none: then the environment may have it."""
    if _HIDDEN not in uri:
        return uri
    return _known.get(uri) or _read().get(uri) or _without(uri)


def _keep_option(word: str) -> str:
    option = _OPTION.fullmatch(word)
    if option is None:
        return word
    value = option[2].strip("'\"")
    return word.replace(value, keep(value)) if value else word


def _without(uri: str) -> str:
    """Of http without the user, too: with one in the address, what the environment says would be ignored."""
    user, at = (r"[^/@]*", "") if uri.startswith("http") else ("", "@")
    bare = re.sub(rf"{user}:?\*{{3}}@", at, uri)
    return re.sub(r"([?&#])\w+=\*{3}&?", r"\1", bare).rstrip("?&#")


def _read() -> dict[str, str]:
    try:
        content = json.loads(file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file()} cannot be read ({error}); remove it, and give tracking.uri with its password"
        ) from error
    return content if isinstance(content, dict) else {}


def _write(shown: str, uri: str) -> None:
    from filelock import FileLock  # takes longer than all else here

    file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(f"{file()}.lock"):
        content = _read()
        if content.get(shown) == uri:
            return
        handle, aside = tempfile.mkstemp(dir=file().parent)  # of mode 600 from the start
        try:
            with os.fdopen(handle, "w") as opened:
                json.dump(content | {shown: uri}, opened, indent=1, sort_keys=True)
            Path(aside).replace(file())
        finally:
            Path(aside).unlink(missing_ok=True)

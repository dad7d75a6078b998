"""Passwords in the addresses of stores: kept in one file of mode 600, and redacted everywhere else.

`http://anna:secret@host` becomes `http://anna:***@host` at the entry. The redacted address is what is printed, recorded
and uploaded, and the key under which the password is found again.
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

_MASK = "***"
# Neither a port before the path is a password, nor an interpolation, which Hydra resolves later.
_START = r"(://[^:/?#@\s]*:)(?!\d+[/?#]|\$\{)"
_PASSWORD = re.compile(_START + r"[^\s@]*@(?:[^\s@/?#]*@)*")
_WITH_SPACES = re.compile(_START + r"[^@]*@(?:[^@/?#]*@)*")  # only where the text is nothing but an address
# A user without a password, who is more often a token than a name.
_USER = re.compile(r"(https?://)(?!\*{3}@|\$\{)[^:/?#@\s]+@")
_TOKEN = re.compile(
    r"([?&#](?:password|passwd|pwd|sslpassword|token|access_token|api_key|secret)=)(?!\$\{)([^&\s'\"#]+)", re.IGNORECASE
)
_IN_ADDRESS = re.compile(r"://(?:[^:/?#@\s]*:)?(.+)@")  # the password, or a user without one
_OPTION = re.compile(r"(--uri=|\+{0,2}tracking\.uri=)(.*)", re.DOTALL)
_known: dict[str, str] = {}  # redacted address -> address with its password


def file() -> Path:
    """Return the file of passwords: JSON, redacted address -> address with its password."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "headsweep" / "credentials.json"


def redacted(text: str) -> str:
    """Return `text` with *** for the passwords and tokens of the addresses in it."""
    for secret, after in ((_PASSWORD, "@"), (_USER, "@"), (_TOKEN, "")):
        text = secret.sub(rf"\g<1>{_MASK}{after}", text)
    return text


def store_password(uri: str) -> str:
    """Return the redacted address, after storing its password for `with_password`.

    Raises:
        UserError: the file for it cannot be written.
    """
    shown = redacted(_WITH_SPACES.sub(rf"\g<1>{_MASK}@", uri))
    if shown != uri and _known.get(shown) != uri:
        try:
            _write(shown, uri)
        except OSError as error:
            raise UserError(
                f"tracking.uri={shown}: {file()} cannot store its password ({error.strerror or error}); set "
                "XDG_CONFIG_HOME to a writable folder, or omit the password and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD (http) or PGPASSWORD (postgresql)"
            ) from error
        _known[shown] = uri
    return shown


def store_passwords(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with redacted addresses, as `store_password`."""
    return [
        store_password(word) if before == "--uri" else _store_option(word)
        for before, word in pairwise(("", *arguments))
    ]


def with_password(uri: str) -> str:
    """Return the address to connect to; without a stored password it has none, and the environment may have it."""
    if _MASK not in uri:
        return uri
    return _known.get(uri) or _read().get(uri) or _without(uri)


def passwords() -> list[str]:
    """Return the stored passwords and tokens. Raises UserError if the file cannot be read."""
    addresses = [*_known.values(), *_read().values()]
    found = (secret.finditer(address) for address in addresses for secret in (_IN_ADDRESS, _TOKEN))
    return sorted({match[match.lastindex or 0] for matches in found for match in matches})


def _store_option(word: str) -> str:
    option = _OPTION.fullmatch(word)
    if option is None:
        return word
    value = option[2].strip("'\"")
    return word.replace(value, store_password(value)) if value else word


def _without(uri: str) -> str:
    """Return the address without a password and, for http, without the user, which would override the environment."""
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
    from filelock import FileLock  # imported here because it is slow

    file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(f"{file()}.lock"):
        content = _read()
        if content.get(shown) == uri:
            return
        handle, part = tempfile.mkstemp(dir=file().parent)  # created with mode 600
        try:
            with os.fdopen(handle, "w") as opened:
                json.dump(content | {shown: uri}, opened, indent=1, sort_keys=True)
            Path(part).replace(file())
        finally:
            Path(part).unlink(missing_ok=True)

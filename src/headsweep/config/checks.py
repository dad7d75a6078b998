"""Rules that many keys share."""

import re
from urllib.parse import urlsplit

from headsweep.errors import ConfigError, UserError
from headsweep.text import is_file_name

LONGEST_NAME = 128  # characters
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and lone surrogates


def at_least(key: str, got: int, least: int) -> None:
    """Raise ConfigError unless `got` is at least `least`."""
    if got < least:
        raise ConfigError(key, got, f"expected an integer >= {least}")


def fraction(key: str, got: float, closed: bool = False) -> None:
    """Raise ConfigError unless `got` is in [0, 1), or in [0, 1] if `closed`."""
    if not (0 <= got < 1 or (closed and got == 1)):
        raise ConfigError(key, got, f"expected a number in [0, 1{']' if closed else ')'}")


def is_one_line(text: str) -> bool:
    """Return whether `text` has no line break or control character and can be encoded as UTF-8."""
    return _CONTROL.search(text) is None


def name(key: str, got: str, in_path: bool) -> None:
    """Raise ConfigError unless `got` is a name, and if `in_path` a valid name of a file or folder."""
    if not got.strip() or len(got) > LONGEST_NAME or not is_one_line(got):
        raise ConfigError(key, got or "''", f"expected a name of 1 to {LONGEST_NAME} printable characters")
    if in_path and not is_file_name(got):
        raise ConfigError(key, got, "expected a name without / and \\ that does not begin with a dot")


def address(key: str, got: str) -> None:
    """Raise ConfigError unless `got` is a URI."""
    try:
        _ = urlsplit(got).port
    except ValueError as error:
        raise ConfigError(key, got, f"expected an address, e.g. http://host:port ({error})") from error


def options_of(base: type, options: object, class_path: str) -> None:
    """Raise UserError unless `options`, in the record of `class_path`, is a dataclass derived from `base`."""
    if not (isinstance(options, type) and issubclass(options, base) and "__dataclass_fields__" in vars(options)):
        found = getattr(options, "__name__", repr(options))
        expected = f"expected a dataclass derived from {base.__name__}"
        raise UserError(f"options={found}: {expected} in the record of {class_path}")

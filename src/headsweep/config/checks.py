"""Rules that many keys share."""

from headsweep.errors import ConfigError


def at_least(key: str, got: int, least: int) -> None:
    """Raise ConfigError unless `got` is at least `least`."""
    if got < least:
        raise ConfigError(key, got, f"want a whole number of at least {least}")


def fraction(key: str, got: float, closed: bool = False) -> None:
    """Raise ConfigError unless `got` is in [0, 1), or in [0, 1] if `closed`."""
    if not (0 <= got < 1 or (closed and got == 1)):
        raise ConfigError(key, got, f"want a number in [0, 1{']' if closed else ')'}")

"""The errors that a user can cause, each in one line: what was found, what was expected, how to fix it."""

from headsweep.text import escaped


class UserError(Exception):
    """A mistake that the user can correct; printed as one line, without a traceback, exit code 2."""

    def __str__(self) -> str:
        return escaped(super().__str__(), keep="\n")

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the line alone."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """A configuration key has a value that cannot work.

    Args:
        key: the dotted key, as it is written on the command line.
        found: its value, or None when the key itself is wrong.
        expected: what would be valid and how to get there.
    """

    def __init__(self, key: str, found: object, expected: str) -> None:
        self.key, self.found, self.expected = key, found, expected
        given = key if found is None else f"{key}={found}"
        super().__init__(f"{escaped(given)}: {expected}")

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return ConfigError, (self.key, self.found, self.expected)


class DataError(UserError):
    """A data set is absent or differs from the configuration; the message names the folder."""

    def __str__(self) -> str:
        return escaped(super().__str__())


class FailedRunsError(Exception):
    """Some of `count` runs have not ended well; exit code 1.

    Args:
        count: all runs.
        reasons: a line for each that has not.
        advice: how to try these again.
        what: what `count` counts.
        unfinished: how many of these have not failed: they were cancelled or stopped, or never began.
    """

    def __init__(
        self,
        count: int,
        reasons: list[str],
        advice: str = "the same command tries them again",
        what: str = "runs",
        unfinished: int = 0,
    ) -> None:
        self.reasons = reasons
        failed = len(reasons) - unfinished
        head = f"{failed or unfinished} of {count} {what} {'failed' if failed else 'not finished'}"
        more = f", {unfinished} not finished" if failed and unfinished else ""
        lines = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{head}{more}; {advice}{lines}")


class Crash(Exception):  # noqa: N818 - it carries another error
    """An error that the user did not cause; the message is its traceback."""


class LostPeer(Exception):  # noqa: N818 - not an error of this process
    """Another process of the same run has ended, so this one cannot go on; the run itself has not failed."""


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal, and can be continued; the exit code is 128 + `signal`."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(signal)


EXPECTED = (UserError, FailedRunsError, Crash, LostPeer)  # how a command may end, each with its exit code

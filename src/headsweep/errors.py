"""The errors that a user can cause, each said in one line: what was got, what is wanted, how to fix it."""

from headsweep.text import escaped


class UserError(Exception):
    """A mistake that the user can mend; printed as one line, without a traceback, exit code 2."""

    def __str__(self) -> str:
        return escaped(super().__str__(), keep="\n")


class ConfigError(UserError):
    """A configuration key holds something that cannot work.

    Args:
        key: the dotted key, as it is written on the command line.
        got: the value that was found, or None when the key itself is wrong.
        want: what would be valid and how to get there.
    """

    def __init__(self, key: str, got: object, want: str) -> None:
        self.key, self.got, self.want = key, got, want
        found = key if got is None else f"{key}={got}"
        super().__init__(f"{escaped(found)}: {want}")

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return ConfigError, (self.key, self.got, self.want)


class DataError(UserError):
    """A data set is absent or is not what the configuration says; the message says where it was looked for."""

    def __str__(self) -> str:
        return escaped(super().__str__())


class FailedRunsError(Exception):
    """Some of `count` runs failed; exit code 1. `advice` says how to try them again, `reasons` has a line for each."""

    def __init__(
        self, count: int, reasons: list[str], advice: str = "the same command tries them again", what: str = "runs"
    ) -> None:
        self.reasons = reasons
        lines = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{len(reasons)} of {count} {what} failed; {advice}{lines}")


class Crash(Exception):  # noqa: N818 - what it stands for is the error
    """An error that is no mistake of the user; the message is its traceback."""


class LostPeer(Exception):  # noqa: N818 - it is no error of this process
    """Another process of the same run is gone: this one cannot go on, and the run is not at fault."""


class Interrupted(KeyboardInterrupt):
    """What was running has stopped because of a signal and can be continued; the exit code is 128 + `signal`."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(signal)


EXPECTED = (UserError, FailedRunsError, Crash, LostPeer)  # how a command may end, each with its exit code

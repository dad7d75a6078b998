"""Standard output and error: text that cannot be printed neither stops training nor raises.

Python ends a program whose reader has ended, whose log is on a full disk, whose terminal was closed or lacks a
character, or whose streams were closed before it started. Here text is replaced or dropped instead, and the first error
of standard output is kept for the exit code.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import signal
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO, cast

READER_ENDED = 128 + signal.SIGPIPE  # the exit code that a shell reports of `yes | head -1`
_PLAIN = {"Δ": "d", "±": "+-", "×": "x", "—": "-", "–": "-", "−": "-", "λ": "lambda"}  # noqa: RUF001
_REASONS = {errno.EPIPE: "its reader has ended", errno.EBADF: "it is closed"}


class _Tolerant(io.FileIO):
    """A descriptor that keeps its first write error and drops what it cannot write."""

    error: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            while (written := super().write(data)) is None:  # another program made the descriptor non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.error = self.error or error
            return len(data)


def prepare() -> None:
    """Make both streams tolerant, except one that was replaced, as in a test or a notebook."""
    _open_closed_descriptors()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or printing stops a background job after `stty tostop`
    if os.environ.get("COLUMNS") == "0":  # some terminals set it; rich would print nothing
        del os.environ["COLUMNS"]
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _tolerant(sys.stderr, 2)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Prepare the streams for the body; exit as `end` does, unless the body exits with a code of its own."""
    prepare()
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            raise
    end()


def lost() -> str | None:
    """Return why standard output has not taken all text since the last call, or None."""
    error = _take_error()
    return None if error is None else _reason(error)


def end() -> None:
    """Exit, if standard output has not taken all text: with 141 if its reader has ended, else with a line and 2."""
    error = _take_error()
    if error is None:
        return
    if error.errno == errno.EPIPE:
        sys.exit(READER_ENDED)
    print(f"headsweep: standard output: {_reason(error)}; what was printed is incomplete", file=sys.stderr)
    sys.exit(2)


def is_broken() -> bool:
    """Return whether standard output has refused text since the last `lost`."""
    return (raw := _raw()) is not None and raw.error is not None


def _raw() -> _Tolerant | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Tolerant) else None


def _take_error() -> OSError | None:
    sys.stdout.flush()
    raw = _raw()
    if raw is None:
        return None
    error, raw.error = raw.error, None
    return error


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, str(error.strerror))


def _open_closed_descriptors() -> None:
    """Open 0 to 2, so that no file opened later gets one of them, and with it the printed text.

    The descriptors are read-only: writing fails, as it would have.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _tolerant(stream: TextIO | None, number: int) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    buffer = io.BufferedWriter(cast(io.RawIOBase, _Tolerant(number, "w", closefd=False)))
    return io.TextIOWrapper(buffer, encoding, _REPLACING, line_buffering=True)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return, for the error handler of `codecs`, characters that every encoding has."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(map(_plain, text)), error.end


def _plain(character: str) -> str:
    """Return a character in ASCII: spelled out, without its accents, or as a question mark."""
    ascii_ = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _PLAIN.get(character) or ascii_ or "?"


_REPLACING = "headsweep.plain"
codecs.register_error(_REPLACING, _replace)

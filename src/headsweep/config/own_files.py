"""The user's own configuration, in the folders conf and sweeps of the working directory."""

from __future__ import annotations

import sys

from headsweep.folders import unread_files
from headsweep.text import one_line


def warn_of_unread_files() -> None:
    """Print a line on stderr for each own file that has the name of one of headsweep's, which is read instead."""
    for file in unread_files():
        choice = file.partition("/")[2].removesuffix(".yaml")
        line = f"headsweep: {file} is not read: headsweep has a {choice} of its own; rename the file"
        print(one_line(line), file=sys.stderr)

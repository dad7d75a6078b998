r"""The files that a LaTeX document consists of: itself, and what `\input` and `\include` add, at any depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_COMMENT = re.compile(r"(?<!\\)%.*")
_INPUT = re.compile(r"\\(?:input|include)\s*\{([^{}]+)\}|\\input\s+([^\s{}\\]+)")


def files_of(document: Path, read: Callable[[Path], str]) -> tuple[list[Path], list[str]]:
    """Return the files of a document, the document first, and the names that are no files beside it.

    LaTeX looks for such names in its own folders, too, e.g. for `glyphtounicode`.

    Args:
        document: the file that is given to LaTeX, in whose folder it is run.
        read: returns the text of a file.
    """
    files, absent = [document], dict[str, None]()
    for path in files:  # which grows
        for found in _INPUT.finditer(_COMMENT.sub("", read(path))):
            name = (found[1] or found[2]).strip()
            beside = (document.parent / f"{name}.tex", document.parent / name)
            file = next((it for it in beside if it.is_file()), None)
            if file is None:
                absent[name] = None
            elif file.resolve() not in {it.resolve() for it in files}:
                files.append(file)
    return files, list(absent)

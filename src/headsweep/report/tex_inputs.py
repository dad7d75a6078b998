r"""The files that a LaTeX document consists of: itself, and what `\input` and `\include` add, at any depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from headsweep.errors import UserError

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")  # a percent sign after \\, which breaks a line, begins one as well
_END = r"\end{document}"
_INPUT = re.compile(r'\\(?:input|include)\s*\{([^{}]+)\}|\\input\s+(?:"([^"\n]+)"|([^\s{}\\"]+))')


def files_of(document: Path, read: Callable[[Path], str]) -> tuple[list[Path], list[str]]:
    """Return the files of a document, the document first, and the names that are no files of text beside it.

    LaTeX looks for such names in its own folders, too, e.g. for `glyphtounicode`.

    Args:
        document: the file that is given to LaTeX, in whose folder it is run.
        read: returns the text of a file, or raises UserError.

    Raises:
        UserError: the document cannot be read.
    """
    inputs, files, absent = {document.resolve(): str(document)}, list[Path](), list[str]()
    waiting = [document]
    for path in waiting:  # which grows
        try:
            text = read(path)
        except UserError:
            if path is document:
                raise
            absent.append(inputs[path.resolve()])
            continue
        files.append(path)
        for name in _names(text):
            file = _beside(document, name)
            if file is None:
                absent.append(name)
            elif file.resolve() not in inputs:
                inputs[file.resolve()] = name
                waiting.append(file)
    return files, list(dict.fromkeys(absent))


def _names(text: str) -> Iterator[str]:
    shown, _, _ = _COMMENT.sub(r"\1", text).partition(_END)
    for found in _INPUT.finditer(shown):
        yield (found[1] or found[2] or found[3]).strip().strip('"')


def _beside(document: Path, name: str) -> Path | None:
    try:
        return next((it for it in (document.parent / f"{name}.tex", document.parent / name) if it.is_file()), None)
    except (OSError, ValueError):  # too long, a zero byte
        return None

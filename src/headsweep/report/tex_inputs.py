r"""The files that a LaTeX document consists of: itself, and what `\input` and its like add, at any depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from headsweep.errors import UserError

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")  # a percent sign after \\, which breaks a line, begins one as well
_END = r"\end{document}"
_INPUT = re.compile(
    r"\\(?:input|include|subfile|subfileinclude)\s*\{([^{}]+)\}"  # the latter two are those of the package subfiles
    r'|\\input\s+(?:"([^"\n]+)"|([^\s{}\\"]+))'
    r"|\\(?:sub)?(?:import|inputfrom|includefrom)\*?\s*\{([^{}]*)\}\s*\{([^{}]+)\}"  # of the package import
)


def files_of(document: Path, read: Callable[[Path], str]) -> tuple[list[Path], list[str]]:
    """Return the files of a document, the document first, and the names that are no files of text.

    A name is looked up in the folder of the document, then in that of the file that has it. LaTeX looks for names in
    its own folders, too, e.g. for `glyphtounicode`.

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
            file = _beside(document, name) or _beside(path, name)
            if file is None:
                absent.append(name)
            elif file.resolve() not in inputs:
                inputs[file.resolve()] = name
                waiting.append(file)
    return files, list(dict.fromkeys(absent))


def _names(text: str) -> Iterator[str]:
    shown, _, _ = _COMMENT.sub(r"\1", text).partition(_END)
    for found in _INPUT.finditer(shown):
        folder, name = found[4] or "", found[1] or found[2] or found[3] or found[5]
        yield str(Path(folder.strip(), name.strip().strip('"')))


def _beside(file: Path, name: str) -> Path | None:
    try:
        return next((it for it in (file.parent / f"{name}.tex", file.parent / name) if it.is_file()), None)
    except (OSError, ValueError):  # too long, a zero byte
        return None

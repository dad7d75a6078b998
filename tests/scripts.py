"""Shell scripts in place of programs."""

from __future__ import annotations

from pathlib import Path


class Scripts:
    """The scripts in a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def write(self, name: str, *lines: str) -> None:
        """Write a script of that name, in place of an earlier one."""
        (self.place / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
        (self.place / name).chmod(0o755)

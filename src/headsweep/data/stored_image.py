"""An image that is not a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


class StoredImage(ABC):
    """An image in an archive or array; its text names it in errors."""

    @abstractmethod
    def open(self) -> Image:
        """Return the image as Pillow opens it, which may be decoded later."""

    @abstractmethod
    def __str__(self) -> str: ...

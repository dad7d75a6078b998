"""Decode an image file to 8-bit grey or RGB pixels, or raise an error that names the file.

As in torchvision's ImageFolder, transparency is dropped, of several frames the first is taken, and the rotation that
EXIF may ask for is ignored.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
from PIL import Image, UnidentifiedImageError

from headsweep.data.stored_image import StoredImage
from headsweep.errors import DataError

_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
_BETWEEN = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}  # the only modes to which Pillow converts these correctly
_SIXTEEN_BITS = {"I;16", "I;16B", "I;16L", "I;16N", "I"}  # I: a PGM, and in older versions of Pillow a PNG
_MOST_ELONGATED = 1000  # longer side over shorter side; resizing the shorter one up would fill the memory

# Tags of TIFF and the values of them that are handled.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_BLACK_IS_ZERO, _UNSIGNED = 1, 1


def decode(path: str | PathLike[str] | StoredImage, channels: int) -> Image.Image:
    """Return the image at `path`, or a stored one, as grey (1 channel) or RGB (3).

    Raises:
        DataError: the file cannot be read or decoded, or does not say which value is white.
    """
    try:
        with path.open() if isinstance(path, StoredImage) else Image.open(path) as image:
            image.load()
            converted = _convert(image, "L" if channels == 1 else "RGB")
    except MemoryError:  # not caused by the file
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise DataError(f"{path} cannot be {_reason(error)}; restore or remove the file") from error
    if converted is None:
        raise DataError(
            f"{path}: expected unsigned pixels of 8 bits, or unsigned grey ones of 16 bits with 0 as black (PNG, PGM, "
            f"TIFF), found {image.format} of mode {image.mode}; convert the file to one of these"
        )
    shorter, longer = sorted(converted.size)
    if longer > shorter * _MOST_ELONGATED:
        raise DataError(
            f"{path}: expected sides of at least 1 pixel, one at most {_MOST_ELONGATED} times the other, "
            f"found {image.width} x {image.height}; remove the file"
        )
    return converted


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        return "decoded: unknown image format"
    return f"decoded: {str(error) or type(error).__name__}"


def _convert(image: Image.Image, mode: str) -> Image.Image | None:
    """Convert the image to `mode`, L or RGB; None if the value of white is unknown."""
    if image.format == "TIFF" and not _is_unsigned(image):
        return None
    if image.mode in _SIXTEEN_BITS:
        white = _white(image)
        return None if white is None else _to_grey(image, white).convert(mode)
    if image.mode not in _EIGHT_BITS:
        return None
    image.info.pop("transparency", None)  # Pillow would search for a colour for it, and warn
    if image.mode in _BETWEEN:
        image = image.convert(_BETWEEN[image.mode])
    return image if image.mode == mode else image.convert(mode)  # convert copies an image of the same mode


def _is_unsigned(image: Image.Image) -> bool:
    formats = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))  # type: ignore[attr-defined] # of TIFF files
    return all(sample == _UNSIGNED for sample in np.atleast_1d(formats))


def _white(image: Image.Image) -> int | None:
    """Return the value of white in a grey image of more than 8 bits; None if the file does not define it."""
    if image.format in ("PNG", "PPM"):  # of a PGM, Pillow scales the range to 16 bits
        return 2**16 - 1
    if image.format == "TIFF" and image.mode != "I":  # I: 32 bits
        tags = image.tag_v2  # type: ignore[attr-defined]
        return 2 ** tags[_BITS][0] - 1 if tags.get(_PHOTOMETRIC) == _BLACK_IS_ZERO else None
    return None


def _to_grey(image: Image.Image, white: int) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))

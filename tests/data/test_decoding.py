"""Every kind of file that Pillow opens gives right pixels or an error that names the file, in both kinds of sources."""

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from headsweep.config import DebugConfig, LoaderConfig
from headsweep.data.datasets import open_splits
from headsweep.data.decoding import decode
from headsweep.data.loader import EvalLoader
from headsweep.data.locate import resolve
from headsweep.errors import DataError

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREY = np.rint(RAMP * 255)
COLOUR = np.stack([GREY, 255 - GREY, GREY.T], -1).astype(np.uint8)
RGB = Image.fromarray(COLOUR)
LUMA = np.asarray(RGB.convert("L"))
WIDE = np.rint(RAMP * 65535).astype(np.uint16)


def pixels(path, channels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *message, **_: pytest.fail(str(message)))
        return np.asarray(decode(path, channels)).astype(int)


def refused(path):
    found = []
    for channels in (1, 3):
        with pytest.raises(DataError) as caught:
            decode(path, channels)
        found.append(str(caught.value))
    assert found[0] == found[1] and found[0].startswith(str(path)) and found[0].isprintable()
    return found[0]


def write_tiff(path, width, data, bits=(8,), photometric=1, **more):
    """Write lines of `width` pixels with tags that Pillow does not write."""
    height = len(data) * 8 // (width * sum(bits))
    tags = {256: (width,), 257: (height,), 258: bits, 259: (1,), 262: (photometric,), 277: (len(bits),)}
    tags |= {int(tag[1:]): (value,) for tag, value in more.items()}
    tags |= {273: (8 + 2 + 12 * (len(tags) + 2) + 4,), 279: (len(data),)}
    fields = [
        struct.pack("<HHI4s", tag, 3, len(of), struct.pack(f"<{len(of)}H", *of)) for tag, of in sorted(tags.items())
    ]
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(fields)) + b"".join(fields) + bytes(4) + data)


@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.pgm", "big-endian.tif"])
def test_grey_of_16_bits_keeps_its_range(name, tmp_path):
    image = Image.fromarray(WIDE)
    if name.startswith("big"):
        image = Image.frombytes("I;16B", (8, 8), WIDE.astype(">u2").tobytes())
    image.save(tmp_path / name)
    assert np.array_equal(pixels(tmp_path / name, 1), GREY)
    assert np.array_equal(pixels(tmp_path / name, 3), np.stack([GREY] * 3, -1))


def test_grey_of_12_bits_keeps_its_range(tmp_path):
    write_tiff(tmp_path / "0.tif", 2, b"\x00\x0f\xff" * 8, bits=(12,))
    assert pixels(tmp_path / "0.tif", 1).tolist() == [[0, 255]] * 8
    (tmp_path / "0.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([2048, 4095], ">u2").tobytes())
    assert pixels(tmp_path / "0.pgm", 1).tolist() == [[128, 255]]


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), (RAMP * 2**31).clip(0, 2**31 - 1).astype(np.int32)])
def test_numbers_without_a_known_range_are_refused(values, tmp_path):
    Image.fromarray(values).save(tmp_path / "0.tif")
    assert "expected unsigned pixels of 8 bits, or" in refused(tmp_path / "0.tif")


def test_other_meanings_of_numbers_are_refused(tmp_path):
    write_tiff(tmp_path / "signed.tif", 8, bytes(64), t339=2)
    write_tiff(tmp_path / "signed16.tif", 8, bytes(128), bits=(16,), t339=2)
    write_tiff(tmp_path / "white_is_zero.tif", 8, bytes(128), bits=(16,), photometric=0)
    (tmp_path / "float.ppm").write_bytes(b"Pf 2 2 -1.0\n" + np.ones(4, "<f4").tobytes())
    for name in ("signed.tif", "signed16.tif", "white_is_zero.tif", "float.ppm"):
        assert "convert the file" in refused(tmp_path / name)


LOSSLESS = [("L", "png"), ("LA", "png"), ("LA", "tif"), ("RGB", "png"), ("RGBA", "png"), ("RGBA", "webp")]
LOSSLESS += [("RGBA", "tif"), ("RGB", "ppm"), ("RGB", "bmp"), ("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif")]


@pytest.mark.parametrize(("mode", "ending"), LOSSLESS)
def test_modes_of_8_bits(mode, ending, tmp_path):
    path = tmp_path / f"0.{ending}"
    image = RGB.convert("L").convert("LA") if mode == "LA" else RGB.convert(mode)
    if mode.endswith("A"):
        image.putalpha(128)  # dropped, as torchvision does
    image.save(path, lossless=True)
    with Image.open(path) as saved:
        assert saved.mode == mode
    tolerance = {"YCbCr": 3, "LAB": 30}.get(mode, 0)  # 8 bits of LAB are coarse where blue is saturated
    expected = np.stack([LUMA] * 3, -1) if mode in ("L", "LA") else COLOUR
    assert abs(pixels(path, 3) - expected).max() <= tolerance
    assert abs(pixels(path, 1) - LUMA).max() <= tolerance


def test_transparency_that_was_multiplied_in(tmp_path):
    """Mode La: Pillow converts it to LA alone."""
    half = np.stack([LUMA // 2, np.full_like(LUMA, 128)], -1)
    write_tiff(tmp_path / "0.tif", 8, half.tobytes(), bits=(8, 8), t338=1)
    with Image.open(tmp_path / "0.tif") as image:
        assert image.mode == "La"
    assert abs(pixels(tmp_path / "0.tif", 1) - LUMA).max() <= 2
    assert abs(pixels(tmp_path / "0.tif", 3) - LUMA[..., None]).max() <= 2


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(5))])
@pytest.mark.parametrize("mode", ["P", "PA", "1", "L", "RGB"])
def test_palettes_two_levels_and_transparent_colours(mode, transparency, tmp_path):
    image = RGB.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    path = tmp_path / ("0.tif" if mode == "PA" else "0.png")
    if transparency is not None and mode != "PA":
        single = (1, 254, 0) if mode == "RGB" else 0
        image.save(path, transparency=transparency if mode == "P" else single)
    else:
        image.save(path)
    assert np.array_equal(pixels(path, 3), expected)
    assert np.array_equal(pixels(path, 1), np.asarray(image.convert("RGB").convert("L")))


@pytest.mark.parametrize("ending", ["webp", "png", "tif", "mpo", "gif"])
def test_of_several_frames_the_first(ending, tmp_path):
    path = tmp_path / "0.jpg"  # what a file is called does not matter
    options = {"lossless": True} if ending == "webp" else {"quality": 100, "subsampling": 0} if ending == "mpo" else {}
    kind = {"tif": "TIFF"}.get(ending, ending.upper())
    RGB.save(path, kind, save_all=True, append_images=[Image.new("RGB", (8, 8))], **options)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert abs(pixels(path, 3) - COLOUR).max() <= (3 if ending == "mpo" else 0)


def test_damaged_files_are_refused(tmp_path, photos):
    path = tmp_path / "0"
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF"):
        Image.fromarray(photos[0][:64, :64]).save(path, kind)
        content = path.read_bytes()
        for length in (0, 5, 40, len(content) // 2, len(content) - 100):
            path.write_bytes(content[:length])
            assert "cannot be decoded" in refused(path)


def test_files_that_are_no_image(tmp_path):
    (tmp_path / "0.png").write_text("no image")
    assert "0.png cannot be decoded: unknown image format;" in refused(tmp_path / "0.png")
    assert "1.png cannot be read: No such file or directory;" in refused(tmp_path / "1.png")
    (tmp_path / "0.ppm").write_bytes(b"P6 0 0 255\n")
    assert "0.ppm cannot be decoded" in refused(tmp_path / "0.ppm")


def test_decompression_bombs_and_threads_are_refused(tmp_path, monkeypatch):
    Image.new("L", (1, 1001)).save(tmp_path / "thread.png")
    assert "one at most 1000 times the other, found 1 x 1001" in refused(tmp_path / "thread.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    Image.new("L", (30, 30)).save(tmp_path / "bomb.png")
    assert "Image size (900 pixels) exceeds limit of 800 pixels" in refused(tmp_path / "bomb.png")


def test_a_full_memory_is_not_the_files_fault(tmp_path, monkeypatch):
    def full(image):
        raise MemoryError

    RGB.save(tmp_path / "0.bmp")
    monkeypatch.setattr(Image.Image, "load", full)
    with pytest.raises(MemoryError):
        decode(tmp_path / "0.bmp", 3)


def folder_of(root, write):
    """Two classes of two images each in both splits."""
    for number, name in enumerate(f"{split}/{label}/{i}" for split in ("train", "val") for label in "ab" for i in "01"):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, number)
    return root


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resident", [0.0, 1.0])
def test_a_data_set_of_16_bits(channels, resident, make_dataset, tmp_path):
    wide = [np.roll(WIDE, 5 * number) for number in range(8)]
    root = folder_of(tmp_path, lambda path, number: Image.fromarray(wide[number]).save(path))
    numbers = {"mean": [0.0] * channels, "std": [1.0] * channels, "image_size": 8, "channels": channels}
    dataset = resolve(make_dataset("imagefolder", root=str(root), validation=0.0, **numbers))
    splits = open_splits(dataset, 0, LoaderConfig(0, resident, None), DebugConfig(None, None, False))
    (batch,) = EvalLoader(splits.train, dataset, 4, torch.device("cpu"), 0)
    expected = torch.from_numpy(np.stack([wide[number] for number in (0, 2, 1, 3)])).float()  # each class in turn
    for channel in range(channels):
        torch.testing.assert_close(batch.images[:, channel] * 257 * 255, expected, atol=129, rtol=0)


@pytest.mark.parametrize("resident", [0.0, 1.0])
def test_a_bad_file_of_any_name_is_one_line(resident, make_dataset, tmp_path):
    root = folder_of(tmp_path, lambda path, number: RGB.save(path))
    Image.fromarray(RAMP.astype(np.float32)).save(root / "train/b" / os.fsdecode(b"\xff x\ny.png"), "TIFF")
    dataset = resolve(make_dataset("imagefolder", root=str(root), validation=0.0))
    with pytest.raises(DataError) as caught:
        splits = open_splits(dataset, 0, LoaderConfig(0, resident, None), DebugConfig(None, None, False))
        list(EvalLoader(splits.train, dataset, 4, torch.device("cpu"), 0))
    expected = rf"{root}/train/b/\xff x\ny.png: expected unsigned pixels of 8 bits"
    assert str(caught.value).startswith(expected) and str(caught.value).isprintable()

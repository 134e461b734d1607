"""One image file to a square array: every mode, every kind of damage, and the crop of ADM."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import encoded, picture
from PIL import Image
from reed_image.data.crop import adm_crop, square
from reed_image.data.image_file import UnusableError, read_rgb


def values(data: bytes) -> np.ndarray:
    return np.asarray(read_rgb(data)).astype(int)


def test_modes_agree_with_the_colours_they_hold() -> None:
    image = picture(0)
    expected = np.asarray(image).astype(int)
    grey = np.asarray(image.convert("L")).astype(int)
    assert np.array_equal(values(encoded(image)), expected)
    palette = image.quantize(64)
    assert np.array_equal(values(encoded(palette)), np.asarray(palette.convert("RGB")))
    assert np.array_equal(values(encoded(image.convert("L"))), np.repeat(grey[..., None], 3, 2))
    assert set(np.unique(values(encoded(image.convert("1"))))) <= {0, 255}
    cmyk = values(encoded(image.convert("CMYK"), "JPEG", quality=98))
    assert abs(cmyk - expected).mean() < 4  # an inverted reading would be off by about a hundred
    assert np.array_equal(values(encoded(image.convert("CMYK"), "TIFF")), expected)


def test_sixteen_bits_become_eight() -> None:
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "PNG")
    found = values(stream.getvalue())
    assert np.array_equal(found[..., 0], np.rint(deep / 257))
    assert (found[..., 0] == found[..., 2]).all()


def deep_colour(pixels: np.ndarray) -> bytes:
    """A PNG of 16-bit colour, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour() -> None:
    pixels = np.asarray(picture(3)).astype(np.uint16) * 257
    assert abs(values(deep_colour(pixels)) - np.asarray(picture(3)).astype(int)).max() <= 1


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert (values(encoded(clear)) == 255).all()
    assert (values(encoded(half)) == 127).all()
    assert (values(encoded(Image.new("LA", (16, 16), (40, 0)))) == 255).all()
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert (values(encoded(palette, transparency=1)) == 255).all()
    assert (values(encoded(palette, transparency=0)) == [200, 100, 50]).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_applied(turn: int) -> None:
    upright = picture(5, 24, 16)
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo[turn]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = turn
    assert np.array_equal(values(encoded(stored, exif=exif)), np.asarray(upright))


def test_the_first_frame_of_an_animation() -> None:
    frames = [picture(seed).quantize(32) for seed in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert abs(values(stream.getvalue()) - np.asarray(frames[0].convert("RGB")).astype(int)).mean() < 1


def reason(data: bytes, smallest: int = 1) -> str:
    with pytest.raises(UnusableError) as caught:
        read_rgb(data, smallest)
    return caught.value.reason


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(picture(0), "JPEG")
    assert reason(b"") == reason(b"<html>not found</html>") == "not an image"
    assert reason(whole[: len(whole) // 2]) == "damaged"
    assert reason(encoded(picture(0))[:-40]) == "damaged"
    assert reason(whole, smallest=33) == "too small"
    assert read_rgb(whole, smallest=32).size == (40, 32)
    assert reason(encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")) == "unsupported depth"
    assert reason(encoded(Image.fromarray(np.full((8, 8), 70000, np.int32)), "TIFF")) == "unsupported depth"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert reason(whole) == "too large"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
def test_damage_never_escapes(seed: int, flips: int, kind: str) -> None:
    """Random bytes changed anywhere: a picture, or one of the reasons."""
    data = bytearray(encoded(picture(0), kind))
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), flips):
        data[place] = rng.integers(256)
    with contextlib.suppress(UnusableError):
        assert read_rgb(bytes(data)).mode == "RGB"


def plain_adm(image: Image.Image, size: int) -> np.ndarray:
    """The crop on arrays: halving as means of 2 x 2 blocks, cutting by index."""
    while min(image.size) >= 2 * size:
        array = np.asarray(image).astype(int)
        array = array[: array.shape[0] // 2 * 2, : array.shape[1] // 2 * 2]
        blocks = array[::2, ::2] + array[1::2, ::2] + array[::2, 1::2] + array[1::2, 1::2]
        image = Image.fromarray(((blocks + 2) // 4).astype(np.uint8))
    short = min(image.size)
    image = image.resize([round(side * size / short) for side in image.size], Image.Resampling.BICUBIC)
    array = np.asarray(image)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("width", "height", "size"), [(128, 64, 16), (200, 96, 24), (34, 58, 16), (16, 16, 16), (9, 20, 16)]
)
def test_adm_crop(width: int, height: int, size: int) -> None:
    """Even sides, where a box filter is the mean of blocks: equal but for the rounding of each halving."""
    image = picture(1, width, height)
    found = np.asarray(adm_crop(image, size)).astype(int)
    assert found.shape == (size, size, 3)
    assert abs(found - plain_adm(image, size)).max() <= (2 if min(width, height) >= 2 * size else 0)


def test_crop_of_a_square_of_the_size_changes_nothing() -> None:
    image = picture(2, 32, 32)
    for crop in ("adm", "resize"):
        assert np.array_equal(square(image, 32, crop), np.asarray(image))


def test_crop_keeps_the_centre_and_resize_keeps_all() -> None:
    image = Image.new("RGB", (64, 32))
    image.paste((255, 0, 0), (0, 0, 8, 32))
    assert square(image, 16, "adm")[..., 0].max() == 0
    assert square(image, 16, "resize")[:, 0, 0].min() > 200

"""Pictures of every depth, orientation and transparency become the bytes that a viewer would show."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.fewshot.images.pixels import square_pixels

RAMP = np.linspace(0, 1, 64)[None].repeat(64, 0)
SHOWN = [0, 64, 129, 194, 255]  # of five columns of the ramp, from black to white
ORIENTATION = 274  # the number of EXIF's tag


def grey(picture: Image.Image, file: str = "PNG", size: int | None = None, *, saved: Any = None, **options: Any):
    """The grey values of a picture that went through a file."""
    buffer = io.BytesIO()
    picture.save(buffer, file, **(saved or {}))
    with Image.open(buffer) as read:
        return square_pixels(read, channels=1, size=size or read.width, resize="nearest", **options)[0].astype(int)


@pytest.mark.parametrize(
    ("values", "file"),
    [
        ((RAMP * 255).astype(np.uint8), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 4095).astype(np.uint16), "PNG"),
        ((RAMP * 1023).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(">u2"), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 1.05 - 0.02).astype(np.float32), "TIFF"),  # as a sharpening filter leaves it
    ],
)
def test_a_ramp_from_black_to_white_stays_one_at_every_depth(values, file):
    shown = grey(Image.fromarray(values), file)[0, [0, 16, 32, 48, 63]]
    assert np.abs(shown - SHOWN).max() <= (6 if values.dtype == np.float32 and values.min() < 0 else 1)
    assert shown[0] == 0
    assert shown[-1] == 255


def test_a_mask_of_zeros_and_ones_in_sixteen_bits_is_black_and_white():
    assert grey(Image.fromarray(np.eye(4, dtype=np.uint16))).tolist() == (np.eye(4, dtype=int) * 255).tolist()


def test_white_can_be_said():
    picture = Image.fromarray(np.full((4, 4), 1000, np.uint16))
    assert grey(picture)[0, 0] == round(255 * 1000 / 1023)
    assert grey(picture, white=2000)[0, 0] == 128


@pytest.mark.parametrize("values", [np.full((4, 4), -50, np.int32), np.full((4, 4), np.nan, np.float32)])
def test_values_without_a_meaning_are_refused(values):
    with pytest.raises(ValueError, match="it has values"):
        grey(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize("file", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_are_turned_upright(file, dtype):
    if file == "JPEG" and dtype == np.uint16:
        pytest.skip("a JPEG has eight bits")
    values = np.zeros((16, 16), dtype)
    values[:8] = np.iinfo(dtype).max  # the upper half is white
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by a quarter, clockwise
    shown = grey(Image.fromarray(values), file, saved={"exif": exif})
    assert (shown[:, 8:] > 200).all()
    assert (shown[:, :8] < 50).all()


def drawing(ink: int) -> Image.Image:
    """A diagonal of ink on nothing."""
    alpha = np.eye(4, dtype=np.uint8) * 255
    return Image.merge("LA", (Image.new("L", (4, 4), ink), Image.fromarray(alpha)))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_parts_show_the_background(mode):
    on_white = grey(drawing(0).convert(mode))
    assert on_white.tolist() == (255 - np.eye(4, dtype=int) * 255).tolist()
    on_black = grey(drawing(255).convert(mode), background="black")
    assert on_black.tolist() == (np.eye(4, dtype=int) * 255).tolist()


@pytest.mark.parametrize("picture", [Image.new("P", (4, 4), 1), Image.new("I;16", (4, 4), 300)])
def test_one_value_can_be_the_transparent_one(picture):
    picture.putpixel((0, 0), 0)
    shown = grey(picture, saved={"transparency": 0})
    assert shown[0, 0] == 255  # the background
    assert grey(picture)[0, 0] == 0


def test_ink_in_the_colour_of_the_background_is_refused():
    with pytest.raises(ValueError, match="it is all white: transparent parts become white"):
        grey(drawing(255))
    assert (grey(Image.new("LA", (4, 4), (0, 0))) == 255).all()  # an empty page is one

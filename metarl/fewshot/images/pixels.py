"""Conversion of images of any depth, orientation and transparency to the bytes of square ones."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]  # [C, H, W]
Resize = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]
Fit = Literal["stretch", "crop"]
Background = Literal["white", "black"]

_WHITE_LEVELS = (1, 255, 1023, 4095, 16383, 65535, 2**31 - 1)  # the largest values of masks, 8, 10, 12, 14, ... bits
_OVERSHOOT = 0.1  # tolerated fraction beyond the range of black to white, as left by sharpening filters


def square_pixels(
    picture: Image.Image,
    *,
    channels: int,
    size: int,
    resize: Resize,
    fit: Fit = "stretch",
    background: Background = "white",
    white: float | None = None,
) -> Pixels:
    """A grey (one channel) or RGB (three) image [channels, size, size], stretched or centre-cropped to a square.

    The image is rotated by its EXIF orientation, and transparent parts show the background. white: the value of white
    in images of more than 8 bits; None: the largest value of the smallest depth that holds the image. Filters work on
    grey values even if the file has one bit per pixel.

    Raises:
        ValueError: when values of more than 8 bits are not finite or far below zero, or all opaque parts have the
        colour
            of the background.
    """
    ImageOps.exif_transpose(picture, in_place=True)
    if is_deep(picture):
        picture = _eight_bits(picture, white_level(picture) if white is None else white)
    if picture.has_transparency_data:
        picture = _on_background(picture.convert("RGBA"), background)
    picture = picture.convert("L" if channels == 1 else "RGB")
    resampling = Image.Resampling[resize.upper()]
    if fit == "crop":
        picture = ImageOps.fit(picture, (size, size), resampling)
    elif picture.size != (size, size):
        picture = picture.resize((size, size), resampling)
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def is_deep(picture: Image.Image) -> bool:
    """Whether pixels are grey values of 16 or 32 bits, or floating-point numbers."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def white_level(picture: Image.Image) -> float:
    """The value of white in a deep image: the largest of the smallest depth that holds its values.

    Raises:
        ValueError: when values are not finite, or so far below zero that zero is not black.
    """
    values = np.asarray(picture)
    lowest, largest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, largest]).all():
        raise ValueError("it has values that are not finite")
    slack = 1 + _OVERSHOOT if picture.mode == "F" else 1
    white = next((level for level in _WHITE_LEVELS if largest <= level * slack), None)
    if white is None or lowest < -_OVERSHOOT * white:
        raise ValueError(f"it has values from {lowest:g} to {largest:g}; must be from 0 (black) up")
    return white


def _eight_bits(picture: Image.Image, white: float) -> Image.Image:
    """A deep image with 0 as black and `white` as white, keeping a transparent value."""
    values = np.asarray(picture).astype(np.float64)
    grey = Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))
    transparent: Any = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _on_background(picture: Image.Image, background: Background) -> Image.Image:
    """An RGBA image on a background of one colour, as RGB."""
    laid = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert("RGB")
    colours, alpha = np.asarray(laid), np.asarray(picture.getchannel("A"))
    if (colours == colours[0, 0]).all() and alpha.min() < alpha.max():
        raise ValueError(f"it is all {background}: transparent parts become {background}, and what is opaque is so too")
    return laid

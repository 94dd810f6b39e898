"""From a picture to the bytes of a square one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]  # [C, H, W]
Resize = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]
Fit = Literal["stretch", "crop"]


def square_pixels(picture: Image.Image, *, channels: int, size: int, resize: Resize, fit: Fit = "stretch") -> Pixels:
    """Grey (one channel) or RGB (three), [channels, size, size]; what is not square is stretched, or cut to its middle.

    Filters work on grey values even where the file has one bit a pixel.
    """
    picture = picture.convert("L" if channels == 1 else "RGB")
    resampling = Image.Resampling[resize.upper()]
    if fit == "crop":
        picture = ImageOps.fit(picture, (size, size), resampling)
    elif picture.size != (size, size):
        picture = picture.resize((size, size), resampling)
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

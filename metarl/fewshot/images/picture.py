"""An episode as an image: its support on the left, its queries on the right, one row per class."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metarl.fewshot.episode import FewShotEpisode
from metarl.records import Examples

_GAP, _DIVIDE = 2, 10  # pixels between images, and between support and queries
_SMALLEST = 56  # smallest size of an image, in pixels
_GROUND = (140, 160, 190)  # neither ink nor paper


def episode_picture(episode: FewShotEpisode, task: int = 0) -> Image.Image:
    """An image of one task of an episode.

    Values are scaled to the task's range, because images may be normalised.
    """
    support, query = episode.support[task], episode.query[task]
    low, high = (float(limit) for limit in torch.cat([_present(support), _present(query)]).aminmax())
    grids = [_grid(data, low, max(high - low, 1e-6)) for data in (support, query)]
    height = max(grid.shape[0] for grid in grids)
    width = sum(grid.shape[1] for grid in grids) + _DIVIDE
    picture = Image.new("RGB", (width, height), _GROUND)
    picture.paste(Image.fromarray(grids[0]), (0, 0))
    picture.paste(Image.fromarray(grids[1]), (grids[0].shape[1] + _DIVIDE, 0))
    return picture


def _present(data: Examples) -> Tensor:
    return data.x if data.valid is None else data.x[data.valid]  # [K, C, H, W]


def _grid(data: Examples, low: float, spread: float) -> np.ndarray:
    """The images of one task, one row per class: [height, width, 3] uint8."""
    x, y = _present(data), data.y if data.valid is None else data.y[data.valid]
    pixels = ((x - low) / spread * 255).round().byte().cpu()
    enlarged = max(1, -(-_SMALLEST // x.shape[-1]))
    side = x.shape[-1] * enlarged + _GAP
    counts = y.bincount()
    grid = np.full((len(counts) * side, int(counts.max()) * side, 3), _GROUND, dtype=np.uint8)
    for way in range(len(counts)):
        for column, image in enumerate(pixels[(y == way).cpu()]):
            shown = image.expand(3, -1, -1).permute(1, 2, 0).numpy().repeat(enlarged, 0).repeat(enlarged, 1)
            top, left = way * side, column * side
            grid[top : top + side - _GAP, left : left + side - _GAP] = shown
    return grid

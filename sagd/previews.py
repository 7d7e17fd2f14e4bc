"""Grids of images as PNG files: what data and samples look like."""

from pathlib import Path

import numpy as np

from sagd.errors import InputError, check_uint8, check_whole, needs
from sagd.runtime.files import writing


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Tile images (N, C, H, W), uint8, row by row into one of (rows * H, columns * W, C); missing ones are black."""
    check_uint8("images", images)
    check_whole("columns", columns, 1)
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    filled = np.zeros((rows * columns, channels, height, width), dtype=np.uint8)
    filled[:n] = images
    tiled = filled.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return tiled.reshape(rows * height, columns * width, channels)


def save_grid(path: Path, images: np.ndarray, columns: int, pixels: int = 960) -> None:
    """Write a PNG of tiled images, enlarged by a whole factor, without smoothing, towards ``pixels`` of width."""
    check_whole("pixels", pixels, 1)
    check_uint8("images", images)
    if not len(images) or images.shape[1] not in (1, 3):
        raise InputError(f"images have the shape {tuple(images.shape)}; a picture is of one or more, C 1 or 3")
    with needs("data"):
        from PIL import Image

    tiled = grid(images, columns)
    picture = Image.fromarray(tiled[..., 0] if tiled.shape[-1] == 1 else tiled)
    factor = max(1, round(pixels / picture.width))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    with writing(path) as beside:
        picture.save(beside, format="PNG", optimize=True)

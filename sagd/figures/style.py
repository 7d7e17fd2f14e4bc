"""Colours, themed axes, and pictures one below the other. matplotlib is loaded where something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagd.errors import needs
from sagd.runtime.files import writing

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong's palette: distinct to colour-blind readers, and in grey print.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def panels(
    rows: int, columns: int, width: float, height: float, *, font_scale: float = 0.9, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of width x height inches and its axes, (rows, columns); ``options`` are those of `pyplot.subplots`."""
    with needs("figures"):
        import matplotlib.pyplot as plt
        import seaborn as sns

    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=font_scale)
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options)


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of width x height inches with one panel, and that panel's axes."""
    figure, axes = panels(1, 1, width, height)
    return figure, axes[0, 0]


def save_stack(path: Path, pictures: list[Path], height: int, gap: int = 12) -> None:
    """Write one PNG of pictures of equal width, the top ``height`` pixels of each, one below the other."""
    with needs("figures"):
        from PIL import Image

    opened = [Image.open(p).convert("RGB") for p in pictures]
    opened = [p.crop((0, 0, p.width, min(p.height, height))) for p in opened]
    canvas = Image.new("RGB", (opened[0].width, sum(p.height + gap for p in opened) - gap), "white")
    top = 0
    for picture in opened:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    with writing(path) as beside:
        canvas.save(beside, format="PNG", optimize=True)

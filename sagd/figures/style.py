"""Colours, themed axes, and pictures one below the other. matplotlib is loaded where something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagd.errors import needs

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong's palette: distinct to colour-blind readers, and in grey print.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"


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

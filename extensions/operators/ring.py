"""An operator of one's own: noise in a soft ring of frequencies."""

import torch

from sagd.noise.grid import radius


def ring(size, middle=0.25, width=0.1):
    """w(f) = exp(-(r - middle)^2 / (2 width^2)) + 0.01, r in cycles per pixel; a weight of the grid's size."""
    return torch.exp(-((radius(size) - middle) ** 2) / (2 * width**2)) + 0.01

"""A training step's batch: all its random numbers depend on (seed, step) only."""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from sagd.formulations.base import Formulation
from sagd.noise.base import Noise
from sagd.noise.corruption import Corruption
from sagd.noise.randomness import generator
from sagd.spaces.latents import Latents
from sagd.spaces.pixels import Pixels
from sagd.training.recipe import Recipe


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Which images step ``step`` sees: consecutive slices of a permutation that is drawn anew each epoch."""
    epoch, place = divmod(step, n // batch_size)
    return _order(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]


@functools.lru_cache(maxsize=16)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch), device="cpu")


class Batch(NamedTuple):
    """What a step sees: x0 (B, C, H, W), t (B,), eps like x0, and labels (B,) or None."""

    x0: Tensor
    t: Tensor
    eps: Tensor
    labels: Tensor | None

    def part(self, rows: slice) -> "Batch":
        """Some of its images."""
        return Batch(self.x0[rows], self.t[rows], self.eps[rows], None if self.labels is None else self.labels[rows])


def draw_batch(
    source: Pixels | Latents,
    formulation: Formulation,
    noise: Noise,
    corruption: Corruption | None,
    recipe: Recipe,
    seed: int,
    step: int,
    *,
    classes: int = 0,
    rows: slice | None = None,
    stored: Tensor | None = None,
) -> Batch:
    """Draw a step's batch deterministically from (seed, step); ``rows`` selects a slice of it.

    Parameters
    ----------
    corruption
        Applied to images in [-1, 1], with fresh noise in every epoch (section 3.3).
    classes
        Number of labels of the network.
    stored
        What `read` gives for this step, if it has been read.
    """
    n, device = recipe.batch_size, source.device
    draws = generator(seed, "train", step, device)
    x0 = source.to_x0(read(source, recipe, seed, step, rows) if stored is None else stored)
    t = formulation.draw_times(n, generator=draws, device=device)
    eps = noise.sample((n, *source.shape), generator=draws, t=t, rows=rows)
    if corruption is not None:
        x0 = corruption(x0, draws, rows, n)
    labels = None
    if classes:
        assert source.labels is not None  # or `train` has refused
        hidden = torch.rand(n, generator=generator(seed, "labels", step), dtype=torch.float32, device="cpu")
        hidden = hidden < recipe.label_dropout
        labels = source.labels[batch_indices(len(source), n, seed, step)].masked_fill(hidden, classes)
        labels = (labels if rows is None else labels[rows]).to(device, non_blocking=True)
    x0 = torch.cat([source.encode(some) for some in x0.split(recipe.micro_batch_size or len(x0))])
    return Batch(x0, t if rows is None else t[rows], eps, labels)


def read(source: Pixels | Latents, recipe: Recipe, seed: int, step: int, rows: slice | None = None) -> Tensor:
    """The images or latents of a step, as they are stored."""
    indices = batch_indices(len(source), recipe.batch_size, seed, step)
    flip = None
    if recipe.flip:
        draws = torch.rand(len(indices), generator=generator(seed, "flip", step), dtype=torch.float32, device="cpu")
        flip = draws < 0.5
    if rows is not None:
        indices, flip = indices[rows], None if flip is None else flip[rows]
    return source.read(indices, flip)


def read_ahead(source: Pixels | Latents, recipe: Recipe, seed: int, started: int, rows: slice | None) -> Iterator:
    """The images or latents of each step; those on disk are read in a thread, one step ahead."""
    if source.in_memory or started == recipe.steps:
        yield from (read(source, recipe, seed, step, rows) for step in range(started, recipe.steps))
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, source, recipe, seed, started, rows)
        for step in range(started + 1, recipe.steps):
            found, waiting = waiting.result(), pool.submit(read, source, recipe, seed, step, rows)
            yield found
        yield waiting.result()

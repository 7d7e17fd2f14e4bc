"""Sampling a trained network, image by image reproducible."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sagd.diffusion import STARTS, Schedule, sample, start_from_marginal, start_from_noise
from sagd.models import predictor
from sagd.parallel import concurrently
from sagd.randomness import generator
from sagd.spectrum import Spectrum, one_of
from sagd.spectrum.varying import Varying


def draw(
    network: nn.Module,
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    data: dict[str, Tensor],
    *,
    n: int,
    steps: int,
    seed: int,
    spacing: str = "leading",
    start: str = "noise",
    sampler: str = "ddim",
    prediction: str = "eps",
    eta: float = 0.0,
    clip: bool = False,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Draw n samples. Sample k has a generator of its own, so it is the same whatever n and the batch size.

    To the bit on one machine at one batch size; at another, convolutions may round differently in the last place.

    Parameters
    ----------
    network
        A diffusers U-Net in evaluation mode.
    data
        ``mean`` and ``power`` of `sagd.moments.statistics`; give the shape, and the start from the marginal.
    start
        ``noise``: x_T = T_w xi, as the paper. ``marginal``: with the data's own share, see `start_from_marginal`.
    sampler, prediction, eta, clip
        Of `sagd.sample`.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    (n, C, H, W), float32, on the CPU, not clipped at the end.
    """
    one_of("start", start, STARTS)
    batch_size = min(batch_size, n)
    device = next(network.parameters()).device
    visited = schedule.timesteps(steps, spacing)
    shape = tuple(data["mean"].shape)
    stochastic = sampler == "ddpm" or eta > 0

    def batch(first: int) -> Tensor:
        # A short last batch is filled up, so that every batch takes the same path through the convolutions.
        sources = [generator(seed, "sample", first + k) for k in range(batch_size)]

        def white() -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in sources]).to(device)

        with torch.inference_mode():
            if start == "noise":
                x = start_from_noise(spectrum, white(), visited[0])
            else:
                x = start_from_marginal(schedule, spectrum, visited[0], data["mean"], data["power"], white())
            x = sample(
                predictor(network), schedule, spectrum, x, visited,
                sampler=sampler, prediction=prediction, eta=eta, clip=clip, white=white if stochastic else None,
            )  # fmt: skip
        kept = x[: n - first].float().cpu()
        report(len(kept))
        return kept

    return torch.cat(list(concurrently(batch, range(0, n, batch_size), device)))


def to_uint8(x: Tensor) -> Tensor:
    """Pixels of [-1, 1] to uint8, rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

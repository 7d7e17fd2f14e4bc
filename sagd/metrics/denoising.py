"""The error of a network's denoising on held-out images, ring by ring at matched signal-to-noise ratios.

It needs no samples and no features, and says directly which frequencies a network has learnt.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sagd.errors import InputError, check_floating, check_number, check_whole, shortened
from sagd.formulations.base import Predict, check_discrete, predicted
from sagd.formulations.diffusion import Diffusion
from sagd.noise.base import Noise, check_noise
from sagd.noise.devices import double
from sagd.noise.grid import ring_means
from sagd.runtime.parallel import blocks, concurrently

DENOISING = "denoising"  # its name among the metrics
SNRS = (0.1, 1.0, 10.0)


def denoising_errors(
    predict: Predict,
    diffusion: Diffusion,
    noise: Noise,
    x0: Tensor,
    *,
    generator: torch.Generator,
    snrs: tuple[float, ...] = SNRS,
    batch_size: int = 128,
    report: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """E|F(x0hat - x0)|^2 in a ring, over the variance of the data there, where the ring has a given SNR.

    At step t a ring has the SNR alpha_bar S / ((1 - alpha_bar) w^2), S the data's variance and w^2 the noise's in it.
    Noises that differ reach an SNR at different times, between two steps: the logarithm of the error is interpolated
    between them, over that of the SNR. Of a Gaussian field whose rings are independent the least
    possible error is 1 / (1 + SNR), whatever the noise; what differs between noises is what their networks have learnt,
    and what they see of a ring in the others.

    Parameters
    ----------
    predict
        Takes x_t (B, C, H, W) and t (B,), and gives what the formulation predicts.
    diffusion, noise
        What the network was trained with; the noise is constant.
    x0
        (N, C, H, W), held-out data as the network knows them.
    generator
        Of the white noise, one field an image, the same in every ring and at every SNR.

    Returns
    -------
    Tensor
        (len(snrs), K), float64: for each SNR and each ring of `sagd.noise.grid.ring_means`. NaN where the noise leaves
        a part of the ring out, where the data are constant, and where the schedule does not reach the SNR.

    Raises
    ------
    InputError
        Varying noise, or fewer than two images; ratios that are not above 0; data or a network's output that are not
        finite.
    """
    check_discrete(diffusion)
    check_noise(noise)
    check_floating("x0", x0)
    if not noise.constant or len(x0) < 2:
        raise InputError(f"denoising takes constant noise and two images or more; there are {len(x0)}")
    if x0.ndim != 4:
        raise InputError(f"x0 has shape {tuple(x0.shape)} and type {x0.dtype}; it must be (N, C, H, W) of real numbers")
    if not isinstance(snrs, Sequence) or not snrs:
        raise InputError(f"snrs are {shortened(repr(snrs), 60)}; they must be a sequence of numbers above 0")
    for snr in snrs:
        check_number("an entry of snrs", snr, above=0)
    check_whole("batch_size", batch_size, 1)
    if not isinstance(generator, torch.Generator):
        raise InputError(f"generator is {shortened(repr(generator), 60)}; it must be a torch.Generator")
    schedule, size = diffusion.schedule, tuple(x0.shape[-2:])
    x0 = noise.project(x0)
    spectrum = noise.at(0)
    variance = _rings(x0 - x0.mean(0)) * len(x0) / (len(x0) - 1)
    if not variance.isfinite().all():
        raise InputError("x0 has numbers that are not finite")
    strength = ring_means(spectrum.weight**2)
    whole = (ring_means(spectrum.support.double().expand(size)) == 1) & (variance > 0)
    alpha_bar = schedule.alpha_bar
    log_snr = (alpha_bar / (1 - alpha_bar)).log()  # falls with the step
    asked = torch.tensor(snrs, dtype=torch.float64, device="cpu").log()
    wanted = asked[:, None] - (variance / strength).log()  # (SNR, ring)
    reached = whole & (wanted <= log_snr[0]) & (wanted >= log_snr[-1])
    after = torch.searchsorted(-log_snr, -wanted).clamp(1, len(log_snr) - 1)  # of the two steps the noisier one
    share = (log_snr[after - 1] - wanted) / (log_snr[after - 1] - log_snr[after])  # of the way to it
    white = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device)
    eps = noise.shape(white.to(x0.device))

    def error(t: int) -> Tensor:
        total = torch.zeros_like(variance)
        with torch.inference_mode():
            for rows in blocks(len(x0), batch_size):
                ts = torch.full((len(x0[rows]),), t, device=x0.device)
                xt = schedule.q_sample(x0[rows], ts, eps[rows])
                output = noise.project(predicted(predict, xt, ts))
                x0hat, _ = schedule.x0_and_eps(xt, t, output, diffusion.prediction)
                total += len(ts) * _rings(x0hat - x0[rows])
                report(len(ts))
        if not total.isfinite().all():  # or it would pass for a ratio that the schedule does not reach
            raise InputError(f"the network's output at step {t} is not finite")
        return total / len(x0) / variance

    visited = sorted({*after[reached].tolist(), *(after - 1)[reached].tolist()})
    logs = torch.full((len(log_snr), len(variance)), torch.nan, dtype=torch.float64, device="cpu")
    for t, errors in zip(visited, concurrently(error, visited, x0.device), strict=True):
        logs[t] = errors.log()
    rings = torch.arange(len(variance), device="cpu")
    found = torch.lerp(logs[after - 1, rings], logs[after, rings], share).exp()
    return torch.where(reached, found, torch.nan)


def _rings(x: Tensor) -> Tensor:
    """|F x|^2, averaged over images, channels and the bins of each ring: (K,), float64, on the CPU."""
    return ring_means(torch.fft.fft2(double(x), norm="ortho").abs().square().flatten(0, 1).mean(0).cpu())

"""How much the scores differ that two networks have learnt, over the trajectory."""

import math

import torch
from torch import Tensor

from sagd.errors import InputError, check_floating, check_whole, whole
from sagd.formulations.base import Predict, check_discrete, predicted
from sagd.formulations.diffusion import Diffusion
from sagd.noise.base import check_spectrum
from sagd.noise.devices import double
from sagd.noise.spectrum import Spectrum
from sagd.runtime.parallel import blocks

Learnt = tuple[Predict, Spectrum]  # a network, and the noise that it was trained with


def score_difference(
    one: Learnt, other: Learnt, diffusion: Diffusion, x0: Tensor, white: Tensor, t: int, batch_size: int = 128
) -> float:
    """E|s - s'|^2 over the mean of E|s|^2 and E|s'|^2: 0 for equal scores, 2 for unrelated ones (eq. 9, eq. 30).

    Scores are compared in the same places, x_t with white noise, which networks of any noise see about alike.

    Parameters
    ----------
    diffusion
        What both were trained with.
    x0, white
        (N, C, H, W), data and N(0, I).
    t
        The step.

    Raises
    ------
    InputError
        No images, or fields of other shapes; scores that are not finite, or all 0.
    """
    check_floating("x0", x0)
    check_floating("white", white)
    check_whole("batch_size", batch_size, 1)
    check_discrete(diffusion)
    for _, spectrum in (one, other):
        check_spectrum(spectrum)
    t = whole("t", t, 0, len(diffusion.schedule) - 1)
    if not len(x0) or x0.shape != white.shape:
        raise InputError(
            f"x0 has shape {tuple(x0.shape)}, white {tuple(white.shape)}; both must be (N, C, H, W), N > 0"
        )
    squares = torch.zeros(3, dtype=torch.float64, device="cpu")
    with torch.inference_mode():
        for rows in blocks(len(x0), batch_size):
            ts = torch.full((len(x0[rows]),), t, device=x0.device)
            xt = diffusion.schedule.q_sample(x0[rows], ts, white[rows])
            a, b = (_score(learnt, diffusion, xt, ts) for learnt in (one, other))
            squares += torch.stack([double(v).square().sum() for v in (a - b, a, b)]).cpu()
    difference = (2 * squares[0] / (squares[1] + squares[2])).item()
    if not math.isfinite(difference):
        raise InputError(f"the scores at step {t} are not finite, or all 0: {squares[1]:g} and {squares[2]:g} squared")
    return difference


def _score(learnt: Learnt, diffusion: Diffusion, xt: Tensor, t: Tensor) -> Tensor:
    predict, spectrum = learnt
    output = spectrum.project(predicted(predict, xt, t))
    _, eps = diffusion.schedule.x0_and_eps(xt, t, output, diffusion.prediction)
    return diffusion.schedule.score_from_eps(spectrum, t, eps)

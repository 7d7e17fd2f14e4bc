"""Where diffusers draws noise: ``randn_tensor``, which schedulers and pipelines import by name."""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.base import Noise

_noise: ContextVar[Noise | None] = ContextVar("noise", default=None)


@contextlib.contextmanager
def drawing(noise: Noise) -> Iterator[None]:
    """Within this, in this thread, what the modules given to `intercept` draw is shaped."""
    before = _noise.set(noise)
    try:
        yield
    finally:
        _noise.reset(before)


def intercept(module: ModuleType) -> None:
    """Let a module of diffusers shape what it draws within `drawing`; elsewhere it draws as before."""
    plain = getattr(module, "randn_tensor", None)
    if plain is None or hasattr(plain, "intercepted"):
        return

    @functools.wraps(plain)
    def randn_tensor(*args: Any, **kwargs: Any) -> Tensor:
        white, noise = plain(*args, **kwargs), _noise.get()
        return white if noise is None else shape(noise, white)

    randn_tensor.intercepted = True  # type: ignore[attr-defined]
    module.randn_tensor = randn_tensor  # type: ignore[attr-defined]


def shape(noise: Noise, white: Tensor) -> Tensor:
    """T_w of white noise (..., *size), in its dtype; white noise itself where the weight is 1 everywhere.

    Raises
    ------
    InputError
        White noise of another size, such as packed latents.
    """
    size, found = noise.size, tuple(white.shape)
    if found[-len(size) :] != size:
        spoken = "x".join(map(str, size))
        packed = "; packed latents (B, tokens, features) have no frequencies" if white.ndim == 3 else ""
        raise InputError(f"the spectrum is of {spoken}, and noise of shape {found} is drawn{packed}")
    return white if noise.white else noise.shape(white)


def check(noise: Noise, config: Any) -> None:
    """Refuse a noise that a scheduler of diffusers, of this configuration, can't take.

    Raises
    ------
    InputError
        No noise of sagd; a spectrum that varies from step to step; a partial support with x0 clipped or thresholded.
    """
    if not hasattr(noise, "constant"):
        raise InputError(f"the noise is a {type(noise).__name__}; it must be a Spectrum, such as sagd.power_law gives")
    if not noise.constant:
        raise InputError("a varying spectrum has another noise at each step, which diffusers' schedulers can't draw")
    if bool(noise.support.all()):
        return
    for key in ("clip_sample", "thresholding"):
        if getattr(config, key, False):
            why = "the noise leaves frequencies out, and clipping x0 puts energy back there"
            raise InputError(f"{key} is True; {why}: set it to False")


def project(noise: Noise, found: Tensor, sample: Tensor) -> Tensor:
    """A prediction on the support of the noise (App. D.5); channels beyond those of the sample are variances."""
    if bool(noise.support.all()):
        return found
    channels = sample.shape[1]
    return torch.cat([noise.project(found[:, :channels]), found[:, channels:]], 1)

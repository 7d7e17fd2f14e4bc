"""Where diffusers draws noise: ``randn_tensor``, which schedulers and pipelines import by name."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType, ModuleType
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.base import Noise, check_noise

# Where pipelines draw the noise of the diffusion. One that has none of these methods draws it in `__call__`.
STARTS = (
    "prepare_latents", "prepare_intermediate_images", "_apply_free_init", "forward_loop", "invert", "generate_mask",
)  # fmt: skip
# These have such methods, and draw more of it in `__call__`.
IN_CALL = (
    "CycleDiffusionPipeline", "LTXI2VLongMultiPromptPipeline", "PIAPipeline", "StableDiffusionParadigmsPipeline",
)  # fmt: skip

_noise: ContextVar[Noise | None] = ContextVar("noise", default=None)


@contextlib.contextmanager
def drawing(noise: Noise) -> Iterator[None]:
    """Within this, in this thread, what the modules given to `intercept` draw is shaped."""
    before = _noise.set(noise)
    try:
        yield
    finally:
        _noise.reset(before)


def intercept(module: ModuleType) -> bool:
    """Let a module of diffusers shape the diffusion's noise within `drawing`; all else it draws as before.

    Returns
    -------
    bool
        False: the module has no ``randn_tensor``.
    """
    plain = getattr(module, "randn_tensor", None)
    if plain is None or hasattr(plain, "intercepted"):
        return plain is not None

    @functools.wraps(plain)
    def randn_tensor(*args: Any, **kwargs: Any) -> Tensor:
        white, noise = plain(*args, **kwargs), _noise.get()
        return shape(noise, white) if noise is not None and _of_diffusion(sys._getframe(1)) else white

    randn_tensor.intercepted = True  # type: ignore[attr-defined]
    module.randn_tensor = randn_tensor  # type: ignore[attr-defined]
    return True


def _of_diffusion(frame: FrameType | None) -> bool:
    """Whether what is drawn in a frame is a scheduler's, or the start of a pipeline.

    If not, a pipeline adds it to what it is conditioned on (the low-resolution image of an upscaler, the first image of
    a video) or to what a decoder gets. Networks were trained on that in white, and it may have another size.
    """
    pipeline, within = None, []
    while frame is not None:
        drawer = frame.f_locals.get("self")
        if pipeline is None and isinstance(drawer, SchedulerMixin):
            return True
        if isinstance(drawer, DiffusionPipeline):
            pipeline = drawer
            within.append(frame.f_code.co_name)
        frame = frame.f_back
    if not any(hasattr(pipeline, name) for name in STARTS):
        return True
    return not set(within).isdisjoint(STARTS) or (type(pipeline).__name__ in IN_CALL and within[0] == "__call__")


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


def check_schedule(scheduler: Any, timesteps: Tensor | None = None) -> None:
    """Refuse to begin where alpha_bar is 0 and a scheduler divides by it, as `Diffusion.check` does.

    A prediction of eps says nothing of x0 there, and sigma is infinite.

    Parameters
    ----------
    timesteps
        That it visits. Without them what is refused is a spacing that always begins at T - 1.

    Raises
    ------
    InputError
        Images would be black, or NaN.
    """
    alpha_bar, config = getattr(scheduler, "alphas_cumprod", None), scheduler.config
    if alpha_bar is None or alpha_bar[-1] != 0:
        return
    last = len(alpha_bar) - 1
    if timesteps is None:
        begins = getattr(config, "timestep_spacing", None) in ("trailing", "linspace")
    else:
        begins = not float(timesteps.max()) < last  # those of an infinite sigma are NaN
    if begins and (getattr(config, "prediction_type", None) == "epsilon" or hasattr(scheduler, "sigmas")):
        raise InputError(
            f"{type(scheduler).__name__} begins at t = {last}, where alpha_bar is 0: that needs prediction_type "
            "v_prediction or sample, and DDIM or DDPM; or set rescale_betas_zero_snr to False"
        )


def check(noise: Noise, config: Any) -> None:
    """Refuse a noise that a scheduler of diffusers, of this configuration, can't take.

    Raises
    ------
    InputError
        No noise of sagd; a spectrum that varies from step to step; a partial support with x0 clipped or thresholded.
    """
    check_noise(noise)
    if not noise.constant:
        raise InputError("a varying spectrum has another noise at each step, which diffusers' schedulers can't draw")
    if noise.full:
        return
    for key in ("clip_sample", "thresholding"):
        if getattr(config, key, False):
            why = "the noise leaves frequencies out, and clipping x0 puts energy back there"
            raise InputError(f"{key} is True; {why}: set it to False")


def project(noise: Noise, found: Tensor, sample: Tensor) -> Tensor:
    """A prediction on the support of the noise (App. D.5); channels beyond those of the sample are variances."""
    if noise.full:
        return found
    channels = sample.shape[1]
    return torch.cat([noise.project(found[:, :channels]), found[:, channels:]], 1)

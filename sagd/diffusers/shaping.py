"""Shape the noise of a pipeline of others, for a while: all of it, or that of the steps alone."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor

from sagd.colored import ColoredNoise, level
from sagd.diffusers.drawing import check, check_schedule, drawing, intercept, project
from sagd.diffusers.schedulers import Shaped, can_be_shaped
from sagd.errors import InputError
from sagd.noise.base import Noise


@contextlib.contextmanager
def shaped(pipeline: DiffusionPipeline, noise: Noise | None = None) -> Iterator[DiffusionPipeline]:
    """Within this, a pipeline starts from shaped noise, and its steps draw shaped noise (App. D.4).

    ``with sagd.diffusers.shaped(pipeline, noise): images = pipeline(...).images``

    It shapes the start and the steps, in this thread: what the scheduler draws by diffusers' ``randn_tensor``, and what
    the pipeline draws in ``prepare_latents`` (in ``__call__``, if it has no such method). Pipelines of the same class
    that are called within it are shaped, too. Other noise stays white: that on an upscaler's low-resolution image or
    on a video's first image, and the draws of an encoder or decoder. Latents that the caller gives (``latents=``) stay
    as they are. Where the noise leaves frequencies out, the network's predictions are projected onto the others (App.
    D.5).

    Parameters
    ----------
    pipeline
        Any pipeline with a scheduler: for images or latents (B, C, H, W), or videos (B, C, F, H, W).
    noise
        Of the size of the latents, such as ``sagd.power_law((64, 64), -0.06)``. May be left out where the pipeline's
        scheduler has a spectrum (`Shaped`).

    Raises
    ------
    InputError
        No scheduler, or one that can't be shaped; a pipeline that does not draw by ``randn_tensor``, such as a modular
        one; a spectrum that varies from step to step; x0 clipped where the noise leaves frequencies out; no noise
        given, or another than the scheduler's; sampling that begins where alpha_bar is 0 with a network of eps. When
        the pipeline draws: noise of another size, such as packed latents.
    """
    name, scheduler = type(pipeline).__name__, getattr(pipeline, "scheduler", None)
    if scheduler is None:
        raise InputError(f"{name} has no scheduler, so there is no diffusion to shape")
    own = scheduler.noise if isinstance(scheduler, Shaped) else None
    noise = own if noise is None else noise
    if noise is None:
        raise InputError(f"the scheduler of {name} has no spectrum: give the noise")
    check(noise, scheduler.config)
    if own is not None and noise.to_dict() != own.to_dict():
        raise InputError(f"the scheduler of {name} has another spectrum than the noise that is given")
    can_be_shaped(type(scheduler), scheduler.config)
    check_schedule(scheduler)
    if not any([intercept(sys.modules[kind.__module__]) for kind in type(pipeline).__mro__]):
        raise InputError(f"{name} does not draw by diffusers' randn_tensor, so its start can't be shaped")
    with drawing(noise), _checking(scheduler), _projecting(scheduler, noise):
        yield pipeline


@contextlib.contextmanager
def _checking(scheduler: Any) -> Iterator[None]:
    """Check the timesteps that a scheduler sets, if its schedule ends without signal."""
    alpha_bar = getattr(scheduler, "alphas_cumprod", None)
    if alpha_bar is None or alpha_bar[-1] != 0 or isinstance(scheduler, Shaped):
        yield
        return
    plain = scheduler.set_timesteps

    @functools.wraps(plain)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        plain(*args, **kwargs)
        check_schedule(scheduler, scheduler.timesteps)

    with _replacing(scheduler, "set_timesteps", set_timesteps):
        yield


@contextlib.contextmanager
def _projecting(scheduler: Any, noise: Noise) -> Iterator[None]:
    """Project what a scheduler's steps are given, where the noise leaves frequencies out."""
    if noise.full or isinstance(scheduler, Shaped):
        yield
        return
    plain = scheduler.step

    @functools.wraps(plain)
    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain(project(noise, model_output, sample), timestep, sample, *args, **kwargs)

    with _replacing(scheduler, "step", step):
        yield


@contextlib.contextmanager
def _replacing(scheduler: Any, name: str, method: Callable) -> Iterator[None]:
    """Give a scheduler another method."""
    before = vars(scheduler).get(name)
    setattr(scheduler, name, method)  # hides that of the class
    try:
        yield
    finally:
        if before is None:
            delattr(scheduler, name)
        else:
            setattr(scheduler, name, before)


@contextlib.contextmanager
def colored(pipeline: DiffusionPipeline, noise: ColoredNoise) -> Iterator[DiffusionPipeline]:
    """Within this, the steps of a pipeline draw colored noise; the start stays white (CNS, arXiv 2605.30332).

    For networks that were trained on white noise. Steps that draw nothing, such as DDIM's at eta 0, stay as they are.

    Parameters
    ----------
    pipeline
        Any pipeline whose scheduler has ``alphas_cumprod``: DDPM, DDIM, DPMSolverMultistep, Euler, EulerAncestral.
    noise
        Of the size of the latents: what ``sagd calibrate`` has written, or `sagd.colored.calibrate` returns.

    Raises
    ------
    InputError
        No such scheduler, or one that can't be shaped, that has a spectrum of its own, or whose steps are colored
        already. When the pipeline draws: noise of another size.
    """
    if not isinstance(noise, ColoredNoise):
        raise InputError(
            f"the noise is a {type(noise).__name__}; it must be a ColoredNoise, as sagd calibrate writes it"
        )
    name, scheduler = type(pipeline).__name__, getattr(pipeline, "scheduler", None)
    if scheduler is None or not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(f"{name} has no scheduler with alphas_cumprod, so its steps have no noise level that is known")
    if isinstance(scheduler, Shaped) and scheduler.noise is not None and not scheduler.noise.white:
        raise InputError(
            f"the scheduler of {name} has a spectrum; colored steps are for networks trained on white noise"
        )
    if hasattr(scheduler.step, "colored"):
        raise InputError(f"the steps of {name} are colored already")
    can_be_shaped(type(scheduler), scheduler.config)
    levels, plain = level(scheduler.alphas_cumprod.cpu()), scheduler.step

    @functools.wraps(plain)
    def step(model_output: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        now = float(timestep)  # on a device this waits
        before = min(int(now), len(levels) - 1)  # Euler's may lie between two
        after, share = min(before + 1, len(levels) - 1), now - before
        with drawing(noise.at_level((levels[before] * (1 - share) + levels[after] * share).item())):
            return plain(model_output, timestep, *args, **kwargs)

    step.colored = True  # type: ignore[attr-defined]
    with _replacing(scheduler, "step", step):
        yield pipeline

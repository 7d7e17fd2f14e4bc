"""Schedulers of diffusers whose steps draw shaped noise; the spectrum lies in their configuration, as JSON."""

import functools
import inspect
import re
import sys
from types import ModuleType
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)
from torch import Tensor

from sagd.diffusers.drawing import check, check_schedule, drawing, intercept, project
from sagd.errors import InputError
from sagd.noise.base import Noise, check_noise
from sagd.operators import from_dict


class Shaped:
    """Mix into a scheduler, before it, so that its steps draw N(0, Sigma_w) in place of N(0, I) (App. D.4).

    ``class ShapedX(Shaped, XScheduler)`` is all: the constructor takes the scheduler's arguments and ``spectrum``. The
    configuration keeps it, so `save_pretrained`, `from_pretrained` and `from_config` carry it. Where the noise leaves
    frequencies out, predictions are projected onto the others (App. D.5).

    `add_noise` is the scheduler's own: in training the caller draws the noise, which is also the target. A
    ``variance_noise`` that the caller gives to a step is taken as it is.

    Parameters
    ----------
    spectrum
        A `Spectrum`, or what its `to_dict` gives; None is white noise.

    Raises
    ------
    InputError
        A spectrum that varies from step to step, or leaves frequencies out where x0 is clipped or thresholded; a
        scheduler that does not draw its noise by diffusers' ``randn_tensor``; a schedule that ends without signal
        (``rescale_betas_zero_snr``), if sampling begins there and the network predicts eps.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        base = next((b for b in cls.__mro__ if issubclass(b, SchedulerMixin) and not issubclass(b, Shaped)), None)
        if base is None:
            raise TypeError(f"class {cls.__name__}(Shaped, ...) needs a scheduler of diffusers after Shaped")
        cls.__init__ = _constructor(cls.__init__, base)  # type: ignore[method-assign]
        cls.step = _step(cls.step)  # type: ignore[attr-defined]
        cls.set_timesteps = _set_timesteps(cls.set_timesteps)  # type: ignore[attr-defined]

    @property
    def noise(self) -> Noise | None:
        """The noise that steps draw; None is white."""
        described = self.config.spectrum  # type: ignore[attr-defined]
        if described is None:
            return None
        if self.__dict__.get("_described") is not described:
            self._described, self._noise = described, from_dict(described)
        return self._noise


def _constructor(plain: Any, base: type) -> Any:
    @functools.wraps(plain)
    def __init__(self: Any, *args: Any, spectrum: Any = None, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        self.register_to_config(spectrum=spectrum if spectrum is None else _described(spectrum))
        can_be_shaped(base, self.config)
        check_schedule(self)
        if self.noise is not None:
            check(self.noise, self.config)

    # diffusers reads the signature to tell which keys of a configuration are arguments.
    known = inspect.signature(base)
    own = inspect.Parameter("spectrum", inspect.Parameter.KEYWORD_ONLY, default=None)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = sorted([first, *known.parameters.values(), own], key=lambda p: p.kind)
    __init__.__signature__ = known.replace(parameters=parameters)  # type: ignore[attr-defined]
    return __init__


def _step(plain: Any) -> Any:
    @functools.wraps(plain)  # pipelines read its signature, too
    def step(self: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.noise is None or self.noise.white:  # so that `sagd.diffusers.colored` may shape what it draws
            return plain(self, model_output, timestep, sample, *args, **kwargs)
        with drawing(self.noise):
            return plain(self, project(self.noise, model_output, sample), timestep, sample, *args, **kwargs)

    return step


def _set_timesteps(plain: Any) -> Any:
    @functools.wraps(plain)  # pipelines read this signature as well
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        check_schedule(self, self.timesteps)

    return set_timesteps


def _described(spectrum: Any) -> dict:
    if not isinstance(spectrum, dict):
        check_noise(spectrum, "spectrum")
    described = spectrum if isinstance(spectrum, dict) else spectrum.to_dict()
    from_dict(described)  # or it is refused here
    return described


OTHER_DRAWS = ("randn", "randn_like", "rand", "rand_like", "multinomial", "BrownianTreeNoiseSampler")


def can_be_shaped(scheduler: type, config: Any) -> None:
    """Intercept what a scheduler draws, or raise InputError if it draws by other means than ``randn_tensor``."""
    if getattr(config, "stochastic_sampling", None) is False:  # then `FlowMatchEulerDiscreteScheduler` draws nothing
        return
    if (drawn := _other_draw(scheduler)) is not None:
        raise InputError(
            f"{scheduler.__name__} draws noise by {drawn}, which can't be shaped; take one that draws by "
            "randn_tensor, such as DDIMScheduler"
        )
    for module in _modules(scheduler):
        intercept(module)


def _modules(scheduler: type) -> set[ModuleType]:
    """The files that a scheduler's steps are in."""
    return {sys.modules[c.__module__] for c in _kinds(scheduler)}


def _kinds(scheduler: type) -> list[type]:
    return [c for c in scheduler.__mro__ if issubclass(c, SchedulerMixin) and not issubclass(c, Shaped)]


@functools.cache
def _other_draw(scheduler: type) -> str | None:
    """The first name of `OTHER_DRAWS` that a scheduler calls."""
    for module in _modules(scheduler):
        if module.__name__.startswith("diffusers."):  # helpers beside its classes may draw as well
            found = [name for name in OTHER_DRAWS if re.search(rf"\b{name}\(", inspect.getsource(module))]
        else:  # of a user's scheduler, only what its own methods call
            kinds = [c for c in _kinds(scheduler) if c.__module__ == module.__name__]
            own = [f for c in kinds for f in vars(c).values() if inspect.isfunction(f)]
            found = [name for name in OTHER_DRAWS if any(name in f.__code__.co_names for f in own)]
        if found:
            return found[0]
    return None


class ShapedDDPMScheduler(Shaped, DDPMScheduler):
    """`DDPMScheduler`: ancestral sampling, q(x_{t-1} | x_t, x0hat) with covariance Sigma_w (eq. 31-33)."""


class ShapedDDIMScheduler(Shaped, DDIMScheduler):
    """`DDIMScheduler`: shaped where eta > 0; at eta 0 no step draws noise."""


class ShapedDPMSolverMultistepScheduler(Shaped, DPMSolverMultistepScheduler):
    """`DPMSolverMultistepScheduler`: shaped where the algorithm is one of the SDE's."""


class ShapedEulerDiscreteScheduler(Shaped, EulerDiscreteScheduler):
    """`EulerDiscreteScheduler`: shaped where s_churn > 0."""


class ShapedEulerAncestralDiscreteScheduler(Shaped, EulerAncestralDiscreteScheduler):
    """`EulerAncestralDiscreteScheduler`: each step draws noise."""


class ShapedEDMEulerScheduler(Shaped, EDMEulerScheduler):
    """`EDMEulerScheduler`: shaped where s_churn > 0."""


class ShapedFlowMatchEulerDiscreteScheduler(Shaped, FlowMatchEulerDiscreteScheduler):
    """`FlowMatchEulerDiscreteScheduler`: shaped where stochastic_sampling is on, which needs diffusers 0.39."""

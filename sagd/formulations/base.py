"""What every formulation does, and what those in continuous time share."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from sagd.errors import (
    InputError,
    check_alike,
    check_flag,
    check_floating,
    check_number,
    check_same,
    check_times,
    check_whole,
    one_of,
    shortened,
)
from sagd.noise.base import Noise, check_noise
from sagd.noise.devices import Keeps

# A network: (x_t, t) -> eps, v, velocity or x0; see `predicted`. It leaves x_t as it is, as the sampler needs it later.
Predict = Callable[[Tensor, Tensor], Any]
White = Callable[[], Tensor]  # draws N(0, I), of the shape of x_t
Spacing = Literal["leading", "trailing"]
Start = Literal["noise", "marginal"]
SamplerName = Literal["ddim", "ddpm", "euler", "heun"]
SPACINGS: tuple[str, ...] = get_args(Spacing)
STARTS: tuple[str, ...] = get_args(Start)
SAMPLERS: tuple[str, ...] = get_args(SamplerName)
ODE_SAMPLERS = ("euler", "heun")
MOST = 1_000_000  # steps of a schedule, whose tables are kept on each device, and of a sampler
EMBEDDED = 1000.0  # the range of time that diffusers' embeddings are made for


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn with a trained network.

    Parameters
    ----------
    name
        ``ddim``, ``ddpm``, ``euler`` or ``heun``; flow matching and EDM take the last two.
    steps
        How many steps it takes.
    spacing
        Of a discrete schedule's steps, see `Schedule.timesteps`; `Flow` and `EDM` have grids of their own.
    start
        ``noise``: x_T is shaped noise, as in the paper. ``marginal``: with the data's own share of x_T.
    eta
        Of ddim: 0 is deterministic, 1 adds the noise of ddpm.
    clip
        Whether x0hat is clipped to [-1, 1], in a discrete diffusion.
    """

    name: str = "ddim"
    steps: int = 50
    spacing: str = "leading"
    start: str = "noise"
    eta: float = 0.0
    clip: bool = False

    def __post_init__(self) -> None:
        one_of("sampler", self.name, SAMPLERS)
        one_of("spacing", self.spacing, SPACINGS)
        one_of("start", self.start, STARTS)
        check_whole("steps", self.steps, 1, MOST)
        check_number("eta", self.eta, least=0, most=1)
        check_flag("clip", self.clip)
        if self.eta > 0 and self.name != "ddim":
            raise InputError(f"eta is {self.eta}; the sampler {self.name} has none: it must be 0")

    @property
    def stochastic(self) -> bool:
        """Whether every step draws noise."""
        return self.name == "ddpm" or self.eta > 0


class Formulation(Protocol):
    """What a network is trained to predict, and how samples follow: all that training and sampling call.

    `Diffusion`, `Flow` and `EDM` are the formulations here. Noise is always an argument, never drawn inside.
    """

    @property
    def alpha_bar(self) -> Tensor | None:
        """(T,), float64, of the discrete schedule; None in continuous time."""
        ...

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Draw the times of n training examples, (n,)."""
        ...

    def loss(
        self, predict: Predict, noise: Noise, x0: Tensor, t: Tensor, eps: Tensor, *, project: bool = True
    ) -> Tensor:
        """The training loss, mean over everything; x0 and eps (B, ...), t (B,), eps drawn by ``noise.sample``.

        ``project``: see `trained_on`.
        """
        ...

    def check(self, noise: Noise, sampler: Sampler | None = None) -> None:
        """Raise InputError if noise, sampler and formulation are incompatible."""
        ...

    def start(self, noise: Noise, sampler: Sampler, white: Tensor, data: dict[str, Tensor] | None = None) -> Tensor:
        """Where sampling starts, (B, ...), made of white noise of that shape.

        ``data`` has the ``mean`` and ``power`` of `sagd.spaces.moments.statistics`, for a start from the marginal.
        """
        ...

    def sample(
        self,
        predict: Predict,
        noise: Noise,
        x: Tensor,
        sampler: Sampler,
        *,
        white: White | None = None,
        gradients: bool = False,
    ) -> Tensor:
        """Run a sampler from the start x down to clean data; ``white`` is the source of what its steps draw."""
        ...

    def to_dict(self) -> dict:
        """What tells one formulation from another, ready for JSON."""
        ...


@dataclass(frozen=True)
class Family:
    """A formulation by name, as a configuration chooses it.

    Parameters
    ----------
    predictions
        What its networks may predict, such as ``eps`` and ``v``.
    build
        Takes the prediction, the shape (C, H, W) of the data, and by name the arguments that the formulation has;
        returns a `Formulation`.
    """

    predictions: tuple[str, ...]
    build: Callable[..., Formulation]


def builder(kind: Callable[..., Formulation]) -> Callable[..., Formulation]:
    """The ``build`` of a `Family` whose arguments are those of a dataclass, whatever the prediction and the shape."""

    def build(prediction: str, shape: tuple[int, ...], **arguments: object) -> Formulation:
        return kind(**arguments)

    first = list(inspect.signature(build).parameters.values())[:2]
    fields = [field.replace(kind=field.KEYWORD_ONLY) for field in inspect.signature(kind).parameters.values()]
    build.__signature__ = inspect.Signature([*first, *fields], return_annotation=kind)  # type: ignore[attr-defined]
    return build


class Continuous(Keeps):
    """What flow matching and EDM share: they are sampled from noise alone, by following an ODE."""

    @property
    def alpha_bar(self) -> None:
        """None: there is no discrete schedule."""
        return None

    def grid(self, steps: int) -> Tensor:
        """The times that a sampler visits, (steps + 1,), float64, the last 0."""
        raise NotImplementedError

    def visited(self, steps: int) -> tuple[float, ...]:
        """The `grid` as plain numbers."""
        return self._kept("_visited", steps)

    def _visited(self, steps: int) -> tuple[float, ...]:
        return tuple(self.grid(steps).tolist())

    def check(self, noise: Noise, sampler: Sampler | None = None) -> None:
        """Raise InputError if noise, sampler and formulation are incompatible."""
        check_kinds(noise, sampler)
        noise.check_schedule(None)
        if sampler is None:
            return
        name = type(self).__name__
        if sampler.name not in ODE_SAMPLERS:
            raise InputError(f"sampler is {sampler.name!r}; {name} is sampled by {' or '.join(ODE_SAMPLERS)}")
        if sampler.start != "noise":
            raise InputError(f"start is {sampler.start!r}; {name} is sampled from noise alone")
        if sampler.clip:
            raise InputError(f"clip is on; {name} is sampled without clipping")
        self.visited(sampler.steps)

    def start(self, noise: Noise, sampler: Sampler, white: Tensor, data: dict[str, Tensor] | None = None) -> Tensor:
        """Shaped noise, made of white noise (B, ...)."""
        return noise.shape(white)


def trained_on(noise: Noise, x0: Tensor, project: bool) -> Tensor:
    """What a network is shown of the data, and asked for: x0 (B, ...) on the support of the noise (App. D.5).

    A sampler never visits the frequencies that the noise leaves out, so what the data have there is neither input nor
    target. eps lies on the support, so with x0 projected all that is made of the two is. At full support this is x0.
    Without ``project`` it is x0, too: the loss as the paper writes it (eq. 26), for comparison.
    """
    check_flag("project", project)
    return noise.project(x0) if project else x0


def predicted(predict: Predict, xt: Tensor, t: Tensor) -> Tensor:
    """What a network predicts at x_t (B, ...), of x_t's shape, and no less precise than x_t.

    A network that writes into x_t (``x.mul_``) would change what a sampler's step starts from; nothing looks for that.

    Raises
    ------
    InputError
        An output of another shape, which would be broadcast, or be read as if it had no learnt variance; or none.
    """
    found = unpacked(predict(xt, t))
    check_floating("the network's output", found)
    if found.shape != xt.shape:
        more = "; learned variances are not supported" if found.shape[1:2] == (2 * xt.shape[1],) else ""
        raise InputError(f"the network returns {tuple(found.shape)} for x_t of {tuple(xt.shape)}{more}")
    return found.to(torch.promote_types(found.dtype, xt.dtype))


def unpacked(output: Any) -> Tensor:
    """A network's output as a tensor; a model of diffusers returns an object whose ``sample`` it is, or a tuple."""
    found = output[0] if isinstance(output, tuple) and output else getattr(output, "sample", output)
    if not isinstance(found, Tensor):
        raise InputError(
            f"the network returns a {type(output).__name__}; it must return a tensor, a tuple that begins with one, or "
            "an object whose `sample` is one"
        )
    return found


def check_kinds(noise: Noise, sampler: Sampler | None) -> None:
    """Raise InputError for what is no noise, or no sampler, such as its name."""
    check_noise(noise)
    if not isinstance(sampler, Sampler | None):
        said = shortened(repr(sampler), 60)
        raise InputError(f"sampler is {said}; it must be a Sampler, such as sagd.Sampler('ddim', 50)")


def check_formulation(formulation: Formulation) -> None:
    """Raise InputError for what is no formulation, such as its name, or a schedule."""
    if not hasattr(formulation, "draw_times"):
        said = shortened(repr(formulation), 60)
        raise InputError(f"formulation is {said}; it must be one, such as sagd.Diffusion(sagd.Schedule.linear())")


def check_discrete(formulation: Formulation) -> None:
    """Refuse what has no discrete schedule, such as `Flow` and `EDM`, where one is needed."""
    check_formulation(formulation)
    if formulation.alpha_bar is None or not hasattr(formulation, "schedule"):
        raise InputError(f"formulation is a {type(formulation).__name__}; it must be a Diffusion, in discrete steps")


def check_start(x: Tensor, gradients: bool) -> None:
    """Refuse what no sampler starts from: whole numbers, in which what it adds would be lost."""
    check_floating("x", x)
    check_flag("gradients", gradients)


def settings_of(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a formulation of this name, with NumPy's numbers as Python's: ready for JSON."""
    return {"formulation": name, **{key: v.item() if hasattr(v, "item") else v for key, v in values.items()}}


def moments_of(data: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The ``mean`` and ``power`` of `sagd.spaces.moments.statistics`; InputError where they are not there."""
    found = [data.get(name) if isinstance(data, Mapping) else None for name in ("mean", "power")]
    for name, moment in zip(("mean", "power"), found, strict=True):
        if not isinstance(moment, Tensor):
            raise InputError(
                f"data has no tensor {name!r}; it must be what sagd.spaces.moments.statistics gives: mean and power"
            )
    return found[0], found[1]  # type: ignore[return-value]


def check_example(x0: Tensor, t: Tensor, eps: Tensor) -> None:
    """Raise InputError unless x0 and eps (B, ...) are floating-point and alike, and t is (B,)."""
    check_noised(x0, eps)
    shape = tuple(getattr(t, "shape", ()))
    if shape != (len(x0),):
        raise InputError(f"t has the shape {shape}; for {len(x0)} examples it must be ({len(x0)},)")


def check_noised(x0: Tensor, eps: Tensor) -> None:
    """Raise InputError unless x0 and eps (B, ...) are floating-point, of any precision, of one shape, on one device."""
    check_alike("x0", x0, "eps", eps)
    check_same("x0", x0, "eps", eps)
    check_batch("x0", x0)


def check_batch(name: str, x: Tensor) -> None:
    """Raise InputError for what is no tensor (B, ...) of floating-point numbers."""
    check_floating(name, x)
    if not x.ndim:
        raise InputError(f"{name} has no axes; it must be (B, ...)")


def integrate(slope: Callable[[Tensor, float], Tensor], x: Tensor, times: Sequence[float], sampler: str) -> Tensor:
    """Follow dx/dt = slope(x, t) along times that end at 0, by ``euler`` or ``heun``, whose last step is Euler's."""
    one_of("sampler", sampler, ODE_SAMPLERS)
    for t, t_next in itertools.pairwise(times):
        d = slope(x, t)
        there = x + (t_next - t) * d
        if sampler == "heun" and t_next > 0:
            there = x + (t_next - t) * (d + slope(there, t_next)) / 2
        x = there
    return x


def like(t: Tensor | float, x: Tensor, name: str = "t", **bounds: Any) -> Tensor:
    """Times (B,), or one number, shaped to multiply x (B, ...); refused outside of their bounds (`check_times`)."""
    check_batch("x", x)
    check_times(name, t, len(x), **bounds)
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))

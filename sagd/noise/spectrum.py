"""A weight w(f) and the Gaussian noise that it shapes: T_w = F^-1 Diag(w) F, Sigma_w = T_w T_w^T.

Equation numbers are those of Scimeca et al., arXiv 2510.09660. F is the unitary DFT over the axes of the grid: the
last two for images, as in the paper, the last one for signals (..., L), the last three for volumes (..., D, H, W).
Leading axes (batch, channel) are independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sagd.errors import (
    InputError,
    check_alike,
    check_flag,
    check_floating,
    check_number,
    check_same,
    check_whole,
    one_of,
    shortened,
)
from sagd.noise.devices import Keeps, double
from sagd.noise.grid import Size, float64, mirror
from sagd.noise.randomness import check_generator, check_rows

Normalize = Literal["expected", "sample", "none"]


@dataclass(frozen=True, eq=False)
class Spectrum(Keeps):
    """A weight w(f) >= 0 on the DFT grid, and the Gaussian N(0, Sigma_w) that it defines (eq. 5-7).

    Build one with `isotropic`, `power_law`, `band_pass`, `two_band` or `exponential`, or from a weight of your own.

    Parameters
    ----------
    weight
        (L,), (H, W) or (D, H, W), real, >= 0, finite, zero frequency at index 0. Real noise sees only the
        symmetric part, so (w(f) + w(-f)) / 2 is what is kept, and T_w is exact without taking a real part.
    per_sample
        Divide each drawn image and channel by its own standard deviation (the listing of App. E). Such noise is
        not exactly Gaussian; the operators below remain those of `weight`.
    recipe
        What the constructor was called with; goes to `to_dict`.
    """

    weight: Tensor
    per_sample: bool = False
    recipe: dict = field(default_factory=lambda: {"operator": "custom"})
    _full: bool = field(init=False, repr=False)
    _least: float = field(init=False, repr=False)
    _constant: float | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        w = float64("a weight", self.weight)
        if not isinstance(self.recipe, Mapping) or "operator" not in self.recipe:
            said = shortened(repr(self.recipe), 60)
            raise InputError(f"recipe is {said}; it must name the operator, as what to_dict gives does")
        check_flag("per_sample", self.per_sample)
        if (
            not 1 <= w.ndim <= 3
            or min(w.shape) < 2
            or not torch.isfinite(w).all()
            or (w < 0).any()
            or not (w > 0).any()
        ):
            values = f" and values in [{w.min():.3g}, {w.max():.3g}]" if w.numel() else ""
            raise InputError(
                "a weight must be (L,), (H, W) or (D, H, W), finite, >= 0 and somewhere > 0; this one has shape "
                f"{tuple(w.shape)}{values}"
            )
        w = (w + mirror(w)) / 2
        if self.per_sample and not (w.flatten()[1:] > 0).any():
            raise InputError("normalize=sample divides by a standard deviation, and the zero frequency alone has none")
        object.__setattr__(self, "weight", w)
        # Known here once, so that no step asks a tensor. Where the weight is the same everywhere, T_w is a number.
        object.__setattr__(self, "_full", bool((w > 0).all()))
        object.__setattr__(self, "_least", w.where(w > 0, torch.inf).min().item())
        object.__setattr__(self, "_constant", w.max().item() if bool((w == w.max()).all()) else None)

    @property
    def size(self) -> Size:
        """Of the grid, (H, W) for images."""
        return tuple(self.weight.shape)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.size), 0))

    @property
    def support(self) -> Tensor:
        """The grid, bool: where w > 0."""
        return self.weight > 0

    @property
    def full(self) -> bool:
        """Whether w > 0 everywhere."""
        return self._full

    @property
    def constant(self) -> bool:
        """True: the noise is the same at every step."""
        return True

    @property
    def gaussian(self) -> bool:
        """Whether a draw is exactly Gaussian: not if `per_sample` divides it by its own standard deviation."""
        return not self.per_sample

    @property
    def white(self) -> bool:
        """Whether it is N(0, I)."""
        return self._constant == 1 and self.gaussian

    def at(self, t: int) -> "Spectrum":
        """The spectrum of the noise in x_t: itself, at every t. `Varying` has another one at each."""
        return self

    def check_schedule(self, alpha_bar: Tensor | None) -> None:
        """Does nothing: a constant spectrum fits every schedule."""

    def transfer(self, eps: Tensor, t: int, t_prev: int) -> Tensor:
        """The noise in x_t as noise in x_{t_prev}: itself. `Varying` shapes it anew."""
        return eps

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        t: Tensor | int | None = None,
        rows: slice | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw eps_w ~ N(0, Sigma_w) (eq. 5, 19).

        Parameters
        ----------
        shape
            (..., *size), such as (B, C, H, W).
        generator
            The source of randomness; a sequence gives one to each index of the first axis, so that image k does
            not depend on how many are drawn beside it. None takes torch's global one.
        t
            Has no effect here: the noise is the same at every step. `Varying` needs it.
        rows
            Indices of the first axis that are wanted. All are drawn, so that each is the same whichever are asked
            for, and whichever process asks; only these are shaped.
        device, dtype
            Of the result; a floating-point dtype. The draw is made where the generator lives, in float32 (float64
            for float64).

        Returns
        -------
        Tensor
            ``shape``, or its ``rows``: T_w xi with xi the ``torch.randn`` of the same generator, whatever the weight.
            So noises of weights that differ little differ little themselves, and isotropic noise is xi.

        Raises
        ------
        InputError
            A shape that does not end in the grid's size, another dtype, what is no generator or as many as there are
            not images.
        """
        shape = check_draw(shape, generator, dtype, rows)
        self._check_size(shape)
        if isinstance(generator, Sequence):
            asked = generator if rows is None else generator[rows]
            return torch.stack([self.sample(shape[1:], generator=g, device=device, dtype=dtype) for g in asked])
        working = torch.float64 if dtype == torch.float64 else torch.float32
        source = generator.device if generator is not None else torch.device(device or "cpu")
        white = torch.randn(shape, generator=generator, device=source, dtype=working)
        if self._constant is not None:
            eps = white if rows is None else white[rows]
            eps = eps if self._constant == 1 else eps * self._constant
        else:
            eps = self._sqrt_of_pairs(white, rows)
        return self._per_sample(eps).to(device=device or source, dtype=dtype)

    def shape(self, white: Tensor, t: int | None = None) -> Tensor:
        """Make N(0, Sigma_w) of white noise (..., *size): T_w, and where `per_sample` asks for it the division.

        t is as in `sample`.
        """
        return self._per_sample(self.sqrt(white))

    def posterior(
        self, xt: Tensor, x0: Tensor, t: int, t_prev: int, alpha_bar: float, alpha_bar_prev: float, white: Tensor
    ) -> Tensor:
        """Draw x_{t_prev} from q(x_{t_prev} | x_t, x0) = N(mu, betatilde Sigma_w) (eq. 31-33)."""
        mean, std = posterior(xt, x0, alpha_bar, alpha_bar_prev)
        if t_prev < 0:
            return mean
        check_same("white", white, "xt", xt)
        return mean + std * self.shape(white)

    def sqrt(self, x: Tensor) -> Tensor:
        """T_w x: multiply by w (eq. 5). Shape (..., *size), kept; so are dtype (floating-point) and device."""
        return self._multiply(x, "sqrt")

    def covariance(self, x: Tensor) -> Tensor:
        """Sigma_w x: multiply by w^2 (eq. 7, 20)."""
        return self._multiply(x, "covariance")

    def inverse(self, x: Tensor) -> Tensor:
        """Sigma_w^+ x: multiply by w^-2 on the support, by 0 off it (App. D.5)."""
        overflows = self._least < 1e-19  # w^-2, in float32
        return self._multiply(double(x) if overflows else x, "inverse").to(x)

    def project(self, x: Tensor) -> Tensor:
        """Sigma_w Sigma_w^+ x: keep the frequencies of the support. At full support, x itself."""
        check_floating("x", x)
        self._check_size(x.shape)
        return x if self._full else self._multiply(x, "project")

    def to_dict(self) -> dict:
        """A JSON-ready description, from which `sagd.operators.from_dict` restores the spectrum."""
        if self.recipe["operator"] == "custom":
            return {"operator": "custom", "weight": self.weight.tolist(), "per_sample": self.per_sample}
        return dict(self.recipe)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors from which `sagd.noise.stored.load` restores the spectrum."""
        return {"weight": self.weight, "per_sample": torch.tensor(self.per_sample, device="cpu")}

    def _table(self, what: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The multiplier of an operator: on the half-space of rfftn (the last axis to N // 2 + 1), or for ``complex`` w
        itself on real and imaginary parts, (*size, 2), as broadcasting that axis is slow.
        """
        w, on = self.weight, self.support
        if what == "complex":
            table = torch.stack([w, w], -1)
        else:
            inverse = torch.where(on, w, 1) ** -2 * on
            full = {"sqrt": w, "covariance": w**2, "inverse": inverse, "project": on}[what]
            table = full[..., : self.size[-1] // 2 + 1]
        return table.to(dtype).to(device, copy=True).contiguous()

    def _sqrt_of_pairs(self, white: Tensor, rows: slice | None) -> Tensor:
        """T_w of white noise, or of some rows of it. T_w is real, so a complex FFT there and back shapes two images at
        a time, its real and its imaginary part; the pairs are the same whichever rows are asked for.
        """
        fields = white.reshape(-1, *self.size)
        count = len(fields)
        half = -(-count // 2)
        first, second = fields[:half], fields[half:]
        if count % 2:
            second = torch.cat([second, torch.zeros_like(first[:1])])
        wanted, part = tuple(white.shape), None
        if rows is not None:
            asked = torch.arange(count, device=white.device).unflatten(0, white.shape[: -len(self.size)])[rows]
            wanted, part = (*asked.shape, *self.size), asked.flatten() < half
            first, second = first[asked.flatten() % half], second[asked.flatten() % half]
        spectra = torch.view_as_real(torch.fft.fftn(torch.complex(first, second), dim=self._axes, norm="ortho"))
        spectra *= self._kept("_table", "complex", white.device, white.dtype)
        pairs = torch.view_as_real(torch.fft.ifftn(torch.view_as_complex(spectra), dim=self._axes, norm="ortho"))
        if part is None:
            return pairs.movedim(-1, 0).reshape(-1, *self.size)[:count].reshape(wanted)
        return torch.where(part.reshape(-1, *[1] * len(self.size)), pairs[..., 0], pairs[..., 1]).reshape(wanted)

    def _per_sample(self, eps: Tensor) -> Tensor:
        return eps / eps.std(dim=self._axes, correction=0, keepdim=True) if self.per_sample else eps

    def _check_size(self, shape: Sequence[int]) -> None:
        if tuple(shape[-len(self.size) :]) != self.size:
            raise InputError(f"shape {tuple(shape)} does not end in this spectrum's size {self.size}")

    def _multiply(self, x: Tensor, what: str) -> Tensor:
        check_floating("x", x)
        self._check_size(x.shape)
        working = x if x.dtype in (torch.float32, torch.float64) else x.float()
        table = self._kept("_table", what, x.device, working.dtype)
        spectrum = torch.fft.rfftn(working, dim=self._axes, norm="ortho") * table
        return torch.fft.irfftn(spectrum, s=self.size, dim=self._axes, norm="ortho").to(x.dtype)


def check_draw(
    shape: Sequence[int],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    dtype: torch.dtype,
    rows: slice | None = None,
) -> tuple[int, ...]:
    """The shape of a draw, once it, its generator, its dtype and its rows are checked."""
    if isinstance(shape, str) or not isinstance(shape, Sequence) or not shape:
        raise InputError(f"shape is {shape!r}; it must be a sequence of whole numbers, such as (B, C, H, W)")
    for side in shape:
        check_whole("an entry of shape", side, 1)
    check_generator(generator, shape[0])
    check_rows(rows, shape[0], some=isinstance(generator, Sequence))
    if not getattr(dtype, "is_floating_point", False):
        raise InputError(f"dtype is {dtype}; noise needs a floating-point one")
    return tuple(shape)


def posterior(xt: Tensor, x0: Tensor, alpha_bar: float, alpha_bar_prev: float) -> tuple[Tensor, float]:
    """Mean, and standard deviation in units of T_w, of q(x_{t_prev} | x_t, x0) (eq. 31-33).

    The alpha_bar of a step and that of one before it: 0 <= alpha_bar < alpha_bar_prev <= 1.
    """
    check_floating("xt", xt)
    check_alike("x0", x0, "xt", xt, grows=False)
    check_number("alpha_bar", alpha_bar, least=0)
    check_number("alpha_bar_prev", alpha_bar_prev, above=alpha_bar, most=1)
    alpha = alpha_bar / alpha_bar_prev  # of the stride from t_prev to t, which is eq. 31-33's alpha_t at stride one
    mean = (
        alpha_bar_prev**0.5 * (1 - alpha) / (1 - alpha_bar) * x0
        + alpha**0.5 * (1 - alpha_bar_prev) / (1 - alpha_bar) * xt
    )
    return mean, ((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha)) ** 0.5


def normalized(weight: Tensor, normalize: Normalize, recipe: dict) -> Spectrum:
    """Apply the normalisation: ``expected`` is eq. 15, the mean of w^2 brought to 1, so pixels have unit variance."""
    one_of("normalize", normalize, get_args(Normalize))
    symmetric = (weight + mirror(weight)) / 2
    if normalize != "none" and (symmetric > 0).any() and torch.isfinite(symmetric).all():
        flat = bool(symmetric.min() >= symmetric.max() * (1 - 1e-14))  # then it is exactly white
        weight = torch.ones_like(symmetric) if flat else symmetric * symmetric.square().mean().rsqrt()
    recipe = {key: _plain(value) for key, value in recipe.items()} | {"normalize": normalize}
    return Spectrum(weight, per_sample=normalize == "sample", recipe=recipe)


def _plain(value: Any) -> Any:
    """A number, or a list of some, as Python's own: those of NumPy are not for JSON."""
    if isinstance(value, list | tuple):
        return [v if isinstance(v, list) else _plain(v) for v in value]
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return value

"""The sections of params.yaml. Keys of operators and formulations come from the library, by their signatures.

So an operator or a formulation that is added to the library has its keys here at once, and in docs/parameters.md.
"""

import contextlib
import functools
import inspect
import operator
import os
import re
import types
import typing
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from torch import Tensor, nn

from sagd import data, formulations, operators
from sagd.errors import InputError
from sagd.formulations.base import ODE_SAMPLERS, Formulation, Sampler, SamplerName, Spacing, Start
from sagd.metrics.classifier import Fit
from sagd.metrics.denoising import DENOISING
from sagd.metrics.distances import METRICS
from sagd.metrics.extractors import EXTRACTORS
from sagd.networks.dit import dit
from sagd.networks.unet import unet
from sagd.noise.base import Noise as AnyNoise
from sagd.noise.grid import Units
from sagd.noise.randomness import seeded
from sagd.noise.spectrum import Spectrum
from sagd.noise.varying import Varying
from sagd.operators.pyramid import MOST
from sagd.training.recipe import Decay, Optimizer, Precision, Recipe

# A user's own files: operators/mine.py, data/mine.py, metrics/mine.py. DVC tracks these folders.
EXTENSIONS = Path(__file__).parents[2] / "extensions"
STEEPEST = 10.0  # |alpha|: steeper noise is a single frequency


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds must be unique")
    return seeds


def _ordered(band: list[float]) -> list[float]:
    if not 0 <= band[0] < band[1]:
        raise ValueError("a band is [low, high] with 0 <= low < high")
    return band


def _rising(shares: list[float]) -> list[float]:
    if sorted(set(shares)) != shares:
        raise ValueError("shares must rise")
    return shares


def _exponent(alpha: Any) -> Any:
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not (alpha == "auto" or (number and -STEEPEST <= alpha <= STEEPEST)):
        raise ValueError(f"it must be a number from {-STEEPEST:g} to {STEEPEST:g}, or auto")
    return alpha


def _printable(text: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text):  # a space of any kind is allowed
        raise ValueError("it must have no control characters")
    return text


def _place(text: str) -> str:
    if not text.strip():  # as a path it would be the folder of the study
        raise ValueError("it must name a file or a folder, or be left out")
    return text


def _named(names: Callable[[], typing.Iterable[str]], own: bool = False) -> AfterValidator:
    """One of the library's names, or (``own``) a function of a user's file, such as ``mine.py:ring``."""

    def check(name: str) -> str:
        # A file of its own folder, which DVC tracks: no path.
        if not (own and re.fullmatch(r"[\w-]+\.py:\w+", name)) and name not in names():
            mine = ", or a function of a file below extensions/, such as mine.py:name" if own else ""
            raise ValueError(f"allowed: {', '.join(names())}{mine}")
        return name

    return AfterValidator(check)


Band = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]  # "__" separates a setting from its variant
Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
Place = Annotated[Text, AfterValidator(_place), AfterValidator(os.path.expanduser)]  # a file, a folder, or on the hub
# The bounds lie far above what is of use: a slip of the key is told at once. What a machine can't hold of what is
# allowed is told by pipeline/run/door.py.
Seed = Annotated[int, Field(ge=0, le=10**15)]
Images = Annotated[int, Field(ge=1, le=10**8)]
Batch = Annotated[int, Field(ge=1, le=10**6)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=256)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_distinct)]


class Section(BaseModel):
    """A mapping of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def unused(self) -> set[str]:
        """Keys that have no meaning beside the others, and make no difference."""
        return set()

    def __hash__(self) -> int:
        """Of lists, too."""
        return hash(self.model_dump_json())


def keyed(where: str, model: type[Section], message: str) -> str:
    """A message with the key that it begins with written out: "eta is 2" of the section sample is "sample.eta is 2"."""
    return f"{where}.{message}" if message.split(" ")[0] in model.model_fields else f"{where}: {message}"


@contextlib.contextmanager
def naming(where: str, model: type[Section]) -> Iterator[None]:
    """Around a call of the library with the values of a section: where it refuses one, the error names the key."""
    try:
        yield
    except InputError as error:
        named = keyed(where, model, str(error))
        raise type(error)(named if named.startswith(f"{where}.") else str(error)) from None


def described(function: Callable) -> dict[str, str]:
    """What a NumPy docstring says of each parameter."""
    text = inspect.getdoc(function) or ""
    _, _, listed = text.partition("Parameters\n----------\n")
    listed = re.split(r"\n\w+\n-{3,}\n", listed)[0]
    found = {}
    for entry in re.split(r"\n(?=\S)", listed):
        names, _, meaning = entry.partition("\n")
        for name in names.split(", "):
            found[name] = " ".join(meaning.split())
    return found


def _bounded(kind: Any) -> Any:
    """The type of an argument, with bounds."""
    if isinstance(kind, types.UnionType):
        return functools.reduce(operator.or_, map(_bounded, typing.get_args(kind)))
    known: dict[Any, Any] = {tuple[float, float]: Band, float: Finite, int: Annotated[int, Field(ge=1, le=MOST)]}
    return known.get(kind, kind)


def _keys(functions: typing.Iterable[Callable], left_out: set[str]) -> dict[str, tuple]:
    """Fields for the arguments of functions, in their order: type, default, description."""
    found: dict[str, tuple] = {}
    for function in functions:
        signature = inspect.signature(function)
        # What builds a formulation has the arguments of the class that it returns.
        told = described(signature.return_annotation) | described(function)
        for name, argument in signature.parameters.items():
            if name in left_out or name in found:
                continue
            kind = _bounded(argument.annotation)
            default = None if argument.default is inspect.Parameter.empty else argument.default
            default = list(default) if isinstance(default, tuple) else default
            found[name] = (kind if default is not None else kind | None, Field(default, description=told.get(name)))
    return found


class Dataset(Section):
    """Which images, and how they are cropped, resized and split."""

    name: Annotated[str, _named(lambda: data.SOURCES, own=True)] = Field(
        description="a data set by name (docs/data.md), `folder`, `huggingface`, or your own reader `mine.py:reader`"
    )
    path: Place | None = Field(
        None, description="a folder or zip file of images; on the hub `owner/name`; else the folder of all data sets"
    )
    size: Annotated[int, Field(ge=2, le=4096)] = Field(description="resolution, pixels")
    channels: Literal[1, 3] | None = Field(None, description="1 (grey) or 3 (RGB); by default 1 for digits, else 3")
    held_out: Annotated[int, Field(ge=2, le=10**8)] = Field(
        description="images kept from training, where the data set has no test part of its own"
    )
    split_seed: Seed = Field(0, description="which images are held out")
    labels: bool = Field(False, description="whether networks are told the class of an image")


class _Noise(Section):
    operator: Annotated[str, _named(lambda: operators.OPERATORS, own=True)] = Field(
        "isotropic", description="which noise: an operator by name, or your own `mine.py:function` (docs/extending.md)"
    )
    alpha: Annotated[Any, AfterValidator(_exponent)] = Field(
        0.0,
        description="power_law: exponent; below 0 low-frequency noise, above 0 high; `auto`: as `sagd suggest` advises",
    )
    schedule: Literal["constant", "varying"] = Field(
        "constant", description="power_law: `varying` moves from alpha at the first step to alpha_last at the last"
    )
    alpha_last: Annotated[float, Field(ge=-STEEPEST, le=STEEPEST)] = Field(
        0.0, description="power_law: exponent at the last step, if the schedule is varying"
    )
    arguments: dict[str, Any] = Field({}, description="arguments of your own operator, by name")

    if TYPE_CHECKING:  # the operators' own keys, which `Noise` has from their signatures

        def __getattr__(self, key: str) -> Any: ...

    @model_validator(mode="after")
    def _check(self):
        if self.schedule == "varying":
            if self.operator != "power_law" or self.alpha == "auto":
                raise ValueError("schedule varying is for operator power_law, from a number alpha to alpha_last")
            if self.normalize != "expected":
                raise ValueError("schedule varying is for normalize expected")
        if self.arguments and ":" not in self.operator:
            raise ValueError(f"arguments are for an operator of your own; {self.operator} has keys of its own")
        return self

    @property
    def _taken(self) -> typing.Mapping[str, inspect.Parameter]:
        """The arguments of this operator, if it is one of the library's."""
        return {} if self.file else inspect.signature(operators.OPERATORS[self.operator]).parameters

    @property
    def unused(self) -> set[str]:
        """Keys that are for other operators."""
        last = {"alpha_last"} if self.schedule == "varying" else set()
        return set(type(self).model_fields) - {"operator", "schedule", "arguments"} - last - self._taken.keys()

    @property
    def file(self) -> Path | None:
        """The file of a user's own operator."""
        return EXTENSIONS / "operators" / self.operator.rpartition(":")[0] if ":" in self.operator else None

    def spectrum(self, power: Tensor, alpha_bar: Tensor | None, alpha: float | None = None) -> AnyNoise:
        """The noise that this section describes.

        Parameters
        ----------
        power
            (H, W), the data's power, averaged over channels: gives the size, and the operators made of data.
        alpha_bar
            Of the schedule, along which a varying spectrum moves.
        alpha
            In place of this section's, where that is ``auto``.
        """
        try:
            constant = self._constant(power, self.alpha if alpha is None else alpha)
            if self.schedule == "constant":
                return constant
            if alpha_bar is None:
                raise InputError("schedule is 'varying', which needs a discrete schedule (linear, zero_terminal_snr)")
            return Varying(constant, self._constant(power, self.alpha_last), alpha_bar)
        except InputError as error:
            raise InputError(keyed("noise", type(self), str(error))) from None

    def _constant(self, power: Tensor, alpha: float) -> Spectrum:
        arguments = self.arguments
        if self.file is None:
            given = {**{name: getattr(self, name) for name in type(self).model_fields}, "alpha": alpha}
            arguments = {k: v for k, v in given.items() if k in self._taken and v is not None}
            for key, argument in self._taken.items():
                if key in given and key not in arguments and argument.default is argument.empty:
                    raise InputError(f"{key} is missing, which operator {self.operator} needs")
        folder = EXTENSIONS / "operators"
        return operators.build(self.operator, tuple(power.shape), power, arguments, folder=folder)


if TYPE_CHECKING:

    class Noise(_Noise): ...

else:
    Noise = create_model(
        "Noise",
        __base__=_Noise,
        __doc__="The forward noise.",
        **_keys(operators.OPERATORS.values(), {"size", "power", "alpha"}),
    )


class Corrupt(Section):
    """Noise in one band that is added to the training images (selective omission)."""

    band: Band | None = Field(None, description="such as [0.4, 0.5]: noise in this band is added to training images")
    gamma: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="its weight")
    units: Units = Field("corner", description="of the band's edges, as noise.units")
    normalize: Literal["expected", "none"] = Field(
        "expected", description="unit variance in the pixels (eq. 15), or the bare weight of eq. 13, a fraction of it"
    )
    filtered: bool = Field(False, description="the plain remedy: the band is filtered out of the training images")

    @property
    def edges(self) -> tuple[float, float]:
        """Of the band."""
        assert self.band is not None
        low, high = self.band
        return low, high

    @model_validator(mode="after")
    def _check(self):
        if self.filtered and self.band is None:
            raise ValueError("filtered takes a band out of the training images, and needs corrupt.band")
        return self


class Encode(Section):
    """The space that is trained in: pixels, or the latents of an autoencoder."""

    kind: Literal["pixel", "rae", "vae"] = Field(
        "pixel", description="`rae` and `vae` are diffusers' AutoencoderRAE and AutoencoderKL"
    )
    path: Place | None = Field(
        None, description="the autoencoder: a folder, `owner/name`, `owner/name@revision`, or `random` to try the chain"
    )
    on_the_fly: bool = Field(False, description="encode inside training, and store nothing")
    flips: bool = Field(False, description="also store the latents of mirrored images")
    centre: bool = Field(False, description="pixel: networks see images less the mean image; samples get it back")
    dtype: Literal["float16", "bfloat16"] = Field("float16", description="of stored latents")
    per_shard: Batch = Field(1024, description="latents in a file")
    batch_size: Batch = Field(64, description="images that are encoded at a time")

    @model_validator(mode="after")
    def _check(self):
        if self.kind != "pixel" and self.path is None:
            raise ValueError(f"kind {self.kind} needs encode.path, the autoencoder's folder or its name on the hub")
        if self.on_the_fly and (self.kind == "pixel" or self.flips):
            raise ValueError("on_the_fly is for rae and vae, and needs no flips: it mirrors images, not latents")
        if self.centre and self.kind != "pixel":
            raise ValueError(f"centre is for kind pixel; latents of {self.kind} are normalised")
        return self

    @property
    def stored(self) -> bool:
        """Whether there are latents on the disk."""
        return self.kind != "pixel" and not self.on_the_fly


class UNet(Section):
    """diffusers' UNet2DModel."""

    widths: Annotated[list[Width], Field(min_length=1, max_length=12)] = Field(description="channels of each level")
    layers: Depth = Field(description="residual blocks a level")
    attention: Annotated[list[bool], Field(max_length=12)] = Field(
        description="for each level, whether its blocks attend"
    )
    groups: Width = Field(description="of the group normalisation; divides every width")


class DiT(Section):
    """RAE's DiT^DH; the defaults are DiT^DH-S."""

    patch: Width = Field(1, description="side of a token")
    widths: Annotated[list[Width], Field(min_length=2, max_length=2)] = Field(
        [384, 2048], description="of the body and of the head"
    )
    depths: Annotated[list[Depth], Field(min_length=2, max_length=2)] = Field(
        [12, 2], description="blocks of the body and of the head"
    )
    heads: Annotated[list[Depth], Field(min_length=2, max_length=2)] = Field(
        [6, 16], description="attention heads of the body and of the head"
    )


class _Train(Section):
    steps: Steps = Field(description="optimiser steps")
    batch_size: Batch = Field(description="images a step")
    lr: Annotated[float, Field(gt=0, le=1e3)] = Field(description="peak learning rate")
    warmup: Annotated[int, Field(ge=0, le=10**8)] = Field(500, description="steps of linear warm-up")
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field([0.95, 0.999], description="of AdamW")
    ema: Share = Field(
        0.9999, description="largest decay of the running average of the weights, which is what is sampled"
    )
    weight_decay: Annotated[float, Field(ge=0, le=1e3)] = Field(1e-6, description="of AdamW")
    decay: Decay = Field("cosine", description="of the learning rate, after the warm-up")
    decay_from: Annotated[int, Field(ge=0, le=10**8)] = Field(
        0, description="the step at which it begins, if that is after the warm-up"
    )
    lr_last: Annotated[float, Field(ge=0, le=1e3)] = Field(0.0, description="learning rate at the end")
    precision: Precision = Field("auto", description="`auto`: bf16 on a GPU that has it")
    micro_batch_size: Batch | None = Field(
        None, description="images that a device takes at a time, to save memory; changes no result"
    )
    flip: bool = Field(False, description="mirror half the images")
    label_dropout: Share = Field(0.1, description="share of labels that are hidden")
    optimizer: Optimizer = Field("adamw", description="adamw, or muon for the hidden layers' matrices")
    project: bool = Field(True, description="the loss on the support of the noise; false: the paper's literal loss")
    compile: bool = Field(False, description="torch.compile the network")
    repeats: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="runs, from seed, seed + 1, ..., for the standard error"
    )
    snapshots: (
        Annotated[int, Field(ge=1, le=1000)]
        | Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=1000), AfterValidator(_rising)]
    ) = Field(
        1,
        description="checkpoints of a run that are sampled and measured, evenly spaced, the last among them; or the "
        "shares of the training at which, such as [0.25, 0.5], the end is added",
    )
    schedule: Annotated[str, _named(formulations.families)] = Field(
        "linear", description="linear, zero_terminal_snr (needs v and sample.spacing trailing), flow, edm"
    )
    prediction: str = Field("eps", description="eps or v; under flow velocity, under edm x0")
    unet: UNet | None = Field(None, description="the network")
    dit: DiT | None = Field(None, description="or this one; the other is left out, or null")

    @model_validator(mode="after")
    def _check(self):
        if (self.unet is None) == (self.dit is None):
            raise ValueError("one of unet and dit describes the network, and the other is left out (or null)")
        if len({0, *self.earlier, self.steps}) < len(self.earlier) + 2:
            raise ValueError(f"snapshots is {self.snapshots}; there are {self.steps} steps")
        self.formulation((1, 8, 8))
        return self

    @property
    def earlier(self) -> list[int]:
        """The steps of the snapshots before the last."""
        if isinstance(self.snapshots, list):
            return [round(self.steps * share) for share in self.snapshots]
        return [self.steps * k // self.snapshots for k in range(1, self.snapshots)]

    @property
    def checkpoints(self) -> int:
        """How many networks of a run are sampled and measured."""
        return len(self.earlier) + 1

    @property
    def architecture(self) -> UNet | DiT:
        """Of unet and dit the one that is given."""
        found = self.unet or self.dit
        assert found is not None  # by _check
        return found

    def formulation(self, shape: tuple[int, ...]) -> Formulation:
        """The formulation of these keys, for data of a shape (C, H, W)."""
        section = getattr(self, self.schedule, None)
        arguments = section.model_dump() if section is not None else {}
        return formulations.build(self.schedule, self.prediction, shape, arguments)

    def network(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """The network, with the initial weights of a seed, for data of a shape (C, H, W) and a number of labels."""
        channels, height, width = shape
        where = "train.unet" if self.dit is None else "train.dit"
        with naming(where, UNet if self.dit is None else DiT), seeded(seed, "weights"):
            if self.dit is not None:
                return dit((height, width), channels, classes, **self.dit.model_dump())
            assert self.unet is not None  # by _check
            return unet((height, width), channels, **self.unet.model_dump(), classes=classes)

    def recipe(self) -> Recipe:
        """How to optimise."""
        taken = {f.name for f in fields(Recipe)}
        given = {k: v for k, v in self.model_dump().items() if k in taken}
        return Recipe(**given | {"betas": tuple(self.betas)})


def _formulation_sections() -> dict[str, tuple]:
    """A section for each formulation that has arguments, such as ``train.flow``."""
    found = {}
    for name, family in formulations.families().items():
        keys = _keys([family.build], {"prediction", "shape"})
        if keys:
            section: Any = create_model(name.title(), __base__=Section, **keys)  # type: ignore[call-overload]
            found[name] = (section, Field(section(), description=f"arguments of schedule {name}"))
    return found


if TYPE_CHECKING:

    class Train(_Train): ...

else:
    Train = create_model("Train", __base__=_Train, __doc__="How networks are trained.", **_formulation_sections())


class Sample(Section):
    """How samples are drawn."""

    n: Images = Field(description="samples for each seed")
    earlier: Annotated[int, Field(ge=0, le=10**8)] | None = Field(
        None, description="samples of each snapshot before the last (train.snapshots): by default n; 0: none are drawn"
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(description="steps of the sampler")
    spacing: Spacing = Field("leading", description="of a discrete schedule's steps; diffusers' default")
    start: Start = Field("noise", description="the paper's start; `marginal` adds the data's own share of x_T")
    sampler: SamplerName = Field("ddim", description=f"flow and edm are sampled by {' or '.join(ODE_SAMPLERS)}")
    eta: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="of ddim; 1 adds the noise of ddpm")
    clip: Literal["auto", "on", "off"] = Field(
        "auto", description="clipping of x0 to [-1, 1]; auto: on for clean images and noise of full support"
    )
    filtered: bool = Field(False, description="the plain remedy: the corrupted band is filtered out of the samples")
    batch_size: Batch = Field(32, description="samples that are drawn at a time")

    @model_validator(mode="after")
    def _check(self):
        self.settings(clip=False)
        return self

    def drawn(self, earlier: list[int]) -> dict[int | None, int]:
        """Number of samples of each snapshot: None is the last, 40 that of an earlier step."""
        n = self.n if self.earlier is None else self.earlier
        return {None: self.n} | {step: n for step in earlier if n}

    def settings(self, clip: bool) -> Sampler:
        """The sampler of these keys; ``clip`` has been decided."""
        return Sampler(self.sampler, self.steps, self.spacing, self.start, self.eta, clip)


def _features(name: str) -> str:
    if not name.endswith((".pt", ".onnx")) and name not in EXTRACTORS:
        raise ValueError(f"allowed: {', '.join(EXTRACTORS)}, or a file (.pt, .onnx)")
    return name


class Classifier(Section):
    """A small classifier, whose features `evaluate.features` can take (docs/measuring.md)."""

    dataset: Name | None = Field(
        None, description="one of `datasets` with labels, on whose training images it is trained; null: `dataset`"
    )
    features: Width = Field(Fit.features, description="dimensions of the features")
    epochs: Steps = Field(Fit.epochs, description="passes over the training images")
    batch_size: Batch = Field(Fit.batch_size, description="images a step")
    lr: Annotated[float, Field(gt=0, le=1e3)] = Field(Fit.lr, description="peak learning rate of AdamW")
    seed: Seed = Field(Fit.seed, description="of its weights and the order of images")

    def how(self) -> Fit:
        """As the library takes it."""
        return Fit(**self.model_dump(exclude={"dataset"}))


def _measures() -> list[str]:
    return [*METRICS, DENOISING]


class Evaluate(Section):
    """How samples are measured."""

    features: Annotated[str, AfterValidator(os.path.expanduser), AfterValidator(_features)] = Field(
        description="the network whose features are compared (docs/measuring.md), or a .pt or .onnx file"
    )
    metrics: Annotated[list[Annotated[str, _named(_measures, own=True)]], Field(min_length=1, max_length=100)] = Field(
        ["fid", "kid"],
        description="fid, kid, prdc, fid_infinity, sliced, denoising (of the networks: their error on held-out images, "
        "ring by ring), or your own `mine.py:function`",
    )
    bootstrap: Annotated[int, Field(ge=2, le=10**6)] = Field(
        50, description="resamples, for the standard error over samples"
    )
    reference: Place | None = Field(
        None, description="an npz file with mu and sigma, such as ADM's reference batch, as a second reference"
    )

    @property
    def of_samples(self) -> list[str]:
        """The metrics that compare samples with images."""
        return [metric for metric in self.metrics if metric != DENOISING]


class GridSetting(Section):
    """One setting of the grid: its noise and its corruption, and where else it differs from the study, how.

    ``seeds`` take the place of `seed` and `train.repeats`, ``variants`` are added to the grid's. ``encode``, ``train``,
    ``sample`` and ``evaluate`` give whole keys that replace those of the sections of these names: a ``unet`` replaces
    the other one. In a study of several data sets (`datasets`) each setting names its own, and the group that it is
    compared within.
    """

    dataset: Name | None = None
    group: Name | None = None
    seeds: Seeds | None = None
    noise: Noise
    corrupt: Corrupt = Corrupt()
    encode: dict[str, Any] = {}
    train: dict[str, Any] = {}
    sample: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    variants: dict[Name, dict[str, Any]] = {}


class Grid(Section):
    """What the focus is compared with."""

    variants: dict[Name, dict[str, Any]] = Field(
        {}, description="other ways to sample the same networks, such as `marginal: {start: marginal}`"
    )
    settings: dict[Name, GridSetting] = Field(
        description="name to noise, corrupt, and what else differs from the study"
    )


class Seeded(Section):
    """The seed of the first run."""

    seed: Seed


class Datasets(Section):
    """Data sets by name, for a study of several."""

    datasets: dict[Name, Dataset]


class Profile(Section):
    """The profile that a file was made from, if it was (`studies.plan`)."""

    profile: Name | None


SECTIONS: dict[str, type[Section]] = {
    "dataset": Dataset,
    "noise": Noise,
    "corrupt": Corrupt,
    "encode": Encode,
    "classifier": Classifier,
    "train": Train,
    "sample": Sample,
    "evaluate": Evaluate,
}

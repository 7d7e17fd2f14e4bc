"""params.yaml as typed objects: unknown keys, wrong types and values out of range are refused in one line."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from sagd.errors import InputError

FILE = Path("params.yaml")


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("every seed may stand once")
    return seeds


def _ordered(band: list[float]) -> list[float]:
    if not 0 <= band[0] < band[1]:
        raise ValueError("a band is [low, high] with 0 <= low < high")
    return band


def _exponent(alpha: object) -> float | str:
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool) and math.isfinite(alpha)
    if not (number or alpha == "auto"):
        raise ValueError("it must be a finite number, or auto")
    return alpha


Exponent = Annotated[Any, AfterValidator(_exponent)]
Band = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]  # "__" parts a setting from its variant
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A mapping of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Dataset(Section):
    name: Literal[
        "mnist_5k", "mnist", "cifar10", "quickdraw", "wikiart", "ffhq", "celeba", "imagenet", "folder", "huggingface"
    ]
    path: str | None = None
    size: Annotated[int, Field(ge=2)]
    channels: Literal[1, 3] | None = None
    held_out: Annotated[int, Field(ge=2)]
    split_seed: Seed = 0
    labels: bool = False


class Noise(Section):
    operator: Literal[
        "isotropic", "power_law", "band_pass", "two_band", "exponential", "offset", "equal_snr", "data_matched"
    ] = "isotropic"
    alpha: Exponent = 0.0
    schedule: Literal["constant", "varying"] = "constant"
    alpha_last: float = 0.0
    beta: float = 1.0
    gain: Annotated[float, Field(gt=0)] = 1.0
    strength: Annotated[float, Field(ge=0)] = 0.1
    band: Band = [0.0, 1.0]
    gamma_low: Annotated[float, Field(ge=0, le=1)] = 0.5
    low: Band = [0.0, 0.5]
    high: Band = [0.5, 1.0]
    bands: Literal["joint", "per_band"] = "joint"
    units: Literal["corner", "nyquist", "cycles"] = "corner"
    grid: Literal["fftfreq", "linspace"] = "fftfreq"
    dc: Literal["lowest", "floor"] = "lowest"
    normalize: Literal["expected", "sample", "none"] = "expected"

    @model_validator(mode="after")
    def _varying(self):
        if self.schedule == "varying" and (self.operator != "power_law" or self.alpha == "auto"):
            raise ValueError("schedule varying is for operator power_law, from a number alpha to alpha_last")
        if self.schedule == "varying" and self.normalize != "expected":
            raise ValueError("schedule varying is for normalize expected")
        return self

    def spectrum(self, power, alpha_bar, alpha: float | None = None):
        """The `sagd.Spectrum` (or `Varying`) that this section describes.

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
            alpha = self.alpha if alpha is None else alpha
            constant = self._spectrum(power, alpha)
            if self.schedule == "constant":
                return constant
            from sagd import Varying

            return Varying(constant, self._spectrum(power, self.alpha_last), alpha_bar)
        except InputError as error:
            raise InputError(f"{FILE}: noise: {error}") from None

    def _spectrum(self, power, alpha: float):
        from sagd import spectrum

        size = tuple(power.shape)
        shared = {"grid": self.grid, "normalize": self.normalize}
        if self.operator == "isotropic":
            return spectrum.isotropic(size, self.gain, normalize=self.normalize)
        if self.operator == "power_law":
            return spectrum.power_law(size, alpha, dc=self.dc, **shared)
        if self.operator == "band_pass":
            return spectrum.band_pass(size, *self.band, units=self.units, **shared)
        if self.operator == "two_band":
            edges = {"low": tuple(self.low), "high": tuple(self.high), "bands": self.bands, "units": self.units}
            return spectrum.two_band(size, self.gamma_low, **edges, **shared)
        if self.operator == "offset":
            return spectrum.offset(size, self.strength, normalize=self.normalize)
        if self.operator == "exponential":
            return spectrum.exponential(size, self.beta, **shared)
        return spectrum.OPERATORS[self.operator](size, power, normalize=self.normalize)


class Corrupt(Section):
    band: Band | None = None
    gamma: Annotated[float, Field(ge=0)] = 1.0
    units: Literal["corner", "nyquist", "cycles"] = "corner"
    filtered: bool = False

    @model_validator(mode="after")
    def _of_a_band(self):
        if self.filtered and self.band is None:
            raise ValueError("filtered takes a band out of the training images, and needs corrupt.band")
        return self


class Encode(Section):
    kind: Literal["pixel", "rae", "vae"] = "pixel"
    path: str | None = None
    on_the_fly: bool = False
    flips: bool = False
    dtype: Literal["float16", "bfloat16"] = "float16"
    per_shard: Positive = 1024
    batch_size: Positive = 64

    @model_validator(mode="after")
    def _of_an_autoencoder(self):
        if self.kind != "pixel" and self.path is None:
            raise ValueError(f"kind {self.kind} needs encode.path, the autoencoder's folder or its name on the hub")
        if self.on_the_fly and (self.kind == "pixel" or self.flips):
            raise ValueError("on_the_fly is for rae and vae, and needs no flips: it mirrors images, not latents")
        return self


class UNet(Section):
    widths: Annotated[list[Positive], Field(min_length=1)]
    layers: Positive
    attention: list[bool]
    groups: Positive


class DiT(Section):
    patch: Positive = 1
    widths: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [384, 2048]
    depths: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [12, 2]
    heads: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [6, 16]


class FlowTimes(Section):
    times: Literal["uniform", "logit_normal"] = "uniform"
    shift: Annotated[float, Field(gt=0)] | Literal["auto"] = 1.0


class Levels(Section):
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    log_mean: float = -1.2
    log_std: Annotated[float, Field(gt=0)] = 1.2
    sigma_min: Annotated[float, Field(gt=0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0)] = 80.0
    rho: Annotated[float, Field(gt=0)] = 7.0


# What networks predict under each schedule.
PREDICTS = {"linear": ("eps", "v"), "zero_terminal_snr": ("v",), "flow": ("velocity",), "edm": ("x0",)}


class Train(Section):
    steps: Positive
    batch_size: Positive
    lr: Annotated[float, Field(gt=0)]
    warmup: Annotated[int, Field(ge=0)] = 500
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.95, 0.999]
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    decay: Literal["cosine", "linear"] = "cosine"
    decay_from: Annotated[int, Field(ge=0)] = 0
    lr_last: Annotated[float, Field(ge=0)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    micro_batch_size: Positive | None = None
    flip: bool = False
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    compile: bool = False
    repeats: Positive = 1
    snapshots: Positive = 1
    schedule: Literal["linear", "zero_terminal_snr", "flow", "edm"] = "linear"
    prediction: Literal["eps", "v", "velocity", "x0"] = "eps"
    flow: FlowTimes = FlowTimes()
    edm: Levels = Levels()
    unet: UNet | None = None
    dit: DiT | None = None

    @model_validator(mode="after")
    def _possible(self):
        if self.prediction not in PREDICTS[self.schedule]:
            raise ValueError(
                f"schedule {self.schedule} is for prediction {' or '.join(PREDICTS[self.schedule])}"
                + (": at its end an eps says nothing of x0" if self.schedule == "zero_terminal_snr" else "")
            )
        if (self.unet is None) == (self.dit is None):
            raise ValueError("one of unet and dit describes the network, and the other is left out (or null)")
        if self.snapshots > self.steps:
            raise ValueError(f"snapshots is {self.snapshots}; there are {self.steps} steps")
        return self

    def formulation(self, shape: tuple[int, ...]):
        """The `sagd.diffusion.Formulation` of these keys, for data of a shape (C, H, W)."""
        if self.schedule == "flow":
            from sagd.flow import Flow, dimension_shift

            return Flow(self.flow.times, dimension_shift(shape) if self.flow.shift == "auto" else self.flow.shift)
        if self.schedule == "edm":
            from sagd.edm import EDM

            return EDM(**self.edm.model_dump())
        from sagd.diffusion import Diffusion, Schedule

        return Diffusion(Schedule.named(self.schedule), self.prediction)


class Sample(Section):
    n: Positive
    steps: Annotated[int, Field(ge=1, le=1000)]
    spacing: Literal["leading", "trailing"] = "leading"
    start: Literal["noise", "marginal"] = "noise"
    sampler: Literal["ddim", "ddpm", "euler", "heun"] = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip: Literal["auto", "on", "off"] = "auto"
    filtered: bool = False
    batch_size: Positive = 32


class Evaluate(Section):
    features: str
    metrics: Annotated[list[Literal["fid", "kid", "prdc", "fid_infinity"]], Field(min_length=1)] = ["fid", "kid"]
    bootstrap: Annotated[int, Field(ge=2)] = 50
    reference: str | None = None


class GridTrain(Train):
    """The grid's runs are named by grid.seeds."""

    @model_validator(mode="after")
    def _no_repeats(self):
        if "repeats" in self.model_fields_set:
            raise ValueError("repeats has no meaning here; grid.seeds names the runs")
        return self


class GridSetting(Section):
    """What is trained: a noise, on data, and where it is trained in another way than the rest, how.

    ``encode``, ``train``, ``sample`` and ``evaluate`` give whole keys that replace those of the grid (of the sections
    of those names, for ``encode`` and ``evaluate``): a ``unet`` replaces the other one.
    In a study of several data sets (`datasets`) each setting names its own, and the group that it is compared within.
    """

    dataset: Name | None = None
    group: Name | None = None
    noise: Noise
    corrupt: Corrupt = Corrupt()
    encode: dict[str, Any] = {}
    train: dict[str, Any] = {}
    sample: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}


class Grid(Section):
    """``variants`` are ways to draw samples of the same networks, each what it changes of ``sample``."""

    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
    train: GridTrain
    sample: Sample
    variants: dict[Name, dict[str, Any]] = {}
    settings: dict[Name, GridSetting]


class Profile(Section):
    profile: Name | None


SECTIONS = {
    "dataset": Dataset,
    "noise": Noise,
    "corrupt": Corrupt,
    "encode": Encode,
    "train": Train,
    "sample": Sample,
    "evaluate": Evaluate,
}


@dataclass(frozen=True)
class Setting:
    """One setting of the study: the focus (name None) or an entry of the grid, and where its files are.

    A section is checked when it is first asked for, so a stage checks only what it uses.
    """

    name: str | None
    section: Callable[[str], Any]
    variant: str | None = None
    group: str | None = None
    prepared: Path = Path("artifacts", "prepare")
    profile: str | None = None

    @property
    def seeds(self) -> list[int]:
        return self.section("seeds")

    @property
    def noise(self) -> Noise:
        return self.section("noise")

    @property
    def corrupt(self) -> Corrupt:
        return self.section("corrupt")

    @property
    def encode(self) -> Encode:
        return self.section("encode")

    @property
    def train(self) -> Train:
        return self.section("train")

    @property
    def sample(self) -> Sample:
        return self.section("sample")

    @property
    def evaluate(self) -> Evaluate:
        return self.section("evaluate")

    def data_sha256(self) -> str:
        """What tells the prepared images from others: a hash of what `prepare` says of them."""
        return hashlib.sha256(_read(Path("reports", *self.prepared.parts[1:]).with_suffix(".json"))).hexdigest()

    def labels(self):
        """Of the training images, (N,), int64; None where `dataset.labels` does not ask for them."""
        from sagd.files import read_array

        path = self.prepared / "labels.npy"
        return read_array(path) if path.exists() else None

    def artifacts(self, stage: str) -> Path:
        """The folder of a stage's large files."""
        if self.name is None:
            return Path("artifacts", stage)
        if self.group is None:
            return Path("artifacts", "grid", stage, "__".join(self._parts(stage)))
        return Path("artifacts", self.profile or "grid", stage, self.group, *self._parts(stage))

    def report(self, stage: str, ending: str) -> Path:
        """A small file of a stage, kept in git."""
        if self.name is None:
            return Path("reports", f"{stage}.{ending}")
        if self.group is None:
            return Path("reports", "grid", stage, f"{'__'.join(self._parts(stage))}.{ending}")
        return Path("reports", self.profile or "grid", stage, self.group, *self._parts(stage), f"{stage}.{ending}")

    def _parts(self, stage: str) -> list[str]:
        """Variants differ from `sample` on; before it they are one."""
        return [self.name, self.variant] if self.variant and stage in ("sample", "evaluate") else [self.name]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.variant}" if self.variant else self.name or "focus"


@dataclass(frozen=True)
class Params:
    """params.yaml, read once."""

    raw: dict

    @property
    def profile(self) -> str | None:
        """The name of the profile that the file was made from, if it was (`pipeline.plan`)."""
        return _parse(Profile, {"profile": self.raw.get("profile")}, "profile").profile

    def dataset(self, name: str | None) -> Dataset:
        """An entry of `datasets`, or (None) the one `dataset`."""
        if name is None:
            return self.section("dataset")
        datasets = self.raw.get("datasets") or {}
        if name not in datasets:
            raise InputError(f"{FILE}: no data set {name!r} in datasets; there are {', '.join(datasets) or 'none'}")
        return _parse(Dataset, datasets[name], f"datasets.{name}")

    def prepared(self, name: str | None) -> Path:
        """Where `prepare` puts a data set."""
        return Path("artifacts", self.profile or "", "prepare", name or "")

    def section(self, name: str) -> Any:
        """A checked top-level section, such as `dataset`; ``seeds`` are those of the focus."""
        if name != "seeds":
            return _parse(SECTIONS[name], self.raw.get(name), name)
        seed = self.raw.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"{FILE}: seed is {seed!r}; it must be an integer, 0 or more")
        return [seed + k for k in range(self.section("train").repeats)]

    @property
    def settings(self) -> list[Setting]:
        """The grid's settings, in the order of the file."""
        grid = _parse(Grid, self.raw.get("grid"), "grid")
        return [self._of_grid(grid, name, s) for name, s in grid.settings.items()]

    def _of_grid(self, grid: Grid, name: str, s: GridSetting) -> Setting:
        """A setting of the grid: the grid's sections, and what the setting changes of them."""
        common = {
            "train": lambda: grid.train.model_dump(exclude={"repeats"}),
            "sample": grid.sample.model_dump,
            "encode": lambda: self.section("encode").model_dump(),
            "evaluate": lambda: self.section("evaluate").model_dump(),
        }
        models = {**SECTIONS, "train": GridTrain}

        def section(which: str) -> Any:
            if which in common:
                if changes := getattr(s, which):
                    return _parse(models[which], common[which]() | changes, f"grid.settings.{name}.{which}")
                return getattr(grid, which) if which in ("train", "sample") else self.section(which)
            return grid.seeds if which == "seeds" else getattr(s, which)

        for which in ("train", "sample"):
            section(which)  # refused at once, as the rest of the grid is
        return Setting(name, section, group=s.group, prepared=self.prepared(s.dataset), profile=self.profile)

    @property
    def all_settings(self) -> list[Setting]:
        """The focus, if the file has any section of it, then the grid."""
        focus = {"seed", "noise", "corrupt", "train", "sample"} & set(self.raw)
        return [self.setting(None), *self.settings] if focus else self.settings

    @property
    def drawn(self) -> list[Setting]:
        """Everything that is sampled and measured: the focus, then the grid's settings with their variants."""
        return [variant for setting in self.all_settings for variant in self.variants(setting)]

    def variants(self, setting: Setting) -> list[Setting]:
        """A setting of the grid, and the same networks sampled in the grid's other ways; the focus has none."""
        if setting.name is None:
            return [setting]
        grid = _parse(Grid, self.raw.get("grid"), "grid")
        found = [setting]
        for name, changes in grid.variants.items():
            sample = _parse(Sample, setting.sample.model_dump() | changes, f"grid.variants.{name}")
            found.append(replace(setting, section=_with_sample(setting, sample), variant=name))
        return found

    def chosen(self, options) -> list[Setting]:
        """The settings that a command line asks for: the grid's, those of a group, one of them, or the focus."""
        if getattr(options, "grid", False):
            return self.settings
        name = getattr(options, "setting", None)
        group = [s for s in self.settings if s.group == name] if name else []
        return group or [self.setting(name)]

    def setting(self, name: str | None) -> Setting:
        """The focus (None), or a setting of the grid."""
        if name is None:
            return Setting(None, self.section)
        for setting in self.settings:
            if setting.name == name:
                return setting
        raise InputError(f"no setting {name!r} in grid.settings; there are {', '.join(s.name for s in self.settings)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _with_sample(setting: Setting, sample: Sample) -> Callable[[str], Any]:
    return lambda which: sample if which == "sample" else setting.section(which)


def load() -> Params:
    """Read params.yaml from the working directory."""
    try:
        # Not PyYAML: DVC writes 1e-5 as 1e-05, which YAML 1.1 reads as a string.
        raw = YAML(typ="safe", pure=True).load(FILE.read_bytes())
    except (OSError, YAMLError) as error:
        raise InputError(f"cannot read {FILE}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{FILE} must be a mapping of sections")
    known = {"seed", "grid", "profile", "datasets", *SECTIONS}
    for key in raw:
        if key not in known:
            raise InputError(f"{FILE}: unknown section {key!r}; there are {', '.join(sorted(known))}")
    return Params(raw)


def _parse(model: type[Section], content: object, where: str) -> Section:
    try:
        return model.model_validate(content if content is not None else {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join([where, *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise InputError(f"{FILE}: unknown key {key}; {_known(model, first['loc'])}") from None
        if first["type"] == "missing":
            raise InputError(f"{FILE}: {key} is missing") from None
        kept = " (a value set with -S stays in the file; set it anew)" if "DVC_STAGE" in os.environ else ""
        raise InputError(f"{FILE}: {key} is {first['input']!r}: {message}{kept}") from None


def _known(model: type[Section], place: tuple) -> str:
    """The keys that are allowed where an unknown one stands, as far as they can be told."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return "it is not one of that section's keys"
        model = field.annotation
    return f"allowed: {', '.join(model.model_fields)}"

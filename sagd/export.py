"""A trained network, its noise and how to sample it, in one folder that others can use.

Where a scheduler of diffusers samples as the library does, the folder loads as a pipeline (`sagd.diffusers`). It is
written without diffusers, which takes seconds to import: its formats are a few lines of JSON.
"""

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagd.errors import InputError, shortened
from sagd.formulations.base import Formulation, Sampler, moments_of
from sagd.formulations.schedule import SCHEDULES, Schedule
from sagd.networks import weights
from sagd.noise import stored
from sagd.noise.base import Noise
from sagd.runtime.files import write_bytes, write_json, write_tensors

COMPONENTS = {  # of the folder, by the class of the network: its place, and the class that diffusers reads it with
    "UNet2DModel": ("unet", ["diffusers", "UNet2DModel"]),
    "DiTDH": ("transformer", ["sagd.diffusers.pipeline", "SAGDTransformer2DModel"]),
}
DIFFUSION = {"prediction", "alpha_bar_sha256", "times"}  # what is written of a discrete diffusion, and of no other
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}  # by diffusers' names
WITH_DIFFUSERS = """\
import diffusers, sagd.diffusers, torch

pipeline = diffusers.DiffusionPipeline.from_pretrained(FOLDER)
images = pipeline({call}, generator=torch.Generator().manual_seed(0)).images
"""
WITHOUT = """\
import sagd, torch
from pathlib import Path
from sagd.networks import weights
from sagd.noise import stored

network, noise = weights.load(Path(FOLDER, "{place}")), stored.load(Path(FOLDER, "noise.safetensors"))
predict = weights.predictor(network{labels})
{data}images = sagd.sample(
    predict, {formulation}, noise,
    {sampler},
    shape={shape}, generator=torch.Generator().manual_seed(0){given},
)
"""
SCHEDULE = """\
from sagd.runtime.files import read_tensors

SCHEDULE = Path(FOLDER, "schedule.safetensors")
"""
DATA = """\
from sagd.runtime.files import read_tensors

data = read_tensors(Path(FOLDER, "statistics.safetensors"))
"""


def save(
    folder: Path,
    network: nn.Module,
    formulation: Formulation,
    noise: Noise,
    sampler: Sampler,
    data: dict[str, Tensor],
    *,
    images: bool = True,
    description: str = "",
) -> None:
    """Write a folder: the network, its noise, README.md, and where diffusers can sample from it, a pipeline's files.

    Parameters
    ----------
    network
        Of `sagd.networks`; a U-Net goes to ``unet/``, in diffusers' own format, a transformer to ``transformer/``.
    formulation, noise
        What it was trained with; a `Diffusion`, `Flow` or `EDM`.
    sampler
        How it was sampled.
    data
        ``mean`` and ``power`` of `sagd.spaces.moments.statistics`, (C, H, W); their shape is that of what is drawn.
    images
        Whether it draws images in [-1, 1]; if not, such as latents, it is no pipeline.
    description
        What README.md says of data, settings and measurements, in Markdown; how to sample follows it.

    Raises
    ------
    InputError
        A formulation that no lines could be written for, such as colored steps, whose noise is not this one; another
        network than those of `sagd.networks`; what does not fit together. Then nothing is written.
    """
    folder, (mean, power) = Path(folder), moments_of(data)
    kind, shape = type(network).__name__, tuple(mean.shape)
    if kind not in COMPONENTS:
        raise InputError(f"the network is a {kind}; it must be one of {', '.join(COMPONENTS)}")
    formulation.check(noise, sampler)
    if len(shape) != 3 or power.shape != shape or shape[-len(noise.size) :] != noise.size:
        said = f"mean {shape}, power {tuple(power.shape)}"
        raise InputError(f"data has {said}; they must be (C, H, W), with noise of {noise.size}")
    channels = weights.described(network)["in_channels"]
    if channels != shape[0]:
        raise InputError(f"the network takes {channels} channels; the data have {shape[0]}")
    if formulation.alpha_bar is not None and formulation.to_dict().keys() != DIFFUSION:
        raise InputError(f"{type(formulation).__name__} can't be exported; save what it was made of")
    place, component = COMPONENTS[kind]
    config = scheduler(formulation, noise, sampler) if images else None
    how = _how(place, weights.classes_of(network), config, formulation, noise, sampler, shape)
    for file in _of_an_earlier_export(folder):
        file.unlink(missing_ok=True)
    weights.save(folder / place, network)
    stored.save(folder / "noise.safetensors", noise)
    if sampler.start == "marginal":
        write_tensors(folder / "statistics.safetensors", data)
    if formulation.alpha_bar is not None and _name(formulation.alpha_bar) is None:
        write_tensors(folder / "schedule.safetensors", {"alpha_bar": formulation.alpha_bar})
    if config is not None:
        write_json(folder / "scheduler" / "scheduler_config.json", config)
        nothing: dict[str, Any] = {"unet": [None, None], "transformer": [None, None]}
        shaped = ["sagd.diffusers.schedulers", config["_class_name"]]
        index = {"_class_name": "SAGDPipeline", **nothing, place: component, "scheduler": shaped}
        write_json(folder / "model_index.json", index)
    write_bytes(folder / "README.md", _card(place, config, how, noise, description).encode())


def _of_an_earlier_export(folder: Path) -> list[Path]:
    """Files that not every export writes: what is left of another one would be taken for this one's."""
    found = [folder / place / file for place, _ in COMPONENTS.values() for file in (weights.CONFIG, weights.WEIGHTS)]
    names = ("statistics.safetensors", "schedule.safetensors", "scheduler/scheduler_config.json", "model_index.json")
    return found + [folder / name for name in names]


def scheduler(formulation: Formulation, noise: Noise, sampler: Sampler) -> dict[str, Any] | None:
    """The configuration of the scheduler of `sagd.diffusers` that samples as the library does; None if none does."""
    if not noise.constant or sampler.start != "noise":
        return None
    what, spectrum = formulation.to_dict(), {"spectrum": noise.to_dict()}
    if what.get("formulation") == "flow" and sampler.name == "euler":
        return {"_class_name": "ShapedFlowMatchEulerDiscreteScheduler", "shift": float(what["shift"]), **spectrum}
    if formulation.alpha_bar is None or sampler.name not in ("ddim", "ddpm"):
        return None
    clips_and_projects = sampler.clip and not noise.full
    steps = len(formulation.alpha_bar)
    # Where the number of steps does not divide T, diffusers' stride ends beside the next step that it visits.
    if clips_and_projects or steps % sampler.steps:
        return None
    return {
        "_class_name": {"ddim": "ShapedDDIMScheduler", "ddpm": "ShapedDDPMScheduler"}[sampler.name],
        "num_train_timesteps": steps, **_betas(formulation.alpha_bar),
        "prediction_type": PREDICTIONS[what["prediction"]],
        "timestep_spacing": sampler.spacing, "clip_sample": sampler.clip, **spectrum,
    }  # fmt: skip


def _name(alpha_bar: Tensor) -> str | None:
    """Which schedule with the usual betas it is of, if it is one's."""
    named = {name: getattr(Schedule, name) for name in SCHEDULES if len(alpha_bar) > 1}
    return next((name for name, make in named.items() if torch.equal(make(len(alpha_bar)).alpha_bar, alpha_bar)), None)


def _betas(alpha_bar: Tensor) -> dict[str, Any]:
    """A schedule, as diffusers describes it."""
    name = _name(alpha_bar)
    if name is None:
        before = torch.cat([torch.ones(1, dtype=torch.float64, device="cpu"), alpha_bar[:-1]])
        return {"trained_betas": (1 - alpha_bar / before).tolist()}
    rescaled = name == "zero_terminal_snr"
    return {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "rescale_betas_zero_snr": rescaled}


def _how(
    place: str,
    classes: int,
    config: dict | None,
    formulation: Formulation,
    noise: Noise,
    sampler: Sampler,
    shape: tuple,
) -> str:
    """The lines that draw four images."""
    if config is not None:
        call = "class_labels=[0, 0, 0, 0]" if classes else "4"
        call += f", num_inference_steps={sampler.steps}" + (f", eta={sampler.eta:g}" if sampler.eta else "")
        return WITH_DIFFUSERS.format(call=call)
    said, alpha_bar = _code(formulation), formulation.alpha_bar
    data, given = (DATA, ", data=data") if sampler.start == "marginal" else ("", "")
    if alpha_bar is not None:
        name = _name(alpha_bar)
        schedule = f"Schedule.{name}({len(alpha_bar)})" if name else 'Schedule(read_tensors(SCHEDULE)["alpha_bar"])'
        said = f'sagd.Diffusion(sagd.{schedule}, "{formulation.to_dict()["prediction"]}")'
        data = data if name else SCHEDULE + data
    labels = ", torch.zeros(4, dtype=torch.int64)" if classes else ""
    return WITHOUT.format(
        place=place,
        labels=labels,
        formulation=said,
        sampler=_code(sampler),
        shape=(4, *shape),
        data=data,
        given=given,
    )


def _code(thing: Any) -> str:
    """The code that makes a dataclass of `sagd` anew, with the numbers of NumPy as Python's."""
    values = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
    return f"sagd.{type(thing).__name__}({', '.join(f'{key}={value!r}' for key, value in plain.items())})"


def _card(place: str, config: dict | None, how: str, noise: Noise, description: str) -> str:
    spectrum = json.dumps(noise.to_dict())
    loads = "the U-Net loads as `diffusers.UNet2DModel`, but " if place == "unet" else ""
    return f"""\
---
library_name: {"diffusers" if config else "sagd"}
tags: [sagd, shaped-noise]
---

{description.strip()}

## Sample

With FOLDER the path of this folder, and, in a clone of sagd, `pip install {"'.[diffusers]'" if config else "."}`:

```python
{how.strip()}
```

Elsewhere {loads}**the noise of this model is not white unless its weight is 1 everywhere**. The start, and all that
the steps of a stochastic sampler draw, must be F⁻¹(w F(ξ)) of white noise ξ: F is the discrete Fourier transform of a
channel, w the array `weight` in `noise.safetensors`, its zero frequency first. What is drawn from white noise is not
what was measured.

The noise: {code(spectrum if len(spectrum) <= 400 else spectrum[:400] + " ...")}
"""


def text(given: str) -> str:
    """A user's text as Markdown that shows it as it is: no HTML, no links, one line."""
    escaped = re.sub(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))", r"\\\1", shortened(given, 400))
    return html.escape(escaped, quote=False)


def code(given: str) -> str:
    """A text of one line as Markdown's code, whatever it contains."""
    fence = "`" * (1 + max(map(len, re.findall("`+", given)), default=0))
    space = " " if "`" in given else ""
    return f"{fence}{space}{given}{space}{fence}"

"""Put a setting's first network into a folder for others, with noise, scheduler, and a card that says what it is."""

import argparse
import json
import shutil

from pipeline.params import Params, Setting
from pipeline.run.console import stage
from pipeline.sample import sampler_of
from sagd import export
from sagd.networks import weights
from sagd.noise import corruption
from sagd.operators import from_dict
from sagd.runtime.files import read_json
from sagd.spaces import moments

SECTIONS = ("noise", "corrupt", "encode", "train", "sample")


def main(params: Params, options: argparse.Namespace) -> None:
    for setting in params.chosen(options):
        folder, encoded = setting.artifacts("export"), setting.artifacts("encode")
        data = moments.read(encoded / "statistics.safetensors")
        noise = from_dict(read_json(setting.report("encode", "json"))["noise"])
        corrupts = corruption.load(setting.artifacts("corrupt") / "corruption.safetensors")
        formulation = setting.train.formulation(tuple(data["mean"].shape))
        shutil.rmtree(folder, ignore_errors=True)
        export.save(
            folder, weights.load(setting.artifacts("train") / f"seed_{setting.seeds[0]}"),
            formulation, noise, sampler_of(setting, formulation, noise, corrupts), data,
            images=setting.encode.kind == "pixel" and not setting.encode.centre, description=card(setting),
        )  # fmt: skip


def card(setting: Setting) -> str:
    """What is known of a setting: its data, its settings, what was measured."""
    prepared, measured = read_json(setting.prepared_record), read_json(setting.report("evaluate", "json"))
    size = "x".join(map(str, prepared["shape"]))
    settings = {name: getattr(setting, name).model_dump(exclude_unset=True) for name in SECTIONS}
    rows = [
        f"| {name} | {value:.4g} | {_number(measured[f'{name}_se'], 2)} | {_number(measured.get(f'{name}_of_real'))} |"
        for name, value in measured.items() if f"{name}_se" in measured and not name.startswith("pixels")
    ]  # fmt: skip
    draws = "images" if setting.encode.kind == "pixel" else f"latents of {setting.encode.kind}, to be decoded"
    return f"""\
# {setting.title}: a diffusion model with shaped noise

Trained with sagd ([arXiv 2510.09660](https://arxiv.org/abs/2510.09660)) on {prepared["train"]:,} images of {size}
(channels, height, width). It draws {draws}. The network is that of seed {setting.seeds[0]}.

Data: {prepared["source"]}

## Measurements

Means over {measured["seeds"]} seeds, {measured["samples_per_seed"]:,} samples each, against {measured["held_out"]:,}
held-out images. The error is a standard error over the seeds, the floor is the value of as many real images. `fid` and
`kid` are on Inception's features, `fd` and `kd` on those of another network, which the name says.

| metric | value | error | floor |
| --- | --- | --- | --- |
{chr(10).join(rows)}

## Settings

```json
{json.dumps(settings, indent=1)}
```
"""


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}g}"  # one seed has no error


if __name__ == "__main__":
    stage(main)

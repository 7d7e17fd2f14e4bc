"""Put a setting's first network into a folder for others, with noise, scheduler, and a card that says what it is."""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pipeline.params import Params, Setting
from pipeline.run.console import stage
from pipeline.sample import sampler_of
from sagd import export
from sagd.operators import from_dict
from sagd.runtime.files import read_json

MOST = 100  # names of classes that the card holds
SECTIONS = ("noise", "corrupt", "encode", "train", "sample")


def main(params: Params, options: argparse.Namespace) -> None:
    for setting in params.chosen(options):
        folder, data = setting.artifacts("export"), setting.statistics()
        noise = from_dict(read_json(setting.report("encode", "json"))["noise"])
        corrupts = setting.corruption()
        formulation = setting.train.formulation(tuple(data["mean"].shape))
        shutil.rmtree(folder, ignore_errors=True)
        export.save(
            folder, setting.network(setting.seeds[0]),
            formulation, noise, sampler_of(setting, formulation, noise, corrupts), data,
            images=setting.encode.kind == "pixel" and not setting.encode.centre, description=card(setting),
        )  # fmt: skip


def card(setting: Setting) -> str:
    """What is known of a setting: its data, its settings, what was measured."""
    prepared, measured = read_json(setting.prepared.record), read_json(setting.report("evaluate", "json"))
    size = "x".join(map(str, prepared["shape"]))
    settings = {name: _without_folders(getattr(setting, name).model_dump(exclude_unset=True)) for name in SECTIONS}
    rows = []
    for name, value in measured.items():
        if f"{name}_se" in measured and not name.startswith("pixels"):
            error, floor = _number(measured[f"{name}_se"], 2), _number(measured.get(f"{name}_of_real"))
            rows.append(f"| {export.text(name)} | {value:.4g} | {error} | {floor} |")
    draws = "images" if setting.encode.kind == "pixel" else f"latents of {setting.encode.kind}, to be decoded"
    return f"""\
# {export.text(setting.title)}: a diffusion model with shaped noise

Trained with sagd ([arXiv 2510.09660](https://arxiv.org/abs/2510.09660)) on {prepared["train"]:,} images of {size}
(channels, height, width). It draws {draws}. The network is that of seed {setting.seeds[0]}.

Data: {export.text(_named(prepared["source"]))}
{_classes(prepared)}
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


def _named(source: str) -> str:
    """What `prepare` says of the data, without the folders of this machine."""
    name, _, where = source.partition(": ")
    if name == "huggingface" and not _is_local(where):
        return source
    if ":" not in name and name not in ("folder", "huggingface"):  # a set by name, and no reader of the user's
        return name if Path(where).name != where else source
    return f"{name}: {Path(where).name}" if where else source


def _is_local(where: str) -> bool:
    """Whether it is a path of this machine, and no name on the hub."""
    return where.startswith(("/", "~", ".")) or os.path.exists(where)  # Path's refuses a long text


def _without_folders(content: Any) -> Any:
    """Settings whose paths of this machine are names alone."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_folders(value) for value in content]
    return Path(content).name if isinstance(content, str) and _is_local(content) else content


def _classes(prepared: dict) -> str:
    """What the labels stand for."""
    if "classes" not in prepared:
        return ""
    count, names = prepared["classes"], prepared.get("class_names", [])
    said = ", ".join(f"{k} {export.text(name)}" for k, name in enumerate(names[:MOST]))
    said += ", ..." if len(names) > MOST else ""
    return f"\nLabels: 0 to {count - 1}; {count} stands for none.{f' They are: {said}.' if said else ''}\n"


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}g}"  # one seed has no error


if __name__ == "__main__":
    stage(main)

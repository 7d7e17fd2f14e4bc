"""Look at a folder of images of your own, and write a params.yaml for it: python -m pipeline.new /data/pictures

The study compares shaped noise with white noise, both with the recipe that docs/recipe.md found best. On a CPU a few
real steps are timed, so that the study takes about an hour there.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from pipeline.params import Params
from pipeline.run import budget
from sagd.data import find
from sagd.data.pictures import Pictures
from sagd.errors import InputError, shortened
from sagd.runtime.distributed import World
from sagd.runtime.files import check_output, write_bytes

FEWEST = 20  # images: some to train on, some to compare with
LOOKED_AT = 200  # images, for their sizes and colours
SHOWN = 8  # classes by name
MINUTES = 60  # of a study on a CPU
SHARE = 0.8  # of them for the training
FILE = Path("params.yaml")
TEMPLATE = """\
# Images of your own: {source}. Written by python -m pipeline.new; all keys: docs/parameters.md.

seed: 0

dataset:
  name: folder
  path: {path}
  size: {size}
  channels: {channels}
  held_out: {held_out}

noise:
  operator: power_law
  alpha: 0.06           # a little into high frequencies: what docs/results.md advises to try

corrupt:
  band:                 # such as [0.4, 0.5], if the images have noise there

encode:
  kind: pixel

train:                  # flow matching: the best recipe of docs/recipe.md
  steps: {steps}
  batch_size: {batch_size}
  lr: {lr}
  warmup: {warmup}
  betas:
  - 0.9
  - 0.99
  ema: {ema}
  optimizer: muon
  flip: {flip}{flips}
  repeats: 2            # runs, from seed, seed + 1, ...
  schedule: flow
  prediction: velocity
  flow:
    times: logit_normal
  unet: {{widths: {widths}, layers: {layers}, attention: {attention}, groups: {groups}}}

sample:
  n: {n}
  steps: 13
  sampler: heun
  batch_size: {drawn_at_once}

evaluate:
  features: efficientnet_lite0  # comes with pip; for numbers beside others' papers inception_2048 (docs/measuring.md)
  metrics:
  - fid
  - kid
  - prdc

grid:
  settings:
    iso:
      noise: {{operator: isotropic}}
"""


def look(pictures: Pictures, size: int) -> tuple[list[str], bool]:
    """What is in a set of images, a line each, and whether they are grey."""
    count = len(pictures.names)
    rows = np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int).tolist()
    sides, grey, small = [], True, 0
    for k in rows:
        picture = pictures.at(k)[1]
        sides.append(picture.size)
        small += min(picture.size) < size
        if grey:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB").resize((32, 32))).astype(int), -1, 0)
            grey = max(abs(red - green).max(), abs(green - blue).max()) <= 2
    sides.sort(key=lambda side: side[0] * side[1])
    least, most = ("x".join(map(str, side)) for side in (sides[0], sides[-1]))
    of = "" if len(rows) == count else f" (of the {len(rows)} that were looked at)"
    lines = [
        f"{count} images, {'grey' if grey else 'in colour'}, "
        + (f"of {least} pixels{of}" if least == most else f"of {least} to {most} pixels{of}")
    ]
    if small:
        lines.append(
            f"{small} of {len(rows)} are smaller than {size}x{size}, and would be enlarged; --size is smaller?"
        )
    if pictures.classes is not None and (names := pictures.class_names()):
        each = Counter(pictures.labels().tolist())
        told = [f"{shortened(names[label], 40)} {each[label]}" for label in sorted(each)[:SHOWN]]
        more = ", ..." if len(names) > SHOWN else ""
        lines.append(f"{len(names)} sub-folders, which can be labels (dataset.labels): {', '.join(told)}{more}")
    return lines, grey


def chosen(count: int, size: int, grey: bool, gpu: bool) -> dict[str, Any]:
    """Sizes of the network, the training and the comparison; steps are those of a GPU's night."""
    held_out = min(1000, max(count // 5, 6))
    least = 8 if gpu else 16  # pixels of the smallest level
    levels = 1
    while levels < 5 and size % 2**levels == 0 and size // 2**levels >= (8 if levels == 1 else least):
        levels += 1
    batch_size = min(64 if gpu else 16, count - held_out)
    found: dict[str, Any] = {"held_out": held_out, "channels": 1 if grey else 3, "size": size, "batch_size": batch_size}
    # Letters and digits change their meaning in a mirror, photographs do not.
    found |= {"flip": str(not grey).lower(), "flips": "" if grey else "            # mirror half the images"}
    if gpu:
        widths = ([64, 128] + [256] * 3)[:levels]
        attention = [size // 2**k <= 16 for k in range(levels)]
        found |= {"steps": 100_000, "lr": 0.0002, "warmup": 1000, "ema": 0.9999, "layers": 2, "groups": 32}
    else:
        widths, attention = [16, 32, 64, 64, 64][:levels], [False] * levels
        found |= {"steps": 1000, "lr": 0.003, "warmup": 100, "ema": 0.99, "layers": 1, "groups": 8}
    found |= {"widths": widths, "attention": str(attention).lower()}
    n = min(2000 if gpu else 200, count - held_out)
    return found | {"n": n, "drawn_at_once": min(250 if gpu else 50, n)}


def params_of(values: dict[str, Any]) -> tuple[str, Params]:
    """The file with these values, and what it says."""
    text = TEMPLATE.format(**values)
    params = Params(YAML(typ="safe").load(text))
    params.check()
    return text, params


def timed(values: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The values with as many steps as fit, and the minutes of training and sampling, by a few real steps here."""
    _, params = params_of(values)
    setting, settings = params.setting(None), len(params.all_settings)
    step, sampling = budget.seconds(setting, (values["channels"], values["size"], values["size"]))
    runs = settings * len(setting.seeds)
    left = SHARE * 60 * MINUTES - settings * sampling
    steps = int(max(left, 0.2 * 60 * MINUTES) / (runs * step))
    steps = max(100, min(round(steps, -2), 20_000))
    values = values | {"steps": steps, "warmup": min(values["warmup"], steps // 4)}
    return values, (runs * steps * step + settings * sampling) / 60


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.new", description=__doc__)
    parser.add_argument("path", help="a folder of images, or a zip file of them")
    parser.add_argument("--size", type=int, default=64, help="side to which the images are cropped and resized")
    parser.add_argument(
        "--for",
        dest="device",
        choices=["cpu", "gpu"],
        help="an hour of a CPU, or a night of a GPU; by default what is here",
    )
    parser.add_argument("--yes", action="store_true", help="replace a params.yaml that is there without asking")
    options = parser.parse_args(arguments)
    try:
        write(options)
    except InputError as error:
        sys.exit(f"new: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def write(options: argparse.Namespace) -> None:
    if not 8 <= options.size <= 1024:
        raise InputError(f"--size is {options.size}; allowed: 8 to 1024")
    if not options.path.strip():  # which would be the folder of the study
        raise InputError(
            "no folder is named: make images DATA=/data/pictures, or python -m pipeline.new /data/pictures"
        )
    there = FILE.exists() and not options.yes
    if there and not sys.stdin.isatty():
        raise InputError(f"{FILE} is there; --yes replaces it")
    check_output("what is written", FILE)
    path = Path(options.path).expanduser().absolute()
    pictures = find("folder", str(path), options.size)
    count = len(pictures.names)
    if count < FEWEST:
        raise InputError(f"{path} has {count} images; {FEWEST} or more are needed")
    lines, grey = look(pictures, options.size)
    print("\n".join(lines))
    here = World().device.type != "cpu"
    gpu = options.device == "gpu" if options.device else here
    values = chosen(count, options.size, grey, gpu)
    values |= {"path": quoted(path), "source": f"{count} of {shortened(path.name, 60)}"}
    how_long = "`python -m pipeline.train --dry` says for how long, on the machine that is to run it"
    if not gpu:
        print("timing a few steps ...", flush=True)
        values, minutes = timed(values)
        how_long = f"about {minutes:.0f} minutes on this machine, if it does nothing else"
    text, _ = params_of(values)
    if there and input(f"{FILE} is there. Replace it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError(f"{FILE} is as it was")
    write_bytes(FILE, text.encode())
    print(f"{FILE} is written: white noise and alpha 0.06, two seeds each, {values['steps']:,} steps of training.")
    print(f"Next: dvc repro ({how_long}), then open reports/index.html")


def quoted(path: Path) -> str:
    """A path as YAML, whatever signs it holds."""
    return json.dumps(os.fspath(path), ensure_ascii=False)


if __name__ == "__main__":
    main()

"""What to train pictures of 64x64 with on a CPU: the recipe that `python -m pipeline.new` writes, one choice changed.

Kernel distance (EfficientNet-Lite0) of 500 samples to 1,000 held-out pictures. Every row sees as many pictures; the
speed is that of training, both seeds side by side. Print it as the table of docs/recipe.md.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

import sagd
from benchmarks.recipes import LINEAR, Trial, run
from sagd.data import find
from sagd.data.prepare import square
from sagd.formulations.flow import dimension_shift
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.kernel import kernel_distance
from sagd.runtime.files import scratch
from sagd.training.recipe import Recipe

HELD_OUT, SEEN = 1000, 3200  # pictures


def trials(size: int, seen: int) -> dict[str, Trial]:
    """Every row of the table, by its name."""
    steps = seen // 16
    recipe = Recipe(
        steps=steps, batch_size=16, lr=0.003, warmup=min(100, steps // 4), betas=(0.9, 0.99), ema=0.99,
        optimizer="muon", flip=True,
    )  # fmt: skip
    heun = sagd.Sampler("heun", 13)
    base = Trial(recipe, sagd.Flow("logit_normal"), (16, 32, 64), sampler=heun, noise=sagd.isotropic((size, size)))

    def changed(**changes: Any) -> Trial:
        return replace(base, recipe=replace(recipe, **changes))

    shifted = sagd.Flow("logit_normal", dimension_shift((3, size, size)))
    diffusion = {"formulation": sagd.Diffusion(LINEAR, "v", "log_normal"), "sampler": sagd.Sampler("ddim", 25)}
    return {
        "flow matching, Heun's 13 steps": base,
        "v, log-normal times, 25 steps of ddim": replace(base, **diffusion),
        "twice the learning rate": changed(lr=0.006),
        "half the learning rate": changed(lr=0.0015),
        "times shifted by the dimension": replace(base, formulation=shifted),
        "EDM, Heun's 13 steps": replace(base, formulation=sagd.EDM(sigma_data=0.5)),
        "widths 32, 64, 64": replace(base, widths=(32, 64, 64)),
        "AdamW": changed(optimizer="adamw", lr=0.002),
        "batches of 8": changed(batch_size=8, steps=2 * steps, lr=0.002),
        "EMA 0.98": changed(ema=0.98),
        "uniform times": replace(base, formulation=sagd.Flow()),
        "widths 16, 32, 64, 64": replace(base, widths=(16, 32, 64, 64)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("path", help="a folder or zip file of pictures")
    parser.add_argument("only", nargs="?", default="", help="a part of the names of the rows that are wanted")
    parser.add_argument("--size", type=int, default=64, help="resolution")
    parser.add_argument("--most", type=int, default=10_000, help="pictures that are read")
    parser.add_argument("--seen", type=int, default=SEEN, help="pictures that a training sees")
    options = parser.parse_args()
    pictures = find("folder", options.path, options.size)
    order = np.random.default_rng(0).permutation(len(pictures.names))[: options.most]
    found = np.stack([square(pictures.at(k)[1], 3, options.size) for k in order])
    held_out, images = found[:HELD_OUT], found[HELD_OUT:]
    network = extractor("efficientnet_lite0")
    places = {"cache": scratch() / "features", "weights": scratch() / "weights"}
    reference = features(Images(held_out), network, **places)
    floor = kernel_distance(features(Images(images[:500]), network, **places), reference)[0]
    print(f"Real pictures in the samples' place: {floor:.4f}\n")
    print("| recipe | kernel distance, seeds 0 and 1 | mean | pictures a second |\n| --- | --- | --- | --- |")
    for name, trial in trials(options.size, options.seen).items():
        if options.only not in name:
            continue
        sets, rate = run(trial, images, None)
        distances = [kernel_distance(features(Images(some), network, **places), reference)[0] for some in sets]
        told = ", ".join(f"{value:.4f}" for value in distances)
        print(f"| {name} | {told} | {sum(distances) / len(distances):.4f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()

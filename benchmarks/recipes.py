"""What each choice of the default study's recipe brings: the same images seen, the same measure, one choice changed.

Kernel distance (EfficientNet-Lite0) of 500 samples to the held-out digits, two seeds; and the speed of training, both
seeds side by side. Print it as the table of docs/recipe.md.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sagd
from pipeline import params as parameters
from pipeline.params import Params
from sagd.formulations.base import Formulation, Predict
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.kernel import kernel_distance
from sagd.networks.unet import unet
from sagd.noise.base import Noise
from sagd.noise.randomness import seeded
from sagd.runtime.files import read_array, read_json, scratch
from sagd.runtime.parallel import concurrently
from sagd.sampling import draw
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import Pixels, to_uint8
from sagd.training.loop import train
from sagd.training.recipe import Recipe

SEEDS, SAMPLES, CPU = (0, 1), 500, torch.device("cpu")
LINEAR = sagd.Schedule.linear()


@dataclass(frozen=True)
class Stratified(sagd.Diffusion):
    """Times one from each of n equal parts of the trajectory."""

    def draw_times(self, n: int, *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        share = (torch.rand(n, generator=generator) + torch.arange(n)) / n
        return (share * len(self.schedule)).long().clamp(max=len(self.schedule) - 1)


@dataclass(frozen=True)
class MinSNR(sagd.Diffusion):
    """The loss of v weighted by min(SNR, 5) / (SNR + 1) (Hang et al., arXiv 2303.09556)."""

    def loss(
        self, predict: Predict, noise: Noise, x0: Tensor, t: Tensor, eps: Tensor, *, project: bool = True
    ) -> Tensor:
        signal, sigma = self.schedule.signal_and_sigma(t, x0)
        snr = (signal / sigma).square()
        errors = predict(signal * x0 + sigma * eps, t) - (signal * eps - sigma * x0)
        return (snr.clamp(max=5) / (snr + 1) * errors.square()).mean()


@dataclass(frozen=True)
class Trial:
    """One way to train and sample."""

    recipe: Recipe
    formulation: Formulation
    widths: tuple[int, ...] = (16, 32)
    attention: bool = False
    labels: bool = False
    average: int = 1  # of the last snapshots' averaged weights
    sampler: sagd.Sampler = field(default_factory=lambda: sagd.Sampler("ddim", 25, clip=True))
    noise: Noise = field(default_factory=lambda: sagd.power_law((16, 16), -0.06))
    corruption: sagd.Corruption | None = None


def trials(params: Params) -> dict[str, Trial]:
    """Every row of the table, by its name."""
    chosen = params.setting(None).train
    base = Trial(chosen.recipe(), chosen.formulation((1, 16, 16)), tuple(chosen.architecture.widths))

    def with_recipe(**changes: Any) -> Trial:
        return replace(base, recipe=replace(base.recipe, **changes))

    def with_formulation(formulation: Formulation, **changes: Any) -> Trial:
        return replace(base, formulation=formulation, **changes)

    images = base.recipe.steps * base.recipe.batch_size
    omission = {
        "noise": sagd.two_band((16, 16), 0.5, (0.0, 0.4), (0.5, 1.0)),
        "corruption": sagd.Corruption(sagd.band_pass((16, 16), (0.4, 0.5))),
    }
    unclipped = sagd.Sampler("ddim", 25)
    filtered = replace(omission["corruption"], filtered=True)
    white = sagd.isotropic((16, 16))
    return {
        "the default study, but clipped": base,
        "AdamW": with_recipe(optimizer="adamw"),
        "uniform times": with_formulation(sagd.Diffusion(LINEAR, "v")),
        "eps": with_formulation(sagd.Diffusion(LINEAR, "eps", "log_normal")),
        "AdamW, uniform times": replace(
            with_recipe(optimizer="adamw"), formulation=sagd.Diffusion(LINEAR, "v")
        ),
        "AdamW, uniform times, eps (the paper's)": replace(
            with_recipe(optimizer="adamw"), formulation=sagd.Diffusion(LINEAR, "eps")
        ),
        "stratified uniform times": with_formulation(Stratified(LINEAR, "v")),
        "min-SNR weights, uniform times": with_formulation(MinSNR(LINEAR, "v")),
        "EDM, Heun's 13 steps": with_formulation(sagd.EDM(sigma_data=0.6), sampler=sagd.Sampler("heun", 13)),
        "flow matching, Heun's 13 steps": with_formulation(
            sagd.Flow("logit_normal"), sampler=sagd.Sampler("heun", 13)
        ),
        "batches of 32, as many images": with_recipe(batch_size=32, steps=images // 32, lr=0.008),
        "batches of 8, as many images": with_recipe(batch_size=8, steps=images // 8, lr=0.004),
        "half the learning rate": with_recipe(lr=base.recipe.lr / 2),
        "twice the learning rate": with_recipe(lr=base.recipe.lr * 2),
        "EMA 0.98": with_recipe(ema=0.98),
        "EMA 0.995": with_recipe(ema=0.995),
        "mean of the last four of ten snapshots": replace(base, average=4),
        "widths 16, 16, 32": replace(base, widths=(16, 16, 32)),
        "widths 24, 48": replace(base, widths=(24, 48)),
        "attention at 8 x 8": replace(base, attention=True),
        "labels": replace(base, labels=True),
        "bf16": with_recipe(precision="bf16"),
        "trailing steps": replace(base, sampler=sagd.Sampler("ddim", 25, "trailing", clip=True)),
        "50 steps": replace(base, sampler=sagd.Sampler("ddim", 50, clip=True)),
        "unclipped": replace(base, sampler=unclipped),
        "omission, projected": replace(base, **omission, sampler=unclipped),
        "omission, projected, clipped": replace(base, **omission),
        "omission, literal": replace(base, **omission, sampler=unclipped, recipe=replace(base.recipe, project=False)),
        "omission, filtered images, isotropic": replace(base, noise=white, corruption=filtered, sampler=unclipped),
        "omission, filtered images, isotropic, clipped": replace(base, noise=white, corruption=filtered),
    }  # fmt: skip


def run(
    trial: Trial, images: np.ndarray, labels: np.ndarray | None, seeds: tuple[int, ...] = SEEDS
) -> tuple[list, float]:
    """Samples of each seed, (SAMPLES, C, H, W) in uint8 as the images are, and images a second in training."""
    source = Pixels(torch.from_numpy(images), labels if trial.labels else None, CPU)
    recipe, shape = trial.recipe, images.shape[1:]

    def trained(seed: int) -> nn.Module:
        with seeded(seed, "weights"):
            attention = [False] * (len(trial.widths) - 1) + [trial.attention]
            network = unet(shape[1:], shape[0], list(trial.widths), 1, attention, 8, 10 if trial.labels else 0)
        taken: list[dict[str, Tensor]] = []
        found = train(
            network, source, trial.noise, trial.formulation, recipe, seed=seed, corruption=trial.corruption,
            snapshots=[recipe.steps * k // 10 for k in range(11 - trial.average, 11)] if trial.average > 1 else (),
            snapshot=lambda step, kept: taken.append({k: w.clone() for k, w in kept.items()}),
        )  # fmt: skip
        kept = taken or [found.weights]
        network.load_state_dict({k: torch.stack([w[k] for w in kept]).mean(0) for k in found.weights})
        return network.eval()

    began = time.perf_counter()
    networks = list(concurrently(trained, seeds, CPU))
    rate = len(seeds) * recipe.steps * recipe.batch_size / (time.perf_counter() - began)
    data = statistics(images)
    sampled: Callable[..., Tensor] = partial(draw, data=data, n=SAMPLES, batch_size=100)
    return [
        to_uint8(sampled(network, trial.formulation, trial.noise, trial.sampler, seed=seed)).numpy()
        for seed, network in zip(seeds, networks, strict=True)
    ], rate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="a part of the names of the rows that are wanted")
    only, params = parser.parse_args().only, parameters.load()
    place = params.prepared(None)
    if not place.here:
        raise SystemExit(f"recipes: {place.folder} is missing; `dvc repro prepare` makes it")
    images, held_out = read_array(place.array("train")), read_array(place.array("held_out"))
    # The set has 500 digits of each kind, in order.
    labels = np.delete(
        np.repeat(np.arange(10), 500), read_json(params.setting(None).prepared.record)["held_out_indices"]
    )
    network = extractor("efficientnet_lite0")
    places = {"cache": scratch() / "features", "weights": scratch() / "weights"}
    reference = features(Images(held_out), network, **places)
    print("| recipe | kernel distance, seeds 0 and 1 | mean | images a second |\n| --- | --- | --- | --- |")
    for name, trial in trials(params).items():
        if only not in name:
            continue
        sets, rate = run(trial, images, labels)
        found = [kernel_distance(features(Images(some), network, **places), reference)[0] for some in sets]
        told = ", ".join(f"{value:.3f}" for value in found)
        print(f"| {name} | {told} | {sum(found) / len(found):.3f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""Compare the scores that networks of different noises have learnt, with each other and with those of other seeds."""

import argparse
from pathlib import Path

import numpy as np
import torch

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.metrics.scores import Learnt, score_difference
from sagd.networks.weights import predictor
from sagd.noise.randomness import generator
from sagd.runtime.distributed import World
from sagd.runtime.files import read_array, write_json
from sagd.runtime.progress import Bar
from sagd.spaces.pixels import from_uint8
from studies.claims.contrasts import slope
from studies.claims.decided import compared

IMAGES = 256  # held-out images
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 250, 400, 600, 800)
NEAR = 6  # of them are near the end point


def main(params: Params, options: argparse.Namespace) -> None:
    alphas = compared("endpoint")
    settings = {alpha: params.setting(name) for name, alpha in alphas.items()}
    plain, device = settings[0.0], World().device
    x0 = from_uint8(read_array(plain.prepared.array("held_out"), memory_map=True)[:IMAGES], device)
    white = torch.randn(x0.shape, generator=generator(0, "endpoint")).to(device)
    alpha_bar = plain.train.formulation(tuple(x0.shape[1:])).alpha_bar
    assert alpha_bar is not None  # the study's schedule is discrete
    diffusion = Diffusion(Schedule(alpha_bar), plain.train.prediction)
    sigma = (1 - alpha_bar[list(STEPS)]).sqrt()

    def learnt(alpha: float, seed: int) -> Learnt:
        setting = settings[alpha]
        return predictor(setting.network(seed).to(device)), setting.forward_noise().at(0)

    shaped, seeds = [alpha for alpha in settings if alpha], plain.seeds
    # Each seed is in one pair, so that the effects are independent.
    pairs = list(zip(seeds[::2], seeds[1::2], strict=False))
    of_alphas, of_seeds = np.empty((2, len(pairs), len(STEPS)))
    with Bar("endpoint", len(pairs) * len(STEPS), unit="steps") as bar:
        for k, pair in enumerate(pairs):
            bases = [learnt(0.0, seed) for seed in pair]
            tilted = [(learnt(alpha, seed), base) for seed, base in zip(pair, bases, strict=True) for alpha in shaped]
            for n, t in enumerate(STEPS):
                differences = [score_difference(one, base, diffusion, x0, white, t) for one, base in tilted]
                of_alphas[k, n] = np.mean(differences)
                of_seeds[k, n] = score_difference(bases[0], bases[1], diffusion, x0, white, t)
                bar.update(1)
    x = sigma.log()[:NEAR].tolist()
    found = {
        f"endpoint_{name}": {"effects": [slope(x, row) for row in np.log(values)[:, :NEAR]]}
        for name, values in {"difference": of_alphas, "ratio": of_alphas / of_seeds}.items()
    }
    curves = {"of_alphas": of_alphas.tolist(), "of_seeds": of_seeds.tolist()}
    places = {"steps": STEPS, "sigma": sigma.tolist(), "alphas": shaped, "pairs_of_seeds": pairs, "images": IMAGES}
    write_json(Path("reports", params.profile or "", "endpoint.json"), found | curves | places)


if __name__ == "__main__":
    stage(main, each=None)

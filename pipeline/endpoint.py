"""Compare the scores that networks of different noises have learnt with those of two seeds of one noise, over t."""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pipeline.params import Params
from pipeline.run.console import stage
from pipeline.study.contrasts import slope
from pipeline.study.decided import written
from sagd.formulations.diffusion import Diffusion
from sagd.formulations.schedule import Schedule
from sagd.metrics.scores import Learnt, score_difference
from sagd.networks import weights
from sagd.networks.weights import predictor
from sagd.noise import stored
from sagd.noise.randomness import generator
from sagd.runtime.distributed import World
from sagd.runtime.files import read_array, write_json
from sagd.runtime.progress import Bar
from sagd.spaces.pixels import from_uint8

IMAGES = 256  # held-out images
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 250, 400, 600, 800)


def main(params: Params, options: argparse.Namespace) -> None:
    alphas = written().questions["endpoint"].contrasts["approach"].over
    settings = {alpha: params.setting(name) for name, alpha in alphas.items()}
    plain, device = settings[0.0], World().device
    x0 = from_uint8(read_array(plain.prepared / "held_out.npy", memory_map=True)[:IMAGES], device)
    white = torch.randn(x0.shape, generator=generator(0, "endpoint")).to(device)
    alpha_bar = plain.train.formulation(tuple(x0.shape[1:])).alpha_bar
    assert alpha_bar is not None  # the study's schedule is discrete
    diffusion = Diffusion(Schedule(alpha_bar), plain.train.prediction)
    sigma = (1 - alpha_bar[list(STEPS)]).sqrt()

    def learnt(alpha: float, seed: int) -> Learnt:
        folder = settings[alpha].artifacts("train")
        spectrum = stored.load(folder / "noise.safetensors").at(0)
        return predictor(weights.load(folder / f"seed_{seed}").to(device)), spectrum

    shaped, seeds = [alpha for alpha in settings if alpha], plain.seeds
    found: dict[str, list] = {"of_alphas": [], "of_seeds": [], "effects": []}
    with Bar("endpoint", len(seeds) * len(STEPS), unit="steps") as bar:
        for seed, other in pairwise([*seeds, seeds[0]]):
            base, another = learnt(0.0, seed), learnt(0.0, other)
            tilted = [learnt(alpha, seed) for alpha in shaped]
            of_alphas, of_seeds = [], []
            for t in STEPS:
                of_alphas.append([score_difference(one, base, diffusion, x0, white, t) for one in tilted])
                of_seeds.append(score_difference(another, base, diffusion, x0, white, t))
                bar.update(1)
            ratio = np.log(np.mean(of_alphas, axis=1)) - np.log(of_seeds)
            lower = slice(0, len(STEPS) // 2)
            found["effects"].append(slope(sigma.log()[lower].tolist(), ratio[lower].tolist()))
            found["of_alphas"].append(of_alphas)
            found["of_seeds"].append(of_seeds)
    places = {"steps": STEPS, "sigma": sigma.tolist(), "alphas": shaped, "seeds": seeds, "images": IMAGES}
    write_json(Path("reports", params.profile or "", "endpoint.json"), {"endpoint": found, **places})


if __name__ == "__main__":
    stage(main, each=None)

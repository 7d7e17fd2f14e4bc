"""Sample networks of 1/f noise and of white noise in few steps and in many."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.runtime.distributed import World
from sagd.runtime.files import write_json
from sagd.runtime.progress import Bar
from studies.claims.decided import PRIMARY, compared
from studies.claims.resampled import distance, log_ratio

STEPS = (5, 10, 15, 25, 50)
FEW, MANY = 15, 50  # 3.33 times fewer, as the paper of flicker noise has it
SAMPLES = 1000  # at most


def main(params: Params, options: argparse.Namespace) -> None:
    over = compared("flicker")
    device, found, first = World().device, {}, params.setting(next(iter(over)))
    seeds, n = first.seeds, min(SAMPLES, first.sample.n)
    with Bar("flicker", len(over) * len(seeds) * sum(STEPS) * n, unit="steps of images") as bar:
        for name, alpha in over.items():
            setting = params.setting(name)
            shape = tuple(setting.statistics()["mean"].shape)
            formulation, plain = setting.train.formulation(shape), setting.sample.settings(clip=False)
            found[alpha] = np.empty((len(seeds), len(STEPS)))
            for k, seed in enumerate(seeds):
                for i, steps in enumerate(STEPS):
                    sampler = replace(plain, steps=steps)
                    found[alpha][k, i] = distance(setting, seed, formulation, sampler, n, device)
                    bar.update(steps * n)
    of = {
        (alpha, steps): (f"alpha {alpha:g}, {steps} steps", values[:, i].tolist())
        for alpha, values in found.items() for i, steps in enumerate(STEPS)
    }  # fmt: skip
    pink, white = sorted(found)
    pairs = {"fewer": (FEW, MANY), "few": (FEW, FEW), "many": (MANY, MANY)}
    effects = {key: log_ratio(of[pink, one], of[white, other], seeds) for key, (one, other) in pairs.items()}
    write_json(
        Path("reports", params.profile or "", "flicker.json"),
        {f"flicker_{key}": entry for key, entry in effects.items()}
        | {"distances": {f"{alpha:g}": values.tolist() for alpha, values in found.items()}, "measure": PRIMARY}
        | {"steps": STEPS, "seeds": seeds, "samples": n},
    )


if __name__ == "__main__":
    stage(main, each=None)

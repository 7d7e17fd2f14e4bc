"""Sample networks that were trained on white noise with colored steps (CNS), and compare with white ones."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from pipeline.params import Params
from pipeline.run.console import stage
from sagd.colored import Colored, ColoredNoise, calibrate
from sagd.formulations.diffusion import Diffusion
from sagd.noise.randomness import generator
from sagd.runtime.distributed import World
from sagd.runtime.files import write_json
from sagd.runtime.progress import Bar
from studies.claims.decided import PRIMARY, Results, compared
from studies.claims.resampled import distance, log_ratio

TRAJECTORIES = 512  # that measure gamma, of each network
SAMPLES = 1000  # of each network, at most
ARMS = {"paper": (1.0, 1.0), "tuned": (1.5, 1.73)}  # strength and divider, see `ColoredNoise`


def main(params: Params, options: argparse.Namespace) -> None:
    (name,) = compared("colored")
    setting, device = params.setting(name), World().device
    shape = tuple(setting.statistics()["mean"].shape)
    formulation = cast(Diffusion, setting.train.formulation(shape))  # the study's
    n = min(SAMPLES, setting.sample.n)
    sampler = replace(setting.sample.settings(clip=False), name="ddpm")
    found: dict[str, list[float]] = {arm: [] for arm in ("white", *ARMS)}
    gammas = []
    with Bar(f"colored {name}", len(setting.seeds) * len(found) * n) as bar:
        for seed in setting.seeds:
            network = setting.network(seed).to(device)
            start = torch.randn((TRAJECTORIES, *shape), generator=generator(seed, "calibrate")).to(device)
            measured = calibrate(network, formulation, start, sampler)
            gammas.append(measured.gamma.tolist())
            for arm, values in found.items():
                drawn_with = formulation
                if arm in ARMS:
                    colored = ColoredNoise(measured.size, measured.log_snr, measured.gamma, *ARMS[arm])
                    drawn_with = Colored.of(formulation, colored)
                values.append(distance(setting, seed, drawn_with, sampler, n, device))
                bar.update(n)
    ode = Results(params).of(name).loc[setting.seeds]
    of = {arm: (arm, values) for arm, values in {**found, "ode": ode.tolist()}.items()}
    effects = {f"colored_{arm}": log_ratio(of[arm], of["white"], setting.seeds) for arm in ARMS}
    effects["colored_ode"] = log_ratio(of["white"], of["ode"], setting.seeds)
    write_json(
        Path("reports", params.profile or "", "colored.json"),
        effects
        | {"distances": {"ode": ode.tolist(), **found}, "measure": PRIMARY, "network": name}
        | {"seeds": setting.seeds, "samples": n, "steps": sampler.steps, "trajectories": TRAJECTORIES}
        | {"log_snr": measured.log_snr.tolist(), "gamma": np.mean(gammas, 0).tolist()},
    )


if __name__ == "__main__":
    stage(main, each=None)

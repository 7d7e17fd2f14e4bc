"""Time training steps with shaped and with isotropic noise in alternation, on the paper's network and the study's."""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ruamel.yaml import YAML

import sagd
from pipeline.params import Params
from pipeline.params.sections import Train
from pipeline.run.console import stage
from pipeline.run.timings import machine
from sagd.networks.weights import predictor
from sagd.noise.base import Noise
from sagd.runtime.distributed import World
from sagd.runtime.files import write_json
from sagd.runtime.progress import Bar
from sagd.spaces.pixels import Pixels
from sagd.training.batches import draw_batch
from sagd.training.optimizer import optimizers

PAPER = Path(__file__).parents[1] / "paper" / "profiles" / "paper.yaml"  # the paper's network
PAIRS, BLOCK = 30, 1.0  # of timings; the least time of one, seconds
ALPHA = -0.06


def main(params: Params, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    paper = YAML(typ="safe").load(PAPER.read_bytes())["train"]
    networks = {"study": (params.section("train"), 16), "paper": (Train(**paper), 32)}
    world, found = World(), {}
    for name, (recipe, size) in networks.items():
        noises = {"shaped": sagd.power_law((size, size), ALPHA), "isotropic": sagd.isotropic((size, size))}
        timed: list[dict] = []
        with Bar(f"cost {name}", 2 * PAIRS, unit="timings") as bar:
            for order in (list(noises), list(noises)[::-1]):  # what is built first may lie better in memory
                steps = {which: stepper(recipe, noises[which], size, world.device) for which in order}
                timed.append(alternated(steps, PAIRS // 2, world.device, lambda: bar.update(1)))
        found[f"cost_{name}"] = {key: timed[0][key] + timed[1][key] for key in timed[0]}
        found[f"cost_{name}"] |= {"size": size, "batch_size": recipe.batch_size}
    write_json(Path("reports", params.profile or "", "cost.json"), found | {"machine": machine(world)})


def stepper(recipe: Train, noise: Noise, size: int, device: torch.device) -> Callable[[], None]:
    """A function that takes a step of training on random images, as `sagd.training.loop` does, in float32."""
    images = torch.randint(0, 256, (4 * recipe.batch_size, 1, size, size), dtype=torch.uint8, device=device)
    source, how = Pixels(images, device=device), recipe.recipe()
    network, formulation = recipe.network(source.shape, 0, 0).to(device).train(), recipe.formulation(source.shape)
    optimising, step = optimizers(network, how), itertools.count()
    trained: list[torch.Tensor] = list(network.parameters())
    averaged = [p.detach().clone() for p in trained]

    def take() -> None:
        for optimizer in optimising:
            optimizer.zero_grad()
        x0, t, eps, _ = draw_batch(source, formulation, noise, None, how, 0, next(step))
        formulation.loss(predictor(network), noise, x0, t, eps).backward()
        torch.nn.utils.clip_grad_norm_(trained, how.clip_norm, foreach=True)
        for optimizer in optimising:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1 - how.ema)

    return take


def alternated(
    steps: dict[str, Callable[[], None]], pairs: int, device: torch.device, report: Callable[[], None]
) -> dict[str, list[float]]:
    """Logarithms of the ratio of the times of neighbours, ``shaped`` over ``isotropic``, and the times of a step.

    Which of the two is first changes from pair to pair.
    """

    def seconds(work: Callable[[], None], count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for work in steps.values():
        seconds(work, 2)
    count = max(1, round(BLOCK / seconds(steps["isotropic"], 1)))
    times: dict[str, list[float]] = {"shaped": [], "isotropic": []}
    for pair in range(pairs):
        for name in list(times) if pair % 2 else list(times)[::-1]:
            times[name].append(seconds(steps[name], count) / count)
            report()
    effects = np.log(times["shaped"]) - np.log(times["isotropic"])
    return {"effects": effects.tolist(), **times}


if __name__ == "__main__":
    stage(main, each=None)

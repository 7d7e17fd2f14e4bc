"""Time training steps with shaped and with isotropic noise in alternation, on the paper's network and the study's."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import sagd
from pipeline.params import Params
from pipeline.params.sections import GridTrain
from pipeline.plan import parameters
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

PAIRS, BLOCK = 30, 1.0  # of timings; the least time of one, seconds
ALPHA = -0.06


def main(params: Params, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    networks = {"study": (params.grid.train, 16), "paper": (GridTrain(**parameters("paper")["grid"]["train"]), 32)}
    world, found = World(), {}
    device = world.device
    for name, (recipe, size) in networks.items():
        with Bar(f"cost {name}", 2 * PAIRS, unit="timings") as bar:
            noises = (sagd.power_law((size, size), ALPHA), sagd.isotropic((size, size)))
            shaped, plain = (stepper(recipe, noise, size, device) for noise in noises)
            found[f"cost_{name}"] = alternated(shaped, plain, device, lambda: bar.update(1)) | {
                "size": size,
                "batch_size": recipe.batch_size,
            }
    write_json(Path("reports", params.profile or "", "cost.json"), found | {"machine": machine(world)})


def stepper(recipe: GridTrain, noise: Noise, size: int, device: torch.device) -> Callable[[], None]:
    """A function that takes a training step on images of noise, one after the other, as `sagd.training.loop` does."""
    images = torch.randint(0, 256, (4 * recipe.batch_size, 1, size, size), dtype=torch.uint8, device=device)
    source, how = Pixels(images, device=device), recipe.recipe()
    network, formulation = recipe.network(source.shape, 0, 0).to(device).train(), recipe.formulation(source.shape)
    optimising, step = optimizers(network, how), iter(range(10**9))

    def take() -> None:
        for optimizer in optimising:
            optimizer.zero_grad()
        x0, t, eps, _ = draw_batch(source, formulation, noise, None, how, 0, next(step))
        formulation.loss(predictor(network), noise, x0, t, eps).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), how.clip_norm, foreach=True)
        for optimizer in optimising:
            optimizer.step()

    return take


def alternated(
    shaped: Callable[[], None], plain: Callable[[], None], device: torch.device, report: Callable[[], None]
) -> dict:
    """Logarithms of the ratio of the times of neighbours; which of the two is first changes from pair to pair."""

    def seconds(work: Callable[[], None], count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for work in (shaped, plain):
        seconds(work, 2)
    count = max(1, round(BLOCK / seconds(plain, 1)))
    times: dict[str, list[float]] = {"shaped": [], "isotropic": []}
    for pair in range(PAIRS):
        both = [("shaped", shaped), ("isotropic", plain)]
        for name, work in both if pair % 2 else reversed(both):
            times[name].append(seconds(work, count) / count)
            report()
    effects = np.log(times["shaped"]) - np.log(times["isotropic"])
    return {"effects": effects.tolist(), "seconds_a_step": times, "steps_a_timing": count}


if __name__ == "__main__":
    stage(main, each=None)

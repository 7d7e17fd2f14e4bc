"""What each stage costs as its work grows, over two decades: python -m benchmarks.scale. The tables of docs/scale.md.

Images, latents and features are random numbers: speed does not depend on them.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import sagd
from benchmarks.__main__ import PAPER_UNET, UNET, seconds
from sagd.data import find
from sagd.data.prepare import prepare
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.frechet import Moments, frechet_distance
from sagd.metrics.kernel import kernel_distance
from sagd.networks.dit import dit
from sagd.networks.unet import unet
from sagd.sampling import draw
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe

Row = tuple[object, ...]
RNG = np.random.default_rng(0)
DIFFUSION, BATCH = sagd.Diffusion(sagd.Schedule.linear()), 16
# From 0.03 to 16 M parameters: halves, the small, and the paper's U-Nets.
NETWORKS = {
    "0.03 M": UNET | {"widths": [8, 8, 8]},
    "the small": UNET,
    "1.0 M": PAPER_UNET | {"widths": [8, 16, 32, 64], "groups": 8},
    "4.0 M": PAPER_UNET | {"widths": [16, 32, 64, 128], "groups": 16},
    "the paper's": PAPER_UNET,
}


def preparing() -> Iterator[Row]:
    """PNG files to arrays."""
    yield "images", "file", "resized to", "images/s", "bytes each"
    for count, pixels, size in ((100, 64, 64), (1000, 64, 64), (10_000, 64, 64), (300, 256, 64), (100, 1024, 256)):
        with tempfile.TemporaryDirectory() as place:
            for k in range(count):
                noise = RNG.integers(0, 256, (pixels // 8, pixels // 8, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((pixels, pixels)).save(f"{place}/{k}.png")
            held_out = np.arange(count) % 10 == 0

            def work(place: str = place, size: int = size, held_out: np.ndarray = held_out) -> None:
                prepare(find("folder", place, size), held_out, size, 3, Path(place) / "out")

            taken = seconds(work)
        yield count, f"{pixels}x{pixels}", f"{size}x{size}", f"{count / taken:.0f}", 3 * size * size


def encoding() -> Iterator[Row]:
    """Images to the moments of the data."""
    yield "images", "size", "images/s"
    for count, size in ((100, 64), (1000, 64), (10_000, 64), (1000, 16), (500, 256)):
        images = RNG.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
        yield count, f"{size}x{size}", f"{count / seconds(lambda images=images: statistics(images)):.0f}"


def training() -> Iterator[Row]:
    """Steps of training, with shaped noise, one network on all cores."""
    yield "network", "parameters", "size", "images/s", "GFLOP an image", "GFLOP/s"
    cases = [(name, how, 32) for name, how in NETWORKS.items()]
    cases += [("the small", UNET, size) for size in (16, 64, 128)]
    for name, how, size in cases:
        network = unet((size, size), 3, **how)
        yield name, *_steps(network, (3, size, size), DIFFUSION, 6 if size < 64 else 3)
    blocks = {"widths": [96, 192], "depths": [4, 2], "heads": [4, 4]}
    for patches in (8, 16, 32):
        network = dit((patches, patches), 16, 0, 1, *blocks.values())
        yield f"DiT, {patches**2} tokens", *_steps(network, (16, patches, patches), sagd.Flow(), 6)


def _steps(network: torch.nn.Module, shape: tuple[int, int, int], formulation: object, steps: int) -> Row:
    source = Pixels(torch.from_numpy(RNG.integers(0, 256, (2 * BATCH, *shape), dtype=np.uint8)))
    noise, times = sagd.power_law(shape[1:], -0.06), []
    recipe = Recipe(steps + 1, BATCH, warmup=1, precision="fp32")
    train(network, source, noise, formulation, recipe, seed=0, report=lambda _: times.append(time.perf_counter()))
    step = sorted(np.diff(times))[len(times) // 2 - 1]
    with FlopCounterMode(display=False) as counted:
        network(torch.zeros(BATCH, *shape), torch.full((BATCH,), 0.5)).square().mean().backward()
    work = counted.get_total_flops() / BATCH / 1e9
    parameters = sum(p.numel() for p in network.parameters())
    rate = BATCH / step
    return f"{parameters / 1e6:.3g} M", f"{shape[1]}x{shape[2]}", f"{rate:.4g}", f"{work:.3g}", f"{work * rate:.0f}"


def sampling() -> Iterator[Row]:
    """Samples, 25 steps of ddim, batches side by side."""
    yield "samples", "network", "size", "samples/s"
    for count, name, size in ((32, "the small", 16), (320, "the small", 16), (3200, "the small", 16),
                              (64, "the small", 32), (16, "the paper's", 32)):  # fmt: skip
        network = unet((size, size), 1, **NETWORKS[name]).eval().requires_grad_(False)
        data = {"mean": torch.zeros(1, size, size).double(), "power": torch.ones(1, size, size).double()}
        noise, how = sagd.power_law((size, size), -0.06), sagd.Sampler(steps=25)

        def work(network=network, noise=noise, how=how, data=data, count=count) -> None:
            draw(network, DIFFUSION, noise, how, data, n=count, seed=0, batch_size=min(32, count // 2))

        yield count, name, f"{size}x{size}", f"{count / seconds(work):.3g}"


def featuring() -> Iterator[Row]:
    """Images to features (EfficientNet-Lite0, which resizes them to 224x224)."""
    yield "images", "size", "images/s", "bytes each"
    of = extractor("efficientnet_lite0")
    for count, size in ((32, 16), (320, 16), (3200, 16), (320, 64), (320, 256)):
        images = Images(RNG.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
        with tempfile.TemporaryDirectory() as place:

            def work(images: Images = images, place: str = place) -> np.ndarray:
                return features(images, of, cache=Path(place), weights=Path(place))

            start = time.perf_counter()
            width = work().shape[1]
            yield count, f"{size}x{size}", f"{count / (time.perf_counter() - start):.1f}", 4 * width


def distances() -> Iterator[Row]:
    """Two sets of features to distances, seconds."""
    yield "features of each set", "width", "moments and Fréchet distance", "kernel distance, all pairs"
    for count, width in ((500, 1280), (5000, 1280), (50_000, 1280), (5000, 320), (5000, 2048)):
        a, b = (RNG.standard_normal((count, width), dtype=np.float32) for _ in "ab")
        frechet = seconds(lambda a=a, b=b: frechet_distance(Moments.of(a), Moments.of(b)))
        # A quarter of the rows of 50,000: the work goes as their square.
        part = slice(None) if count < 50_000 else slice(None, None, 4)
        kernel = seconds(lambda a=a[part], b=b[part]: kernel_distance(a, b)) * (len(a) / len(a[part])) ** 2
        yield count, width, f"{frechet:.2g}", f"{kernel:.3g}" + ("" if count < 50_000 else ", from 12,500")


def processes() -> Iterator[Row]:
    """One training that several processes share, a thread each, on this machine's cores."""
    yield "processes", "network", "images/s", "of one process a core"
    code = """
import sys, time, numpy as np, torch, sagd
from benchmarks.__main__ import PAPER_UNET, UNET
from sagd.networks.unet import unet
from sagd.runtime.distributed import World
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe
torch.set_num_threads(1)
how, size, steps = (UNET, 16, 24) if sys.argv[1] == "small" else (PAPER_UNET, 32, 5)
source = Pixels(torch.zeros((64, 1, size, size), dtype=torch.uint8))
times = []
train(unet((size, size), 1, **how), source, sagd.power_law((size, size), -0.06), sagd.Diffusion(sagd.Schedule.linear()),
      Recipe(steps, 16, warmup=1), seed=0, world=World(), report=lambda _: times.append(time.perf_counter()))
print("rate", 16 / float(np.median(np.diff(times))))
"""
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "one.py"
        script.write_text(code)
        for name in ("small", "paper"):
            alone = None
            for count in range(1, (os.cpu_count() or 1) + 1):
                command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
                command = [sys.executable, *(command if count > 1 else []), str(script), name]
                place_of_code = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=place_of_code)
                rate = float(done.stdout.split("rate ")[1].split()[0])
                alone = alone or rate
                yield count, f"the {name}'s", f"{rate:.3g}", f"{rate / alone:.2f}"


PARTS = {
    f.__name__: f for f in (preparing, encoding, training, sampling, featuring, distances, processes)
}  # in the order of the stages


def table(rows: Callable[[], Iterator[Row]]) -> None:
    print(f"\n{rows.__doc__}\n")
    for k, row in enumerate(rows()):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if k == 0:
            print("| " + " | ".join("---" for _ in row) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all if none is given")
    for part in parser.parse_args().part or PARTS:
        table(PARTS[part])
    print(f"\n{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB of memory at most")

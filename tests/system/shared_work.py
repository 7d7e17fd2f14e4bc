"""What several processes do together in test_distributed.py: python, torchrun or accelerate launch runs it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from sagd import power_law
from sagd.errors import InputError
from sagd.formulations.flow import Flow
from sagd.networks.dit import dit
from sagd.noise.corruption import Corruption
from sagd.operators.band_pass import band_pass
from sagd.runtime.distributed import World
from sagd.runtime.files import write_tensors
from sagd.spaces.pixels import Pixels
from sagd.training.loop import Interrupted, train
from sagd.training.recipe import Recipe

RECIPE = Recipe(24, 8, lr=3e-3, warmup=2, betas=(0.9, 0.99), ema=0.9, micro_batch_size=2, flip=True)


def run(world, folder, name, checkpoint=None, stop=lambda: False, seed=0):
    """Train a small DiT on labelled, corrupted pictures; rank 0 writes its weights and losses."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=source)
    torch.manual_seed(0)
    network = dit((8, 8), 1, 4, patch=2, widths=[16, 32], depths=[2, 1], heads=[2, 2])
    corruption = Corruption(band_pass((8, 8), (0.4, 0.6)))
    try:
        done = train(
            network, Pixels(images, torch.arange(40).numpy() % 4), power_law((8, 8), -0.3), Flow(), RECIPE,
            seed=seed, corruption=corruption, world=world, checkpoint=folder / (checkpoint or "none"), stop=stop,
        )  # fmt: skip
    except Interrupted:
        return
    if world.main:
        write_tensors(folder / f"{name}.safetensors", done.weights | {"losses": done.losses})


def main():
    folder, world = Path(sys.argv[1]), World()
    torch.set_num_threads(1)
    if world.size == 1:
        run(world, folder, "alone")
        run(world, folder, "alone_from_two", "stopped")
        return
    run(world, folder, "two")
    steps = iter(range(100))
    run(world, folder, "", "stopped", stop=lambda: world.main and next(steps) >= 3)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    run(world, folder, "sharded")
    world.wait()
    if world.main:
        (folder / "stopped_copy").write_bytes((folder / "stopped").read_bytes())
    world.wait()
    run(world, folder, "sharded_from_two", "stopped_copy")

    own = folder / f"host_{world.rank}"  # a scratch that not all see
    own.mkdir()
    if world.main:
        (own / "stopped").write_bytes((folder / "stopped").read_bytes())
    for name, how in (("scratch", {"checkpoint": "stopped"}), ("settings", {"seed": world.rank})):
        try:
            run(world, own, name, **how)
        except InputError as error:
            (own / f"{name}.txt").write_text(str(error))


if __name__ == "__main__":
    main()

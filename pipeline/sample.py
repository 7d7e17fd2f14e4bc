"""Draw samples of a setting's networks: one compressed file of arrays, and a picture of the first ones."""

import hashlib
import json

import numpy as np
import torch

from pipeline.console import stage
from sagd import models
from sagd.corruption import Corruption
from sagd.distributed import World
from sagd.download import digest
from sagd.errors import InputError
from sagd.figures import save_grid
from sagd.files import read_array, read_json, read_tensors, scratch, sources, write_array, writing
from sagd.progress import Bar
from sagd.sampling import draw_batches, to_uint8
from sagd.spectrum.varying import from_dict

PREVIEW = 60


def main(params, options):
    world = World()
    for setting in params.chosen(options):
        for variant in params.variants(setting):
            sample(variant, world)


def sample(setting, world):
    choice = setting.sample
    trained, encoded = setting.artifacts("train"), setting.artifacts("encode")
    spectrum = from_dict(read_json(trained / "spectrum.json"))
    data = read_tensors(encoded / "statistics.safetensors")
    key = _key(setting, trained, encoded)
    world.check_alike(key)
    place = scratch() / "sample" / key
    decode = decoder_of(setting, world.device)
    *earlier, _ = read_json(trained / "run.json")["checkpoints"]
    names = {f"seed_{seed}{at}": seed for seed in setting.seeds for at in ("", *(f"_step_{s}" for s in earlier))}
    corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
    parts = {}
    with (
        world.holding(place),
        Bar(f"sample {setting.title}", choice.n * len(names), rank=world.rank, size=world.size) as bar,
    ):
        for name, seed in names.items():
            firsts = range(0, choice.n, choice.batch_size)
            parts[name] = [place / f"{name}_{first:07d}.npy" for first in firsts]
            # Each batch is kept as it comes: a process that was killed need not draw it.
            missing = world.most(*(world.main and not part.exists() for part in parts[name]))
            todo = [k for k, absent in enumerate(missing) if absent]
            bar.skip(choice.n - sum(min(choice.batch_size, choice.n - firsts[k]) for k in todo))
            mine = todo[world.rank :: world.size]
            batches = draw_batches(
                models.load(trained / name).to(world.device), setting.train.formulation(tuple(data["mean"].shape)),
                spectrum, data, [firsts[k] for k in mine],
                n=choice.n, steps=choice.steps, seed=seed, spacing=choice.spacing, start=choice.start,
                sampler=choice.sampler, eta=choice.eta, clip=clips(setting), batch_size=choice.batch_size,
                decode=decode,
            )  # fmt: skip
            for k, x in zip(mine, batches, strict=True):
                if not torch.isfinite(x).all():
                    raise InputError(f"samples of {name} are not finite; train longer, or with a smaller train.lr")
                write_array(parts[name][k], to_uint8(corruption.remove(x) if choice.filtered else x).numpy())
                bar.update(len(x))
            world.wait()
        if not world.main:
            return
        drawn = {name: _together(files, choice.n, place / f"{name}.npy") for name, files in parts.items()}
        with writing(setting.artifacts("sample") / "samples.npz") as beside, open(beside, "wb") as file:
            np.savez_compressed(file, **drawn)
        save_grid(setting.report("sample", "png"), drawn[f"seed_{setting.seeds[0]}"][:PREVIEW], columns=12)
        for file in place.glob("*.npy"):
            file.unlink()


def clips(setting):
    """Whether x0hat is clipped; that is not linear, and would put energy back into a band that the noise leaves out."""
    how = setting.sample.clip
    return setting.corrupt.band is None if how == "auto" else how == "on"


def decoder_of(setting, device):
    """From the space that is trained in to images in [-1, 1]."""
    folder = setting.artifacts("encode")
    manifest = read_json(folder / "manifest.json")
    if manifest["kind"] == "pixel":
        return lambda x: x
    from sagd.latents import Autoencoder, decoder

    return decoder(Autoencoder.recorded(manifest, device), folder)


def _together(files, n, path):
    """The samples of a network's batches in one file, memory-mapped."""
    shape = (n, *read_array(files[0], memory_map=True).shape[1:])
    whole, done = np.lib.format.open_memmap(path, "w+", np.uint8, shape), 0
    for file in files:
        batch = read_array(file)
        whole[done : done + len(batch)] = batch
        done += len(batch)
    return whole


def _key(setting, *folders):
    """A hash of all that defines the samples: settings, code, and what is in the folders of the stages before."""
    described = [setting.seeds, *(getattr(setting, s).model_dump() for s in ("sample", "train", "corrupt"))]
    found = hashlib.sha256(json.dumps([described, sources(), torch.__version__]).encode())
    for file in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        found.update(digest(file).encode())
    return found.hexdigest()[:32]


if __name__ == "__main__":
    stage(main, shared=True)

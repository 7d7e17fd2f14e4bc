"""Draw samples of a setting's networks: one compressed file of arrays, and a picture of the first ones."""

import argparse
import hashlib
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.params import Params, Setting
from pipeline.params.setting import run_of
from pipeline.run.console import stage
from sagd.errors import InputError
from sagd.formulations.base import Formulation, Sampler
from sagd.noise.base import Noise
from sagd.noise.corruption import Corruption
from sagd.previews import save_grid
from sagd.runtime.distributed import World
from sagd.runtime.download import digest
from sagd.runtime.files import (
    BROKEN,
    of_machine,
    read_array,
    read_json,
    scratch,
    set_aside,
    sources,
    write_array,
    write_json,
    writing,
)
from sagd.runtime.progress import Bar
from sagd.sampling import draw_batches
from sagd.spaces.pixels import to_uint8

PREVIEW = 60
ROOMS = ("errors", "noise", "formulations", "networks", "spaces", "sampling")  # that define the samples


def main(params: Params, options: argparse.Namespace) -> None:
    world = World()
    if world.main and options.grid:
        params.sweep("sample")
    for setting in params.chosen(options):
        for variant in params.variants(setting):
            sample(variant, world)


def sample(setting: Setting, world: World) -> None:
    choice = setting.sample
    key = _key(setting, *(setting.artifacts(stage) for stage in ("train", "encode", "corrupt")))
    world.check_alike(key)
    place = scratch() / "sample" / key
    picture, archive, drawn_with = setting.report("sample", "png"), setting.samples_file, setting.samples_record
    if any(world.most(world.main and _kept(archive, drawn_with, key))):  # dvc.yaml kept them (persist)
        if world.main:
            first = read_array(archive, member=run_of(setting.seeds[0]))
            save_grid(picture, first[:PREVIEW], columns=12)
        return
    noise, data = setting.forward_noise(), setting.statistics()
    formulation = setting.train.formulation(tuple(data["mean"].shape))
    decode = decoder_of(setting, world.device)
    *earlier, _ = setting.run()["checkpoints"]
    counts = choice.drawn(earlier)
    shape = tuple(read_json(setting.prepared.record, shape=list)["shape"])
    names = {run_of(seed, step): (seed, step, n) for seed in setting.seeds for step, n in counts.items()}
    corrupts = setting.corruption()
    sampler = sampler_of(setting, formulation, noise, corrupts)
    parts = {}
    with (
        world.holding(place),
        Bar(f"sample {setting.title}", sum(n for *_, n in names.values()), rank=world.rank, size=world.size) as bar,
    ):
        for name, (seed, step, n) in names.items():
            firsts = range(0, n, choice.batch_size)
            parts[name] = [place / f"{name}_{first:07d}.npy" for first in firsts]
            # Each batch is kept as it comes: a process that was killed need not draw it.
            sizes = [min(choice.batch_size, n - first) for first in firsts]
            there = [world.main and _whole(*part, shape) for part in zip(parts[name], sizes, strict=True)]
            missing = world.most(*(world.main and not whole for whole in there))
            todo = [k for k, absent in enumerate(missing) if absent]
            bar.skip(n - sum(sizes[k] for k in todo))
            mine = todo[world.rank :: world.size]
            rounds = -(-len(todo) // world.size)
            batches = draw_batches(
                setting.network(seed, step).to(world.device), formulation, noise, sampler, data,
                [firsts[k] for k in mine], n=n, seed=seed, batch_size=choice.batch_size, decode=decode,
            )  # fmt: skip
            for k, x in zip(mine, batches, strict=True):
                if not torch.isfinite(x).all():
                    raise InputError(f"samples of {name} are not finite; train longer, or with a smaller train.lr")
                write_array(parts[name][k], to_uint8(corrupts.remove(x) if corrupts and choice.filtered else x).numpy())
                bar.update(len(x))
                world.wait()  # no host runs hours ahead of a slower one
            for _ in range(rounds - len(mine) + 1):
                world.wait()
        if not world.main:
            return
        drawn_with.unlink(missing_ok=True)
        _write(archive, parts, {name: n for name, (*_, n) in names.items()})
        write_json(drawn_with, {"key": key})
        images = itertools.chain.from_iterable(map(read_array, parts[run_of(setting.seeds[0])]))
        save_grid(picture, np.stack(list(itertools.islice(images, PREVIEW))), columns=12)
        for part in place.glob("*.npy"):
            part.unlink()


def sampler_of(setting: Setting, formulation: Formulation, noise: Noise, corrupts: Corruption | None) -> Sampler:
    """How a setting is sampled; `clip: auto` is on where a sampler clips, and what the networks learn lies in [-1, 1].

    That is, clean images, whole: with noise in a band they exceed it, and without a band, too.
    """
    how = setting.sample.clip
    discrete = formulation.alpha_bar is not None
    within = discrete and corrupts is None and noise.full and not setting.encode.centre
    return setting.sample.settings(clip=within if how == "auto" else how == "on")


def decoder_of(setting: Setting, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """From the space that is trained in to images in [-1, 1]."""
    manifest = setting.manifest()
    if manifest["kind"] == "pixel":
        if not manifest.get("centred"):
            return lambda x: x
        mean = setting.mean_image(device)
        return lambda x: x + mean
    from sagd.spaces.autoencoder import Autoencoder
    from sagd.spaces.latents import decoder

    return decoder(Autoencoder.recorded(manifest, device), setting.artifacts("encode"))


def _kept(archive: Path, drawn_with: Path, key: str) -> bool:
    """Whether samples that were drawn with a key are here, whole."""
    try:
        if not archive.exists() or not drawn_with.exists() or read_json(drawn_with).get("key") != key:
            return False
        with zipfile.ZipFile(archive) as file:
            damaged = file.testzip()
        why = f"{archive}: {damaged} is not as it was written"
    except InputError:  # of samples.json alone
        return False
    except BROKEN as error:
        if of_machine(error):
            raise
        damaged = why = f"cannot read {archive}: {error}"
    if damaged is not None:
        set_aside(archive, why, ours=True)  # the key beside it says so
    return damaged is None


def _write(archive: Path, parts: dict[str, list[Path]], counts: dict[str, int]) -> None:
    """The samples of each network in one compressed npz file, a batch at a time."""
    with writing(archive) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as file:
        for name, files in parts.items():
            shape = (counts[name], *read_array(files[0], memory_map=True).shape[1:])
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in files:
                    member.write(read_array(part).tobytes())


def _whole(part: Path, n: int, shape: tuple[int, ...]) -> bool:
    """Whether a batch of samples is here as it was written; a damaged one is set aside."""
    if not part.exists():
        return False
    try:
        found = read_array(part, memory_map=True, like=(np.uint8, 4)).shape
        why = f"{part} has shape {found}"
    except InputError as error:
        if of_machine(error.__cause__):
            raise
        found, why = (), str(error)
    if found == (n, *shape):
        return True
    set_aside(part, why)
    return False


def _key(setting: Setting, *folders: Path) -> str:
    """A hash of all that defines the samples: settings, code, and what is in the folders of the stages before."""
    described = [setting.seeds, *(getattr(setting, s).model_dump() for s in ("sample", "train", "corrupt"))]
    found = hashlib.sha256(json.dumps([described, sources(*ROOMS), torch.__version__]).encode())
    for file in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        found.update(digest(file).encode())
    return found.hexdigest()[:32]


if __name__ == "__main__":
    stage(main, shared=True)

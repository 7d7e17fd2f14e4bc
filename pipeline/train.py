"""Train a setting's networks, one for each seed: side by side on a CPU's cores, or in turn on several processes."""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.params import Params, Setting
from pipeline.params.setting import run_of
from pipeline.run.console import stage
from pipeline.run.launch import STDERR
from pipeline.run.timings import record
from sagd.errors import InputError
from sagd.networks import weights
from sagd.noise import stored
from sagd.noise.base import Noise
from sagd.noise.corruption import Corruption
from sagd.runtime.distributed import World
from sagd.runtime.files import (
    read_images,
    read_tensors,
    scratch,
    sources,
    write_bytes,
    write_json,
    write_tensors,
)
from sagd.runtime.parallel import concurrently
from sagd.runtime.progress import Bar
from sagd.spaces.latents import Latents
from sagd.spaces.pixels import Encoded, Pixels
from sagd.training.loop import Interrupted, Trained, train

EVERY = 10  # steps that a row of the loss curve averages
IN_MEMORY = 4e9  # bytes of images up to which a data set is held in memory, or in that of a GPU
ROOMS = ("errors", "noise", "formulations", "networks", "spaces", "training")  # that define the weights


def main(params: Params, options: argparse.Namespace) -> None:
    asked = threading.Event()  # to stop
    for setting in params.chosen(options):
        if asked.is_set():
            raise InputError("stopped; to resume, run the same command again")
        if options.dry:
            from pipeline.run.budget import dry

            dry(params, setting)
        else:
            train_setting(setting, asked)


def train_setting(setting: Setting, asked: threading.Event) -> None:
    choice, world = setting.train, World()
    manifest = setting.manifest(images=str)
    noise, corrupts = setting.forward_noise("encode"), setting.corruption()
    key = _key(setting, noise, corrupts, manifest)
    world.check_alike(key)
    run = scratch() / "train" / key
    folder, curve = setting.artifacts("train"), setting.report("train", "csv")
    source = source_of(setting, manifest, world)
    formulation, recipe = choice.formulation(source.shape), choice.recipe()

    if world.device.type == "cuda":
        from pipeline.run.budget import plan

        plan(setting, source, noise, world)

    earlier = choice.earlier
    images = choice.steps * choice.batch_size * len(setting.seeds)
    with world.holding(run), _listening(asked), Bar(f"train {setting.title}", images, rank=world.rank) as bar:

        def snapshot(seed: int, step: int, found: dict[str, torch.Tensor]) -> None:
            write_tensors(run / f"{run_of(seed, step)}.safetensors", found)

        def one(seed: int) -> Trained:
            network = choice.network(source.shape, source.classes, seed)
            return train(
                network, source, noise, formulation, recipe,
                seed=seed, corruption=corrupts, world=world,
                checkpoint=run / f"{run_of(seed)}.safetensors", stop=asked.is_set,
                resumed=lambda step: bar.skip(step * choice.batch_size),
                report=lambda loss: bar.update(choice.batch_size, loss=loss),
                snapshots=earlier,
                snapshot=lambda step, found: snapshot(seed, step, found),
            )  # fmt: skip

        try:
            side_by_side = world.size == 1
            runs = list(concurrently(one, setting.seeds, world.device) if side_by_side else map(one, setting.seeds))
        except Interrupted:
            if not world.main or STDERR in os.environ:  # the launcher says it
                sys.exit(1)
            raise InputError(f"stopped; to resume from {run}, run the same command again") from None
        if not world.main:
            return

        shutil.rmtree(folder, ignore_errors=True)  # run by hand: networks of other seeds
        for seed, trained in zip(setting.seeds, runs, strict=True):
            network = choice.network(source.shape, source.classes, seed)
            weights.save(setting.network_folder(seed), network, trained.weights)
            for step in earlier:
                found = read_tensors(run / f"{run_of(seed, step)}.safetensors")
                weights.save(setting.network_folder(seed, step), network, found)
        stored.save(setting.noise_file("train"), noise)
        write_json(setting.run_file, {"seeds": setting.seeds, "checkpoints": [*earlier, choice.steps]})
        write_bytes(curve, _loss_curve([r.losses for r in runs]))
        record(setting.title, _rate(runs, world), world)
        for at in (None, *earlier):  # the checkpoints first: one that is left goes on, and needs its snapshots
            for seed in setting.seeds:
                (run / f"{run_of(seed, at)}.safetensors").unlink(missing_ok=True)


@contextlib.contextmanager
def _listening(asked: threading.Event) -> Iterator[None]:
    """Note the signals that would end this process, so that it saves first."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup goes on
        numbers.append(signal.SIGHUP)
    before = {n: signal.signal(n, lambda *_: asked.set()) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def source_of(setting: Setting, manifest: dict, world: World) -> Pixels | Latents:
    """What a setting is trained on: images, latents, or images that are encoded as they are needed."""
    device = world.device
    if manifest.get("latents"):
        folder = scratch() / "latents" / manifest["latents"]
        if not (folder / "manifest.json").exists():
            raise InputError(f"the latents of {setting.title} are not in {folder}: `dvc repro -f` their stage encode")
        return Latents(folder, device, check=world.main)
    images = read_images(manifest["images"])
    in_memory = images.nbytes < IN_MEMORY
    pixels = Pixels(
        torch.from_numpy(np.array(images)).to(device) if in_memory else images, setting.prepared.labels(), device
    )
    if manifest["kind"] == "pixel":
        if not manifest.get("centred"):
            return pixels
        mean = setting.mean_image(device)
        return Encoded(pixels, lambda x0: x0 - mean, pixels.shape)
    from sagd.spaces.autoencoder import Autoencoder
    from sagd.spaces.latents import encoder

    autoencoder = Autoencoder.recorded(manifest, device)
    return Encoded(pixels, encoder(autoencoder, setting.artifacts("encode")), tuple(manifest["shape"]))


def _key(setting: Setting, noise: Noise, corrupts: Corruption | None, manifest: dict) -> str:
    """A hash of all that defines the run: settings, data and code."""
    train = setting.train.model_dump(exclude={"repeats", "snapshots"})
    spectra = [stored.fingerprint(noise.tensors()), corrupts and stored.fingerprint(corrupts.tensors())]
    data = [setting.prepared.sha256(), manifest]
    described = [train, setting.train.snapshots, setting.seeds, spectra, data, sources(*ROOMS), torch.__version__]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _loss_curve(losses: list[torch.Tensor]) -> bytes:
    """CSV of the loss, averaged over EVERY steps, mean and standard error over the seeds."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["step", "loss", "standard_error"])
    stacked = torch.stack(losses).double()
    for end in range(EVERY, stacked.shape[1] + 1, EVERY):
        per_seed = stacked[:, end - EVERY : end].mean(1)
        error = per_seed.std().item() / len(per_seed) ** 0.5 if len(per_seed) > 1 else float("nan")
        writer.writerow([end, f"{per_seed.mean().item():.6f}", f"{error:.6f}"])
    return table.getvalue().encode()


def _rate(runs: list[Trained], world: World) -> float | None:
    """Images a second of all runs together, without start-up; None if a finished run was only read back."""
    rates = [r.images_per_second for r in runs if r.images_per_second is not None]
    if len(rates) < len(runs):
        return None
    alone_on_a_cpu = world.device.type == "cpu" and world.size == 1
    side_by_side = min(torch.get_num_threads(), len(runs)) if alone_on_a_cpu else 1
    return side_by_side * sum(rates) / len(rates)


if __name__ == "__main__":
    stage(main, shared=True, dry=True)

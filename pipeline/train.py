"""Train a setting's networks, one for each seed: side by side on a CPU's cores, or in turn on several processes."""

import contextlib
import csv
import hashlib
import io
import json
import os
import signal
import sys
import threading

import torch

from pipeline.console import stage
from pipeline.launch import STDERR
from sagd import models
from sagd.corruption import Corruption
from sagd.distributed import World
from sagd.errors import InputError
from sagd.files import read_array, read_json, read_tensors, scratch, sources, write_bytes, write_json, write_tensors
from sagd.parallel import concurrently
from sagd.progress import Bar
from sagd.randomness import generator
from sagd.sources import Encoded, Latents, Pixels
from sagd.spectrum.varying import from_dict
from sagd.training import Interrupted, Recipe, Trained, train

EVERY = 10  # steps that a row of the loss curve averages
IN_MEMORY = 4e9  # bytes of images up to which a data set is held in memory, or in that of a GPU


def main(params, options):
    asked = threading.Event()  # to stop
    for setting in params.chosen(options):
        if asked.is_set():
            raise InputError("stopped; the same command goes on")
        if options.dry:
            from pipeline.dry import dry

            dry(params, setting)
        else:
            train_setting(setting, asked)


def train_setting(setting, asked):
    choice, world = setting.train, World()
    manifest = read_json(setting.artifacts("encode") / "manifest.json")
    source = source_of(setting, manifest, world.device)
    formulation = choice.formulation(source.shape)
    spectrum = from_dict(read_json(setting.artifacts("encode") / "spectrum.json"))
    corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
    recipe = recipe_of(choice)
    key = _key(setting, spectrum, manifest)
    world.check_alike(key)
    run = scratch() / "train" / key
    folder = setting.artifacts("train")

    if world.device.type == "cuda":
        from pipeline.dry import plan

        plan(setting, source, spectrum, world)

    earlier = [choice.steps * k // choice.snapshots for k in range(1, choice.snapshots)]
    images = choice.steps * choice.batch_size * len(setting.seeds)
    with world.holding(run), _listening(asked), Bar(f"train {setting.title}", images, rank=world.rank) as bar:

        def snapshot(seed: int, step: int, weights: dict[str, torch.Tensor]) -> None:
            write_tensors(run / f"seed_{seed}_step_{step}.safetensors", weights)

        def one(seed: int) -> Trained:
            return train(
                network_of(choice, source, seed), source, spectrum, formulation, recipe,
                seed=seed, corruption=corruption, world=world,
                checkpoint=run / f"seed_{seed}.safetensors", stop=asked.is_set,
                resumed=lambda step: bar.skip(step * choice.batch_size),
                report=lambda loss: bar.update(choice.batch_size, loss=loss),
                snapshots=earlier,
                snapshot=lambda step, weights: snapshot(seed, step, weights),
            )  # fmt: skip

        try:
            side_by_side = world.size == 1
            runs = list(concurrently(one, setting.seeds, world.device) if side_by_side else map(one, setting.seeds))
        except Interrupted:
            if not world.main or STDERR in os.environ:  # the launcher says it
                sys.exit(1)
            raise InputError(f"stopped; the same command goes on from {run}") from None
        if not world.main:
            return

        for seed, trained in zip(setting.seeds, runs, strict=True):
            network = network_of(choice, source, seed)
            models.save(folder / f"seed_{seed}", network, trained.weights)
            for step in earlier:
                name = f"seed_{seed}_step_{step}"
                models.save(folder / name, network, read_tensors(run / f"{name}.safetensors"))
        write_json(folder / "spectrum.json", spectrum.to_dict())
        write_json(
            folder / "run.json",
            {
                "seeds": setting.seeds,
                "checkpoints": [*earlier, choice.steps],
                "images_per_second": _rate(runs, world),
                **_machine(world),
            },
        )
        write_bytes(setting.report("train", "csv"), _loss_curve([r.losses for r in runs]))
        for file in sorted(run.glob("*.safetensors"), key=lambda f: "_step_" in f.name):
            file.unlink()  # the checkpoints first: one that is left goes on, and needs its snapshots


@contextlib.contextmanager
def _listening(asked: threading.Event):
    """Note the signals that would end this process, so that it saves first."""
    before = {n: signal.signal(n, lambda *_: asked.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def source_of(setting, manifest, device: torch.device) -> Pixels | Latents:
    """What a setting is trained on: images, latents, or images that are encoded as they are needed."""
    if manifest.get("latents"):
        folder = scratch() / "latents" / manifest["latents"]
        if not (folder / "manifest.json").exists():
            raise InputError(f"the latents of {setting.title} are not in {folder}: `dvc repro -f` their stage encode")
        return Latents(folder, device)
    images = read_array(manifest["images"], memory_map=True)
    if images.nbytes < IN_MEMORY:
        images = torch.from_numpy(read_array(manifest["images"])).to(device)
    pixels = Pixels(images, setting.labels(), device)
    if manifest["kind"] == "pixel":
        return pixels
    from sagd.latents import Autoencoder, encoder

    autoencoder = Autoencoder.recorded(manifest, device)
    return Encoded(pixels, encoder(autoencoder, setting.artifacts("encode")), tuple(manifest["shape"]))


def recipe_of(choice) -> Recipe:
    """How the section train of params.yaml says to optimise."""
    return Recipe(
        choice.steps, choice.batch_size, choice.lr, choice.warmup, tuple(choice.betas),
        **{name: getattr(choice, name) for name in (
            "weight_decay", "ema", "precision", "decay", "decay_from", "lr_last", "micro_batch_size", "flip",
            "label_dropout", "compile",
        )},
    )  # fmt: skip


def network_of(choice, source: Pixels | Latents, seed: int) -> torch.nn.Module:
    """The network that the section train describes, with the initial weights of a seed."""
    channels, *size = source.shape
    classes = 0 if source.labels is None else int(source.labels.max()) + 1
    with _seeded(seed):
        if choice.dit is not None:
            return models.dit(tuple(size), channels, classes, **choice.dit.model_dump())
        return models.unet(tuple(size), channels, **choice.unet.model_dump(), classes=classes)


def _key(setting, spectrum, manifest) -> str:
    """A hash of all that defines the run: settings, data and code."""
    digest = hashlib.sha256(setting.train.model_dump_json().encode())
    digest.update(json.dumps(spectrum.to_dict()).encode() + setting.corrupt.model_dump_json().encode())
    digest.update(json.dumps([setting.seeds, torch.__version__]).encode())
    digest.update(setting.data_sha256().encode() + json.dumps(manifest).encode() + sources().encode())
    return digest.hexdigest()[:32]


_global_seed = threading.Lock()


@contextlib.contextmanager
def _seeded(seed: int):
    """diffusers draws initial weights from PyTorch's global generator: seed it, one thread at a time."""
    with _global_seed, torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        yield


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
    rates = [r.images_per_second for r in runs]
    if None in rates:
        return None
    alone_on_a_cpu = world.device.type == "cpu" and world.size == 1
    side_by_side = min(torch.get_num_threads(), len(runs)) if alone_on_a_cpu else 1
    return side_by_side * sum(rates) / len(rates)


def _machine(world: World) -> dict:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} cores"
    return {"device": device if world.size == 1 else f"{world.size} x {device}", "torch": torch.__version__}


if __name__ == "__main__":
    stage(main, shared=True, dry=True)

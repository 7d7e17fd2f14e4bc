"""Train a setting's networks, one for each seed, side by side on the CPU's cores."""

import contextlib
import csv
import hashlib
import io
import json
import signal
import threading
from pathlib import Path

import torch

import sagd
from pipeline.console import stage
from sagd import models
from sagd.corruption import Corruption
from sagd.errors import InputError
from sagd.files import lock, read_array, read_json, read_tensors, scratch, write_bytes, write_json, write_tensors
from sagd.parallel import concurrently
from sagd.progress import Bar
from sagd.randomness import generator
from sagd.spectrum.varying import from_dict
from sagd.training import Interrupted, Recipe, Trained, train

EVERY = 10  # steps that a row of the loss curve averages


def main(params, options):
    for setting in params.chosen(options):
        train_setting(setting)


def train_setting(setting):
    choice = setting.train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    manifest = read_json(setting.artifacts("encode") / "manifest.json")
    images = torch.from_numpy(read_array(manifest["images"])).to(device)
    channels, *size = images.shape[1:]
    schedule = sagd.Schedule.named(choice.schedule)
    spectrum = from_dict(read_json(setting.artifacts("encode") / "spectrum.json"))
    corruption = Corruption.from_dict(read_json(setting.artifacts("corrupt") / "corruption.json"))
    recipe = Recipe(
        choice.steps, choice.batch_size, choice.lr, choice.warmup, tuple(choice.betas), ema=choice.ema,
        precision=choice.precision,
    )  # fmt: skip
    run = scratch() / "train" / _key(setting, spectrum, images)
    folder = setting.artifacts("train")

    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())

    with _locked(run), Bar(f"train {setting.title}", choice.steps * choice.batch_size * len(setting.seeds)) as bar:
        earlier = [choice.steps * k // choice.snapshots for k in range(1, choice.snapshots)]

        def one(seed: int) -> Trained:
            with _seeded(seed):
                network = models.unet(tuple(size), channels, **choice.unet.model_dump()).to(device)
            return train(
                network, images, spectrum, schedule, recipe,
                seed=seed, prediction=choice.prediction, corruption=corruption,
                checkpoint=run / f"seed_{seed}.safetensors", stop=asked.is_set,
                resumed=lambda step: bar.skip(step * choice.batch_size),
                report=lambda loss: bar.update(choice.batch_size, loss=loss),
                snapshots=earlier,
                snapshot=lambda step, weights: write_tensors(run / f"seed_{seed}_step_{step}.safetensors", weights),
            )  # fmt: skip

        try:
            runs = list(concurrently(one, setting.seeds, device))
        except Interrupted:
            raise InputError(f"stopped; the same command goes on from {run}") from None

        for seed, trained in zip(setting.seeds, runs, strict=True):
            network = models.unet(tuple(size), channels, **choice.unet.model_dump())
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
                "images_per_second": _rate(runs, device),
                **_machine(),
            },
        )
        write_bytes(setting.report("train", "csv"), _loss_curve([r.losses for r in runs]))
        for file in sorted(run.glob("*.safetensors"), key=lambda f: "_step_" in f.name):
            file.unlink()  # the checkpoints first: one that is left goes on, and needs its snapshots


@contextlib.contextmanager
def _locked(run: Path):
    """Hold a run's scratch folder: two trainers in one folder would destroy each other's checkpoints."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / "lock", "w")
    except OSError as error:
        raise InputError(f"cannot write {run}: {error.strerror}; SAGD_SCRATCH names another folder") from error
    with file:
        lock(file, run)
        yield


def _key(setting, spectrum, images: torch.Tensor) -> str:
    """A hash of all that defines the run: settings, data and code."""
    digest = hashlib.sha256(setting.train.model_dump_json().encode())
    digest.update(json.dumps(spectrum.to_dict()).encode() + setting.corrupt.model_dump_json().encode())
    digest.update(json.dumps([setting.seeds, torch.__version__]).encode())
    digest.update(images.cpu().numpy().tobytes())
    for file in sorted(Path(sagd.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
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


def _rate(runs: list[Trained], device: torch.device) -> float | None:
    """Images a second of all runs together, without start-up; None if a finished run was only read back."""
    rates = [r.images_per_second for r in runs]
    if None in rates:
        return None
    side_by_side = min(torch.get_num_threads(), len(runs)) if device.type == "cpu" else 1
    return side_by_side * sum(rates) / len(rates)


def _machine() -> dict:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} cores"
    return {"device": device, "torch": torch.__version__}


if __name__ == "__main__":
    stage(main)

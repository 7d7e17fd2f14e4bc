"""The training loop: loss, AdamW, EMA, and checkpoints from which it goes on to the same bits."""

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sagd.corruption import Corruption
from sagd.diffusion import LOSSES, PREDICTIONS, Schedule, check_schedule
from sagd.errors import InputError
from sagd.files import read_tensors, write_tensors
from sagd.models import predictor
from sagd.randomness import generator
from sagd.spectrum import Spectrum, one_of
from sagd.spectrum.varying import Varying


@dataclass(frozen=True)
class Recipe:
    """How to optimise. The defaults are those of diffusers' unconditional training script, but for the batch.

    Parameters
    ----------
    steps, batch_size, lr
        Optimiser steps, images a step, peak learning rate.
    warmup
        Steps of linear warm-up; a cosine to zero follows.
    betas, weight_decay
        Of AdamW.
    clip_norm
        Largest norm of the gradient.
    ema
        Largest decay of the running average of the weights; the decay at step k is min(ema, 1 - (1 + k)^-3/4).
    precision
        ``fp32``, ``bf16`` (autocast; weights stay float32), or ``auto``: bf16 on a GPU that has it.
    """

    steps: int
    batch_size: int
    lr: float = 1e-4
    warmup: int = 500
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    clip_norm: float = 1.0
    ema: float = 0.9999
    precision: str = "auto"

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Trained:
    """A finished run: the averaged weights, the loss of every step, and the images a second of this process."""

    weights: dict[str, Tensor]
    losses: Tensor
    images_per_second: float | None


class Interrupted(Exception):
    """The run was asked to stop, and has saved its checkpoint, where it has one."""


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Which images step ``step`` sees: consecutive slices of a permutation that is drawn anew each epoch."""
    epoch, place = divmod(step, n // batch_size)
    return _order(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]


@functools.lru_cache(maxsize=16)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def draw_batch(
    images: Tensor,
    schedule: Schedule,
    spectrum: Spectrum | Varying,
    corruption: Corruption | None,
    batch_size: int,
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Everything random about a step, a function of (seed, step) alone: x0 (B, C, H, W) in [-1, 1], t (B,) and eps.

    Parameters
    ----------
    corruption
        Is done to x0, with fresh noise in every epoch (section 3.3).
    """
    device = images.device
    source = generator(seed, "train", step, device)
    x0 = images[batch_indices(len(images), batch_size, seed, step).to(device)].float() / 127.5 - 1
    t = torch.randint(len(schedule), (batch_size,), generator=source, device=device)
    eps = spectrum.sample(x0.shape, generator=source, t=t)
    if corruption is not None:
        x0 = corruption(x0, source)
    return x0, t, eps


def train(
    network: nn.Module,
    images: Tensor,
    spectrum: Spectrum | Varying,
    schedule: Schedule,
    recipe: Recipe,
    *,
    seed: int,
    prediction: str = "eps",
    corruption: Corruption | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    resumed: Callable[[int], None] = lambda step: None,
    report: Callable[[Tensor], None] = lambda loss: None,
    snapshots: Collection[int] = (),
    snapshot: Callable[[int, dict[str, Tensor]], None] = lambda step, weights: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train a network to predict the noise of a spectrum, or v.

    Parameters
    ----------
    network
        A diffusers U-Net, float32, on the device to train on; trained in place.
    images
        (N, C, H, W), uint8, on the same device: the whole data set, in memory.
    prediction
        ``eps`` (eq. 26) or ``v``.
    checkpoint
        Where to save, about every ``checkpoint_seconds``; where such a file is, the run goes on from it, and on a CPU
        its weights end bit-identical to those of a run that was never cut.
    resumed
        Called once with the step that the run goes on from, if it does.
    report
        Called after each step with its loss.
    snapshots, snapshot
        After these steps (counted from 1) ``snapshot`` is given the step and the averaged weights.
    stop
        Asked after each step; once it says yes, the run saves and raises `Interrupted`.

    Raises
    ------
    InputError
        Batch larger than the data, a checkpoint of another run, a loss that is not finite, a full disk.
    """
    device = images.device
    one_of("prediction", prediction, PREDICTIONS)
    if recipe.batch_size > len(images):
        raise InputError(f"batch_size is {recipe.batch_size}; the data set has {len(images)} images")
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network.to(memory_format=layout).train()
    parameters = dict(network.named_parameters())
    averaged = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    losses = torch.full((recipe.steps,), float("nan"), device=device)
    use_bf16 = _use_bf16(recipe.precision, device)
    noises = [spectrum.to_dict(), corruption and corruption.to_dict()]
    check_schedule(schedule, spectrum)
    diffusion = [prediction, hashlib.sha256(schedule.alpha_bar.numpy().tobytes()).hexdigest()]
    describe = json.dumps([asdict(recipe), seed, use_bf16, list(images.shape), *diffusion, *noises])
    state = _State(parameters, averaged, optimizer, losses, describe)
    started = state.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    if started:
        resumed(started)
    predict = predictor(network)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16)

    clock = saved = time.monotonic()
    for step in range(started, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        x0, t, eps = draw_batch(images, schedule, spectrum, corruption, recipe.batch_size, seed, step)
        with precision:
            loss = LOSSES[prediction](predict, schedule, x0.to(memory_format=layout), t, eps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_norm, foreach=True)
        optimizer.step()
        with torch.no_grad():
            decay = min(recipe.ema, 1 - (1 + step) ** -0.75)
            torch._foreach_lerp_(list(averaged.values()), list(parameters.values()), 1 - decay)
        losses[step] = loss.detach()
        report(losses[step])
        if step + 1 in snapshots:
            snapshot(step + 1, averaged)
        last = step + 1 == recipe.steps
        stopping = stop() and not last
        due = checkpoint is not None and time.monotonic() - saved > checkpoint_seconds
        if last or stopping or due:
            _check_finite(losses[: step + 1], recipe.lr)  # before a good checkpoint is replaced
        if (stopping or due) and not last:
            state.save(checkpoint, step + 1)
            saved = time.monotonic()
        if stopping:
            raise Interrupted
    seconds = time.monotonic() - clock
    rate = (recipe.steps - started) * recipe.batch_size / seconds if recipe.steps > started else None
    return Trained(averaged, losses.cpu(), rate)


def _check_finite(losses: Tensor, lr: float) -> None:
    if not torch.isfinite(losses).all():
        first = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise InputError(f"the loss is not finite from step {first} on; the learning rate is {lr}: try a smaller one")


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


@dataclass
class _State:
    """What a checkpoint holds: one safetensors file, whole or absent."""

    parameters: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    losses: Tensor
    describe: str

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"losses": self.losses}
        for name, p in self.parameters.items():
            moments = self.optimizer.state[p]
            if not moments:  # as AdamW makes them in its first step
                moments["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            tensors |= {f"weights.{name}": p, f"ema.{name}": self.averaged[name]}
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        return tensors

    def save(self, path: Path | None, step: int) -> None:
        if path is not None:
            tensors = {name: t.detach().cpu() for name, t in self.tensors().items()}
            write_tensors(path, tensors | {"step": torch.tensor(step)}, {"run": self.describe})

    def load(self, path: Path) -> int:
        import safetensors

        saved = read_tensors(path)
        with safetensors.safe_open(path, "pt") as file:
            run = (file.metadata() or {}).get("run")
        mine = self.tensors()
        fits = all(name in saved and saved[name].shape == t.shape for name, t in mine.items())
        if run != self.describe or not fits:
            raise InputError(f"{path} is the checkpoint of another run: {run}; remove it, or restore those settings")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(saved[name])
        return int(saved["step"])

"""The training loop: loss, AdamW, EMA, and checkpoints from which it goes on to the same bits."""

import functools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagd.corruption import Corruption
from sagd.diffusion import Diffusion, Formulation, check_schedule
from sagd.distributed import World, fill, local, unsynchronised
from sagd.errors import InputError
from sagd.files import read_tensors, write_tensors
from sagd.models import classes_of, predictor
from sagd.randomness import generator
from sagd.sources import Latents, Pixels
from sagd.spectrum import Spectrum
from sagd.spectrum.varying import Varying

AGREE = 10  # steps, at most, between the questions whether to save or to stop, where processes have to agree
SAVING = 0.05  # of the time, at most


@dataclass(frozen=True)
class Recipe:
    """How to optimise. The defaults are those of diffusers' unconditional training script, but for the batch.

    Parameters
    ----------
    steps, batch_size, lr
        Optimiser steps, images a step, peak learning rate.
    warmup
        Steps of linear warm-up.
    decay, decay_from, lr_last
        From the end of the warm-up, or from step ``decay_from`` if that is later, ``cosine`` or ``linear`` to
        ``lr_last`` at the end.
    betas, weight_decay
        Of AdamW.
    micro_batch_size
        How many images of its batch a device takes at a time, to save memory; None for all of them.
    flip
        Mirror half the images, drawn anew in every step.
    label_dropout
        The share of labels that are hidden from a network that knows labels.
    clip_norm
        Largest norm of the gradient.
    ema
        Largest decay of the running average of the weights; the decay at step k is min(ema, 1 - (1 + k)^-3/4).
    precision
        ``fp32``, ``bf16`` (autocast; weights stay float32), or ``auto``: bf16 on a GPU that has it.
    compile
        Whether `torch.compile` makes kernels of the network, in a minute or so; on a CPU with a C++ compiler at hand.
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
    decay: str = "cosine"
    decay_from: int = 0
    lr_last: float = 0.0
    micro_batch_size: int | None = None
    flip: bool = False
    label_dropout: float = 0.1
    compile: bool = False

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, self.decay_from)
        done = max(0, step - start) / max(1, self.steps - start)
        left = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.lr_last + (self.lr - self.lr_last) * left


@dataclass
class Trained:
    """A finished run: the averaged weights (rank 0 alone has them), every step's loss, the images a second of all."""

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


class Batch(NamedTuple):
    """What a step sees: x0 (B, C, H, W), t (B,), eps like x0, and labels (B,) or None."""

    x0: Tensor
    t: Tensor
    eps: Tensor
    labels: Tensor | None


def draw_batch(
    source: Pixels | Latents,
    formulation: Formulation,
    spectrum: Spectrum | Varying,
    corruption: Corruption | None,
    recipe: Recipe,
    seed: int,
    step: int,
    *,
    classes: int = 0,
    rows: slice | None = None,
    stored: Tensor | None = None,
) -> Batch:
    """Everything random about a step, a function of (seed, step) alone; or its ``rows``, which are what they are in it.

    Parameters
    ----------
    corruption
        Is done to images in [-1, 1], with fresh noise in every epoch (section 3.3).
    classes
        How many labels the network knows.
    stored
        What `read` gives for this step, if it has been read.
    """
    n, device = recipe.batch_size, source.device
    draws = generator(seed, "train", step, device)
    x0 = source.to_x0(read(source, recipe, seed, step, rows) if stored is None else stored)
    t = formulation.draw_times(n, generator=draws, device=device)
    eps = spectrum.sample((n, *source.shape), generator=draws, t=t, rows=rows)
    if corruption is not None:
        x0 = corruption(x0, draws, rows, n)
    labels = None
    if classes:
        hidden = torch.rand(n, generator=generator(seed, "labels", step)) < recipe.label_dropout
        labels = source.labels[batch_indices(len(source), n, seed, step)].masked_fill(hidden, classes)
        labels = (labels if rows is None else labels[rows]).to(device)
    x0 = torch.cat([source.encode(some) for some in x0.split(recipe.micro_batch_size or len(x0))])
    return Batch(x0, t if rows is None else t[rows], eps, labels)


def read(source: Pixels | Latents, recipe: Recipe, seed: int, step: int, rows: slice | None = None) -> Tensor:
    """The images or latents of a step, as they are stored."""
    indices = batch_indices(len(source), recipe.batch_size, seed, step)
    flip = None
    if recipe.flip:
        flip = torch.rand(len(indices), generator=generator(seed, "flip", step)) < 0.5
    if rows is not None:
        indices, flip = indices[rows], None if flip is None else flip[rows]
    return source.read(indices, flip)


def _read_ahead(source: Pixels | Latents, recipe: Recipe, seed: int, started: int, rows: slice | None) -> Iterator:
    """What each step takes from the source; from the disk it is read while the step before is computed."""
    if source.in_memory or started == recipe.steps:
        yield from (read(source, recipe, seed, step, rows) for step in range(started, recipe.steps))
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, source, recipe, seed, started, rows)
        for step in range(started + 1, recipe.steps):
            found, waiting = waiting.result(), pool.submit(read, source, recipe, seed, step, rows)
            yield found
        yield waiting.result()


def train(
    network: nn.Module,
    source: Pixels | Latents,
    spectrum: Spectrum | Varying,
    formulation: Formulation,
    recipe: Recipe,
    *,
    seed: int,
    corruption: Corruption | None = None,
    world: World | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    resumed: Callable[[int], None] = lambda step: None,
    report: Callable[[Tensor], None] = lambda loss: None,
    snapshots: Collection[int] = (),
    snapshot: Callable[[int, dict[str, Tensor]], None] = lambda step, weights: None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train a network to predict the noise of a spectrum, or v, the velocity, or the data.

    Parameters
    ----------
    network
        `sagd.models.unet` or `sagd.models.dit`, float32; moved to the source's device, and trained in place.
    source
        Images or latents, on the device to train on; with labels, if the network knows any.
    formulation
        What is predicted, and at which times: `Diffusion`, `Flow` or `EDM`.
    world
        The processes that share each batch, if there are several. Weights and losses are those of one process but for
        the order of sums, and only rank 0 writes checkpoints and snapshots.
    checkpoint
        Where to save, about every ``checkpoint_seconds``, and less often where saving takes long, so that it takes a
        twentieth of the time at most. Where such a file is, the run goes on from it, on any number of processes, and on
        one CPU its weights end bit-identical to those of a run that was never cut.
    resumed
        Called once with the step that the run goes on from, if it does.
    report
        Called after each step with its loss.
    snapshots, snapshot
        After these steps (counted from 1) ``snapshot`` is given the step and the averaged weights, on rank 0 alone.
    stop
        Asked after each step; once it says yes, the run saves and raises `Interrupted`.

    Raises
    ------
    InputError
        Batch larger than the data, labels missing, a checkpoint of another run, processes that do not do the same, a
        loss that is not finite, a full disk.
    """
    device, world = source.device, world or World()
    classes = classes_of(network)
    if recipe.batch_size > len(source):
        raise InputError(f"batch_size is {recipe.batch_size}; the data set has {len(source)} images")
    if classes and (source.labels is None or int(source.labels.max()) >= classes):
        found = "none" if source.labels is None else f"labels up to {int(source.labels.max())}"
        raise InputError(f"the network knows {classes} labels; the data set has {found}")
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network.to(memory_format=layout).train()
    rows = world.rows(recipe.batch_size)
    wrapped = world.wrap(network, device)
    called = _compiled(wrapped, device) if recipe.compile else wrapped
    parameters = dict(network.named_parameters())
    averaged = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(
        [p for p in parameters.values() if p.requires_grad],
        lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip
    losses = torch.full((recipe.steps,), float("nan"), device=device)
    use_bf16 = _use_bf16(recipe.precision, device)
    noises = [spectrum.to_dict(), corruption and corruption.to_dict()]
    if isinstance(formulation, Diffusion):
        check_schedule(formulation.schedule, spectrum)
    elif isinstance(spectrum, Varying):
        raise InputError("a varying spectrum follows a discrete schedule; flow matching and EDM have none")
    describe = json.dumps([asdict(recipe), seed, use_bf16, len(source), *source.shape, formulation.to_dict(), *noises])
    state = _State(parameters, averaged, optimizer, losses, describe, world)
    started = state.resume(checkpoint)
    if started:
        resumed(started)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16)
    ema, trained = [local(t) for t in averaged.values()], [local(p) for p in parameters.values()]

    clock = saved = time.monotonic()
    question, pause = started + 1, checkpoint_seconds
    for step, stored in enumerate(_read_ahead(source, recipe, seed, started, rows), started):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        batch = draw_batch(
            source, formulation, spectrum, corruption, recipe, seed, step, classes=classes, rows=rows, stored=stored
        )
        optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        parts = range(0, len(batch.x0), recipe.micro_batch_size or len(batch.x0))
        for start in parts:
            x0, t, eps, labels = (None if b is None else b[start : start + parts.step] for b in batch)
            with unsynchronised(wrapped, last=start == parts[-1]):
                with precision:
                    part = formulation.loss(predictor(called, labels), x0.to(memory_format=layout), t, eps)
                part = part * (len(x0) / len(batch.x0))
                part.backward()
            loss += part.detach()
        nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_norm, foreach=True)
        optimizer.step()
        with torch.no_grad():
            decay = min(recipe.ema, 1 - (1 + step) ** -0.75)
            torch._foreach_lerp_(ema, trained, 1 - decay)
        losses[step] = world.mean(loss)
        report(losses[step])
        if step + 1 in snapshots:
            weights = world.collected(averaged)
            if world.main:
                snapshot(step + 1, weights)
        last = step + 1 == recipe.steps
        stopping = stop() and not last
        due = checkpoint is not None and world.main and time.monotonic() - saved > pause
        if world.size > 1 and (last or step + 1 < question):
            stopping = due = False
        elif world.size > 1:  # about once a second: on a GPU the answer is waited for
            rate = (step + 1 - started) / (time.monotonic() - clock)
            stopping, due, question = world.most(stopping, due, step + 1 + max(1, min(AGREE, round(rate))))
        if last or stopping or due:
            _check_finite(losses[: step + 1], recipe.lr)  # before a good checkpoint is replaced
            began = time.monotonic()
            state.save(checkpoint, step + 1)
            saved = time.monotonic()
            pause = max(checkpoint_seconds, (saved - began) / SAVING)
        if stopping:
            raise Interrupted
    seconds = time.monotonic() - clock
    rate = (recipe.steps - started) * recipe.batch_size / seconds if recipe.steps > started else None
    return Trained(world.collected(averaged), losses.cpu(), rate)


def _check_finite(losses: Tensor, lr: float) -> None:
    if not torch.isfinite(losses).all():
        first = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise InputError(f"the loss is not finite from step {first} on; the learning rate is {lr}: try a smaller one")


def _compiled(network: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise InputError("train.compile needs a C++ compiler on a CPU: g++, or the one that CXX names; there is none")
    return torch.compile(network)


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
    world: World

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"losses": self.losses}
        for name, p in self.parameters.items():
            tensors |= {f"weights.{name}": p, f"ema.{name}": self.averaged[name]}
            if not p.requires_grad:
                continue
            moments = self.optimizer.state[p]
            if not moments:  # as AdamW makes them in its first step
                moments["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        return tensors

    def save(self, path: Path | None, step: int) -> None:
        if path is None:
            return
        tensors = self.world.collected(self.tensors())
        if self.world.main:
            write_tensors(path, tensors | {"step": torch.tensor(step)}, {"run": self.describe})
        self.world.wait()  # a process that ended here would take along what is still to be collected

    def resume(self, path: Path | None) -> int:
        """The step to go on from, of which all processes must say the same; 0 if there is no checkpoint."""
        self.world.check_alike(self.describe)
        different = f"not all processes find one checkpoint at {path}: SAGD_SCRATCH must be a folder that all hosts see"
        there = path is not None and path.exists()
        if not self.world.alike(str(there)):
            raise InputError(different)
        step = self._load(path) if there else 0
        if not self.world.alike(str(step)):
            raise InputError(different)
        return step

    def _load(self, path: Path) -> int:
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
                fill(tensor, saved[name])
        return int(saved["step"])

"""The training loop: loss, optimiser, EMA, and checkpoints; a resumed run ends with the same bits (see `train`)."""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagd.errors import InputError, check_number, check_whole, shortened
from sagd.formulations.base import Formulation, check_formulation
from sagd.networks.weights import classes_of, described, predictor
from sagd.noise.base import Noise
from sagd.noise.corruption import Corruption
from sagd.noise.stored import fingerprint
from sagd.runtime.distributed import World, local, unsynchronised
from sagd.spaces.latents import Latents
from sagd.spaces.pixels import Pixels
from sagd.training.batches import draw_batch, read, read_ahead
from sagd.training.checkpoint import State
from sagd.training.optimizer import optimizers
from sagd.training.recipe import Recipe

AGREE = 10  # steps, at most, between the questions whether to save or to stop, where processes have to agree
SAVING = 0.05  # of the time, at most


@dataclass
class Trained:
    """A finished run: averaged weights (on rank 0 only), each step's loss, images per second over all processes."""

    weights: dict[str, Tensor]
    losses: Tensor
    images_per_second: float | None


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint, if it has one, is saved."""


def train(
    network: nn.Module,
    source: Pixels | Latents,
    noise: Noise,
    formulation: Formulation,
    recipe: Recipe,
    *,
    seed: int,
    corruption: Corruption | None = None,
    world: World | None = None,
    checkpoint: Path | str | None = None,
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
        Of `sagd.networks`, float32; moved to the source's device, and trained in place.
    source
        Images or latents, on the device to train on; with labels, if the network knows any.
    formulation
        What is predicted, and at which times: `Diffusion`, `Flow` or `EDM`.
    world
        The processes that share each batch, if there are several. Weights and losses equal those of one process up to
        the order of sums; only rank 0 writes checkpoints and snapshots.
    checkpoint
        Where to save, about every ``checkpoint_seconds``; less often if saving is slow, so that it takes at most 5 % of
        the time. If the file exists, the run resumes from it, on any number of processes; on one CPU, with one number
        of threads, the final weights are bit-identical to those of an uninterrupted run. A damaged checkpoint is set
        aside, and the run begins again; any other file or folder that lies there is left as it is, and refused.
    resumed
        Called once with the step that the run resumes from, if it does.
    report
        Called after each step with its loss.
    snapshots, snapshot
        After each of these steps (counted from 1) ``snapshot`` gets the step and the averaged weights, on rank 0 only.
    stop
        Called after each step; once it returns true, the run saves and raises `Interrupted`.

    Raises
    ------
    InputError
        Batch larger than the data, labels missing, a checkpoint of another run, something else in its place, processes
        with different settings, a loss that is not finite, a full disk.
    """
    _check_kinds(network, source, formulation, recipe, corruption, snapshots)
    check_whole("seed", seed)
    check_number("checkpoint_seconds", checkpoint_seconds, least=0)
    checkpoint = None if checkpoint is None else Path(checkpoint)
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
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    averaged = {name: p.detach().clone() for name, p in parameters.items()}
    optimising = optimizers(network, recipe)
    losses = torch.full((recipe.steps,), float("nan"), device=device, dtype=torch.float32)
    use_bf16 = _use_bf16(recipe.precision, device)
    formulation.check(noise)
    noises = [fingerprint(noise.tensors()), fingerprint(corruption.tensors()) if corruption else None]
    seen = fingerprint({"first batch": read(source, recipe, seed, 0).cpu()})  # enough to tell one data set from another
    data = [len(source), *source.shape, seen]
    what = [asdict(recipe), seed, use_bf16, *data, described(network), formulation.to_dict(), *noises]
    describe = json.dumps(what, default=lambda number: number.item())  # a recipe may hold NumPy's numbers
    state = State(parameters, averaged, optimising, losses, describe, world)
    started = state.resume(checkpoint)
    if started:
        resumed(started)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16)
    ema, trained = [local(t) for t in averaged.values()], [local(p) for p in parameters.values()]

    clock = saved = time.monotonic()
    question, pause = started + 1, checkpoint_seconds
    for step, stored in enumerate(read_ahead(source, recipe, seed, started, rows), started):
        for optimizer in optimising:
            optimizer.param_groups[0]["lr"] = recipe.lr_at(step)
            optimizer.zero_grad()
        batch = draw_batch(
            source, formulation, noise, corruption, recipe, seed, step, classes=classes, rows=rows, stored=stored
        )
        loss = torch.zeros((), device=device, dtype=torch.float32)
        parts = range(0, len(batch.x0), recipe.micro_batch_size or len(batch.x0))
        for start in parts:
            x0, t, eps, labels = batch.part(slice(start, start + parts.step))
            with unsynchronised(wrapped, last=start == parts[-1]):
                with precision:
                    part = formulation.loss(
                        predictor(called, labels), noise, x0.to(memory_format=layout), t, eps, project=recipe.project
                    )
                part = part * (len(x0) / len(batch.x0))
                part.backward()
            loss += part.detach()
        nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_norm, foreach=True)
        for optimizer in optimising:
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
            agreed = world.most(stopping, due, step + 1 + max(1, min(AGREE, round(rate))))
            stopping, due, question = bool(agreed[0]), bool(agreed[1]), agreed[2]
        if last or stopping or due:
            _check_finite(losses[: step + 1], recipe.lr)  # before a good checkpoint is replaced
            began = time.monotonic()
            state.save(checkpoint, step + 1)
            saved = time.monotonic()
            pause = max(checkpoint_seconds, (saved - began) / SAVING)
        if stopping:
            raise Interrupted
    seconds = time.monotonic() - clock
    images_per_second = (recipe.steps - started) * recipe.batch_size / seconds if recipe.steps > started else None
    return Trained(world.collected(averaged), losses.cpu(), images_per_second)


def _check_kinds(
    network: nn.Module,
    source: Pixels | Latents,
    formulation: Formulation,
    recipe: Recipe,
    corruption: Corruption | None,
    snapshots: Collection[int],
) -> None:
    """Refuse other kinds of objects, and a network for data of other channels."""
    check_formulation(formulation)
    for name, value, fits, such in (
        ("network", network, isinstance(network, nn.Module), "a torch.nn.Module"),
        ("source", source, hasattr(source, "in_memory"), "images or latents, such as sagd.spaces.pixels.Pixels"),
        ("recipe", recipe, isinstance(recipe, Recipe), "a Recipe"),
        ("corruption", corruption, isinstance(corruption, Corruption | None), "a Corruption or None"),
        ("snapshots", snapshots, isinstance(snapshots, Collection) and not isinstance(snapshots, str), "steps"),
    ):
        if not fits:
            said = type(value).__name__ if isinstance(value, Tensor | nn.Module) else repr(value)
            raise InputError(f"{name} is {shortened(said, 60)}; it must be {such}")
    for step in snapshots:
        check_whole("an entry of snapshots", step, 1, recipe.steps)
    channels = getattr(network, "config", {}).get("in_channels", source.shape[0])
    if channels != source.shape[0]:
        raise InputError(f"the network takes {channels} channels; the data have {source.shape[0]}")


def _check_finite(losses: Tensor, lr: float) -> None:
    if not torch.isfinite(losses).all():
        first = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise InputError(f"the loss is not finite from step {first} on; the learning rate is {lr}: try a smaller one")


def _compiled(network: nn.Module, device: torch.device) -> Callable[..., Any]:
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise InputError("compile needs a C++ compiler on a CPU: g++, or the one that CXX names; none was found")
    return torch.compile(network)


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"

"""How to optimise."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sagd.errors import InputError, one_of

Decay = Literal["cosine", "linear"]
Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adamw", "muon"]
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)


@dataclass(frozen=True)
class Recipe:
    """How to optimise. The defaults are those of diffusers' unconditional training script, except the batch size.

    Parameters
    ----------
    steps, batch_size, lr
        Optimiser steps, images a step, peak learning rate.
    warmup
        Steps of linear warm-up; a training that is not longer never reaches ``lr``.
    decay, decay_from, lr_last
        From the end of the warm-up, or from step ``decay_from`` if that is later, ``cosine`` or ``linear`` to
        ``lr_last`` at the end.
    optimizer
        ``adamw``; or ``muon``, which orthogonalises the updates of the hidden layers' matrices and leaves the rest to
        AdamW: a short training gets further, a step takes a little longer (docs/recipe.md).
    betas, weight_decay
        Of AdamW; the decay of both.
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
    project
        Whether the loss is taken on the support of the noise, as sampling is; false is the paper's literal loss. At
        full support there is no difference.
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
    precision: Precision = "auto"
    decay: Decay = "cosine"
    decay_from: int = 0
    lr_last: float = 0.0
    micro_batch_size: int | None = None
    flip: bool = False
    label_dropout: float = 0.1
    optimizer: Optimizer = "adamw"
    project: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        one_of("precision", self.precision, get_args(Precision))
        one_of("decay", self.decay, get_args(Decay))
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        for name in ("steps", "batch_size", "micro_batch_size"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; it must be 1 or more")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, self.decay_from)
        done = max(0, step - start) / max(1, self.steps - start)
        left = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.lr_last + (self.lr - self.lr_last) * left

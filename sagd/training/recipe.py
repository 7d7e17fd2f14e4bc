"""How to optimise."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sagd.errors import InputError, check_flag, check_number, check_whole, one_of, shortened

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
        Optimiser steps, images a step, peak learning rate, above 0.
    warmup
        Steps of linear warm-up; a training that is not longer never reaches ``lr``.
    decay, decay_from, lr_last
        From the end of the warm-up, or from step ``decay_from`` if that is later, ``cosine`` or ``linear`` to
        ``lr_last``, 0 or more, at the end.
    optimizer
        ``adamw``; or ``muon``, which orthogonalises the updates of the hidden layers' matrices and leaves the rest to
        AdamW: a short training gets further, a step takes a little longer (docs/recipe.md).
    betas, weight_decay
        Of AdamW, each in [0, 1); the decay of both, 0 or more.
    micro_batch_size
        How many images of its batch a device takes at a time, to save memory; None for all of them.
    flip
        Mirror half the images, drawn anew in every step.
    label_dropout
        The share of labels, in [0, 1], that are hidden from a network that knows labels.
    clip_norm
        Largest norm of the gradient, above 0; ``math.inf`` clips nothing.
    ema
        Largest decay of the running average of the weights, in [0, 1]; the decay at step k is min(ema,
        1 - (1 + k)^-3/4).
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
        for name in ("flip", "project", "compile"):
            check_flag(name, getattr(self, name))
        check_whole("steps", self.steps, 1)
        check_whole("batch_size", self.batch_size, 1)
        if self.micro_batch_size is not None:
            check_whole("micro_batch_size", self.micro_batch_size, 1)
        check_whole("warmup", self.warmup, 0)
        check_whole("decay_from", self.decay_from, 0)
        check_number("lr", self.lr, above=0)
        check_number("lr_last", self.lr_last, least=0)
        check_number("weight_decay", self.weight_decay, least=0)
        if not isinstance(self.betas, list | tuple) or len(self.betas) != 2:
            raise InputError(f"betas is {shortened(repr(self.betas), 60)}; it must be two numbers")
        for beta in self.betas:
            check_number("an entry of betas", beta, least=0, below=1)
        check_number("label_dropout", self.label_dropout, least=0, most=1)
        check_number("ema", self.ema, least=0, most=1)
        if not (isinstance(self.clip_norm, float) and self.clip_norm == math.inf):
            check_number("clip_norm", self.clip_norm, above=0)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, self.decay_from)
        done = max(0, step - start) / max(1, self.steps - start)
        left = (1 + math.cos(math.pi * done)) / 2 if self.decay == "cosine" else 1 - done
        return self.lr_last + (self.lr - self.lr_last) * left

"""The data's power, as the operators made of data take it."""

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.grid import Size, float64


def given_power(size: Size, power: Tensor | list | None) -> Tensor:
    if power is None:
        raise InputError("this noise follows the data: it needs their power")
    power = float64("the data's power", power)
    if tuple(power.shape) != tuple(size) or not torch.isfinite(power).all() or (power < 0).any():
        raise InputError(f"the data's power must be {tuple(size)}, finite and >= 0; it is {tuple(power.shape)}")
    return power

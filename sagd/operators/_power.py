"""The data's power, as the operators made of data take it."""

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.grid import Size, float64, radius


def given_power(size: Size, power: Tensor | list | None) -> Tensor:
    if power is None:
        raise InputError("this noise follows the data: it needs their power")
    power, wanted = float64("the data's power", power), tuple(radius(size).shape)  # which checks the size
    if tuple(power.shape) != wanted or not torch.isfinite(power).all() or (power < 0).any():
        raise InputError(f"the data's power must be {wanted}, finite and >= 0; it is {tuple(power.shape)}")
    return power

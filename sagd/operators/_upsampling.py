"""What linear upsampling does to the power of white noise, along one axis."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sagd.noise.devices import Keeps

DENSE = 2**18  # numbers of an upsampling that is computed row by row, which is a side of 512 in full


class Upsampling(Keeps):
    """The power of upsampled noise, kept, as pyramids of one size share it."""

    def power(self, n: int, into: int) -> Tensor:
        """E |F u|^2 of n white pixels, upsampled to u (into,)."""
        return self._kept("_power", n, into)

    def _power(self, n: int, into: int) -> Tensor:
        return by_row(n, into) if n * into <= DENSE else banded(n, into)


def by_row(n: int, into: int) -> Tensor:
    """E |F u|^2 as the sum over the rows of the upsampling."""
    pixels = torch.eye(n, dtype=torch.float64, device="cpu")[:, None]
    rows = F.interpolate(pixels, size=into, mode="linear", align_corners=False)
    return torch.fft.fft(rows[:, 0], norm="ortho").abs().square().sum(0)


def banded(n: int, into: int) -> Tensor:
    """As `by_row`, in time and memory that grow with ``into`` and not with n times it.

    A pixel of u is a weighted mean of two neighbours, so it covaries with few others. E |F u|^2 is the DFT of the
    covariances at each distance, summed over all places.
    """
    place = ((torch.arange(into, dtype=torch.float64, device="cpu") + 0.5) * n / into - 0.5).clamp(min=0)
    left = place.long().clamp(max=n - 1)
    right, share = (left + 1).clamp(max=n - 1), place - left
    pairs = ((left, 1 - share), (right, share))
    sums = torch.zeros(into, dtype=torch.float64, device="cpu")
    for apart in range(min(into, 2 * -(-into // n) + 2)):
        ends = into - apart
        for one, weight in pairs:
            for other, its_weight in pairs:
                alike = one[:ends] == other[apart:]
                found = (alike * weight[:ends] * its_weight[apart:]).sum()
                sums[apart] += found
                sums[-apart] += found * (apart > 0)
    return torch.fft.fft(sums).real / into

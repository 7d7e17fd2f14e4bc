"""Devices: what is made once and kept where it is used, and what to do where there is no float64."""

import math
import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

MOST = 1000  # of a kind are kept: levels of noise and pairs of steps come without end
NUMBERS = 2**26  # of spectra: 0.5 GB in float64
_lock = threading.Lock()  # of what is kept; not of making it, as that may keep other things, in another thread


def affordable(size: Sequence[int]) -> int:
    """How many spectra of a size may be kept: fewer of large images."""
    return max(8, min(MOST, NUMBERS // math.prod(size)))


class Keeps:
    """What makes something once and keeps it, such as a table on a device, so that no step copies or computes it anew.

    What is kept is real, also if it is first needed while `torch.export`, `torch.compile`, `torch.jit.trace` or a
    FakeTensorMode looks on: they see what is kept as a constant, not how it was made.
    """

    def _kept(self, make: str, *key: Hashable) -> Any:
        """What the method called ``make`` returns for these arguments."""
        if torch.compiler.is_compiling():
            return getattr(self, self._keep(make, *key))
        return self._made(make, *key)[1]

    def _keep(self, make: str, *key: Hashable) -> str:
        """Make it if it is not there, as an attribute of its own, which torch.compile finds; returns its name."""
        return self._made(make, *key)[0]

    @property
    def _most(self) -> int:
        """How many of a kind are kept."""
        return MOST

    def _made(self, make: str, *key: Hashable) -> tuple[str, Any]:
        """The name of what is kept, and the thing itself, which another thread may have put away by the next look."""
        names = self.__dict__.setdefault("_names", {})
        name = names.get((make, *key), "")
        if (found := self.__dict__.get(name, self)) is not self:
            return name, found

        def real() -> Any:
            with torch.inference_mode(False):  # it is used where gradients are wanted, too
                return getattr(self, make)(*key)

        name = f"_kept_{make}_{repr(key).encode().hex()}"  # what torch.compile takes for a name
        if torch.jit.is_tracing() or type(torch.empty(0, device="cpu")) is not Tensor:
            with ThreadPoolExecutor(1) as elsewhere:  # another thread has no tracer, and makes no fake tensors
                made = elsewhere.submit(real).result()
        else:
            made = real()
        with _lock:
            made = self.__dict__.setdefault(name, made)  # two threads may have made it
            names[(make, *key)] = name
            alike = [other for other in names if other[0] == make]
            for other in alike[: max(0, len(alike) - self._most)]:
                self.__dict__.pop(names.pop(other), None)
        return name, made

    # So torch.compile calls it and does not trace it. `torch.compiler.assume_constant_result` is no more than this, but
    # would import all of the compiler.
    _keep._dynamo_marked_constant = True  # type: ignore[attr-defined]


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64; Apple's MPS and some of Intel's GPUs do not."""
    if device.type in ("cpu", "cuda", "meta"):
        return True
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def double(x: Tensor) -> Tensor:
    """A tensor in float64, where it lies; on the CPU, if its device has no float64."""
    return x.double() if has_float64(x.device) else x.cpu().double()

"""Noise on the disk: the weights themselves, not the operator and arguments that they were made with.

So what reads them depends on no operator: where an operator's code changes and its weights do not, nothing that was
made of them is out of date.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.noise.base import Noise, check_noise
from sagd.noise.spectrum import Spectrum
from sagd.noise.varying import Varying
from sagd.runtime.files import read_tensors, write_tensors


def save(path: Path | str, noise: Noise) -> None:
    """Write a noise to a safetensors file, float64."""
    check_noise(noise)
    write_tensors(path, noise.tensors())


def load(path: Path | str) -> Noise:
    """Read a noise back, equal to the last bit.

    Raises
    ------
    InputError
        A file that is missing, broken, or holds no noise.
    """
    tensors = read_tensors(path)
    known = set(tensors) in ({"first", "last", "alpha_bar"}, {"weight", "per_sample"})
    if known and any(t.dtype != torch.float64 for name, t in tensors.items() if name != "per_sample"):
        raise InputError(f"{path} holds no noise: its weights are kept in float64")
    if "first" in tensors and known:
        return Varying(Spectrum(tensors["first"]), Spectrum(tensors["last"]), tensors["alpha_bar"])
    if known:
        return Spectrum(tensors["weight"], bool(tensors["per_sample"]))
    raise InputError(f"{path} holds no noise; it has the tensors {', '.join(sorted(tensors)) or 'none'}")


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of named tensors, such as those of a noise."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()

"""NVIDIA's TorchScript of the original FID network, which two extractors use."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from sagd.metrics.features import Weights

WEIGHTS = Weights(
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "inception-2015-12-05.pt",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's warning that TorchScript will go: the files of weights are TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def scripted(file: Path, device: torch.device) -> nn.Module:
    """A TorchScript file, on a device, for inference."""
    with quiet():
        return torch.jit.load(file, map_location=device).eval()

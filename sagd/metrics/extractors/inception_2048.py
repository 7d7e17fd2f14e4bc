"""The network of FID, on clean-fid's resizing."""

from pathlib import Path

import torch

from sagd.metrics.extractors._inception import WEIGHTS, quiet, scripted
from sagd.metrics.extractors._layers import resized
from sagd.metrics.features import Extractor, Loaded


def _load(device: torch.device, weights: Path) -> Loaded:
    """clean-fid's: NVIDIA's TorchScript of the original FID network, up to its last average pooling."""
    with quiet():
        network = scripted(weights, device).layers
        network = torch.jit.freeze(network.to(memory_format=torch.channels_last))  # folds the normalisations
    return lambda images: (resized(images, (299, 299)) - 128) / 128, lambda x: network(x).flatten(1)


inception_2048 = Extractor("inception_2048", "PIL bicubic to 299, (x - 128) / 128", _load, WEIGHTS, inception=True)

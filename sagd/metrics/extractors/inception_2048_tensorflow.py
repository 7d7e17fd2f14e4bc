"""The network of FID, resizing as TensorFlow 1 did: the features of ADM's reference batches."""

from pathlib import Path

import torch
from torch import Tensor

from sagd.metrics.extractors._inception import WEIGHTS, scripted
from sagd.metrics.features import Extractor, Loaded


def _load(device: torch.device, weights: Path) -> Loaded:
    """NVIDIA's TorchScript file, whole: it resizes by itself."""
    network = scripted(weights, device)
    return Tensor.float, lambda x: network(x, return_features=True).flatten(1)


inception_2048_tensorflow = Extractor(
    "inception_2048_tensorflow",
    "TensorFlow's bilinear to 299, (x - 128) / 128, by the network",
    _load,
    WEIGHTS,
    inception=True,
)

"""Networks of random weights in the true file formats: what cannot be downloaded here runs on them all the same."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sagd.metrics.extractors import EXTRACTORS
from sagd.metrics.features import Extractor, Weights


def inception() -> nn.Module:
    """pytorch-fid's Inception, every layer of random weights that keep the size of the activations."""
    from pytorch_fid import inception as fid

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = fid._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        blocks = {"5b": 192, "5c": 256, "5d": 288, "6b": 128, "6c": 160, "6d": 160, "6e": 192}
        for name, number in blocks.items():
            block = (
                fid.FIDInceptionA(number, pool_features=32 if name == "5b" else 64)
                if name[0] == "5"
                else fid.FIDInceptionC(768, channels_7x7=number)
            )
            setattr(network, f"Mixed_{name}", block)
        network.Mixed_7b, network.Mixed_7c = fid.FIDInceptionE_1(1280), fid.FIDInceptionE_2(2048)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    return network.eval().requires_grad_(False)


class _Scripted(nn.Module):
    """The outside of NVIDIA's TorchScript file: it resizes, and has ``layers``, up to the last average pooling."""

    def __init__(self, network: nn.Module):
        super().__init__()
        a = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", None, "Conv2d_3b_1x1", "Conv2d_4a_3x3", None]
        b = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")]
        layers = [getattr(network, name) if name else nn.MaxPool2d(3, stride=2) for name in a + b]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, images, return_features: bool = False):
        resized = nn.functional.interpolate(images, (299, 299), mode="bilinear")
        assert return_features  # the probabilities of classes are not here
        return self.layers((resized - 128) / 128).flatten(1)


def save_inception(folder: Path) -> None:
    """Both files of Inception weights, of one network."""
    network = inception()
    torch.save(network.state_dict(), folder / EXTRACTORS["inception_768"].weights.file)
    torch.jit.script(_Scripted(network)).save(folder / EXTRACTORS["inception_2048"].weights.file)


def on_these_weights(name: str, file: Path) -> Extractor:
    """The extractor, with a file of weights that stands in for the true one, SHA-256 and all."""
    known = EXTRACTORS[name]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return replace(known, weights=Weights("http://127.0.0.1:9/none", sha256, str(file)))

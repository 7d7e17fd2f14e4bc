"""The network of FID up to an earlier layer, as pytorch-fid has it with --dims 768."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sagd.errors import needs
from sagd.metrics.extractors._layers import folded
from sagd.metrics.features import Extractor, Loaded, Weights


def _load(device: torch.device, weights: Path) -> Loaded:
    """The original FID weights up to Mixed_6e, then averaged over the image."""
    with needs("metrics"):
        from cleanfid.inception_pytorch import FIDInceptionA, FIDInceptionC
        from torchvision.models import inception

    network = nn.Sequential()
    for name, block in {
        "Conv2d_1a_3x3": inception.BasicConv2d(3, 32, kernel_size=3, stride=2),
        "Conv2d_2a_3x3": inception.BasicConv2d(32, 32, kernel_size=3),
        "Conv2d_2b_3x3": inception.BasicConv2d(32, 64, kernel_size=3, padding=1),
        "maxpool1": nn.MaxPool2d(3, stride=2),
        "Conv2d_3b_1x1": inception.BasicConv2d(64, 80, kernel_size=1),
        "Conv2d_4a_3x3": inception.BasicConv2d(80, 192, kernel_size=3),
        "maxpool2": nn.MaxPool2d(3, stride=2),
        "Mixed_5b": FIDInceptionA(192, pool_features=32),
        "Mixed_5c": FIDInceptionA(256, pool_features=64),
        "Mixed_5d": FIDInceptionA(288, pool_features=64),
        "Mixed_6a": inception.InceptionB(288),
        "Mixed_6b": FIDInceptionC(768, channels_7x7=128),
        "Mixed_6c": FIDInceptionC(768, channels_7x7=160),
        "Mixed_6d": FIDInceptionC(768, channels_7x7=160),
        "Mixed_6e": FIDInceptionC(768, channels_7x7=192),
    }.items():
        network.add_module(name, block)
    saved = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name: saved[name] for name in network.state_dict()})
    trained = folded(network, {"conv": "bn"}).to(device).to(memory_format=torch.channels_last)

    def prepare(images: Tensor) -> Tensor:
        x = nn.functional.interpolate(images.float() / 255, (299, 299), mode="bilinear")
        return (2 * x - 1).contiguous(memory_format=torch.channels_last)

    return prepare, lambda x: trained(x).mean((2, 3))


inception_768 = Extractor(
    "inception_768",
    "bilinear to 299, not antialiased, 2 x / 255 - 1",
    _load,
    Weights(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    inception=True,
)

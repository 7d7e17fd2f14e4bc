"""A small classifier of a data set's own images, whose features measure distances.

Networks that were trained on photographs see little in digits of 16 pixels. A classifier of the digits has features of
what tells them apart, few of them (so that 2,000 samples say something), in a millisecond an image.
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sagd.errors import InputError, check_number, check_whole
from sagd.noise.randomness import generator, seeded
from sagd.runtime.files import write_bytes


@dataclass(frozen=True)
class Fit:
    """How a classifier is trained, by AdamW with a learning rate that falls to 0 along a cosine.

    Parameters
    ----------
    features
        Of the last layer but one: the dimensions of the distances.
    epochs, batch_size, lr
        Passes over the training images, images a step, peak learning rate.
    seed
        Of the initial weights and the order of the images.

    Raises
    ------
    InputError
        A number that is out of its range: ``batch_size`` is 2 or more, the seed 0 or more, the others above 0.
    """

    features: int = 64
    epochs: int = 6
    batch_size: int = 128
    lr: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        for name, least in (("features", 1), ("epochs", 1), ("batch_size", 2), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        check_number("lr", self.lr, above=0)


class Classifier(nn.Module):
    """Images (B, 3, H, W) of values 0 to 255, H and W at least 8, to standardised features (B, D).

    Grey images come three times, as every extractor of `sagd.metrics` gets them. Each feature has mean 0 and variance
    1 over the training images, so that none rules a distance.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(narrow, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 64, features))
        self.standardise = nn.BatchNorm1d(features, affine=False)
        self.head = nn.Linear(features, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.standardise(self.body(images / 127.5 - 1))

    def logits(self, images: Tensor) -> Tensor:
        return self.head(functional.relu(self.forward(images)))


def fit(images: Tensor, labels: Tensor, how: Fit, report: Callable[[int], None] = lambda images: None) -> Classifier:
    """Train a classifier; the same bits at every call on one machine with the same number of threads.

    Parameters
    ----------
    images, labels
        (N, C, H, W), uint8, with C 1 or 3, H and W at least 8; (N,), int64, from 0.
    report
        Called after each step with its number of images.

    Raises
    ------
    InputError
        Other types or shapes, labels below 0, fewer images than a batch, images too small, or a single class.
    """
    _check(images, labels)
    classes = int(labels.max()) + 1
    if len(images) < how.batch_size or min(images.shape[2:]) < 8 or classes < 2:
        raise InputError(
            f"{len(images)} images of {images.shape[2]}x{images.shape[3]} in {classes} classes; a classifier needs "
            f"{how.batch_size} or more, of 8x8 or more, in 2 classes or more"
        )
    with seeded(how.seed, "classifier"):
        network = Classifier(how.features, classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.lr, weight_decay=0.01)
    each = len(images) // how.batch_size
    for epoch in range(how.epochs):
        order = torch.randperm(len(images), generator=generator(how.seed, "classifier order", epoch), device="cpu")
        for step in range(each):
            optimizer.param_groups[0]["lr"] = how.lr * (1 + math.cos(math.pi * (epoch + step / each) / how.epochs)) / 2
            rows = order[step * how.batch_size : (step + 1) * how.batch_size]
            optimizer.zero_grad()
            functional.cross_entropy(network.logits(_coloured(images[rows])), labels[rows]).backward()
            optimizer.step()
            report(len(rows))
    return network.eval()


@torch.inference_mode()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images (N, C, H, W), uint8, that a classifier names rightly."""
    _check(images, labels)
    found = [network.logits(_coloured(some)).argmax(1) for some in images.split(1000)]
    return float((torch.cat(found) == labels).double().mean())


def export(network: Classifier, path: Path) -> None:
    """Write a classifier's features as a TorchScript file, which `sagd.metrics.extractors` takes as any other.

    Its bytes are the same at every call under the same PYTHONHASHSEED: TorchScript writes sets in their order.
    """
    content = io.BytesIO()  # a file's name would be part of it
    with warnings.catch_warnings():
        # PyTorch advises torch.export now; evaluate.features takes TorchScript, which any version of PyTorch reads.
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(network), content)
    write_bytes(path, content.getvalue())


def _check(images: Tensor, labels: Tensor) -> None:
    """Refuse images that are not (N, C, H, W) in uint8, C 1 or 3, and labels that are not one an image, from 0."""
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] not in (1, 3) or images.dtype != torch.uint8 or not shape[0]:
        raise InputError(f"images of shape {shape} and type {images.dtype}; they must be (N, 1 or 3, H, W) in uint8")
    if labels.shape != shape[:1] or labels.dtype != torch.int64 or labels.min() < 0:
        told = f"labels of shape {tuple(labels.shape)} and type {labels.dtype}"
        raise InputError(f"{told}; they must be ({shape[0]},) in int64, from 0")


def _coloured(images: Tensor) -> Tensor:
    return images.float().expand(-1, 3, -1, -1)

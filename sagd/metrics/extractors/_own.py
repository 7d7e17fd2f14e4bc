"""A user's own network, TorchScript or ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagd.errors import InputError, needs
from sagd.metrics.extractors._inception import scripted
from sagd.metrics.extractors._layers import resized
from sagd.metrics.features import Extractor, Loaded, Weights
from sagd.runtime.download import digest

ENDINGS = (".pt", ".onnx")


def of_file(path: Path) -> Extractor:
    """The extractor of a file, whose ending is one of `ENDINGS`."""
    load, preprocessing = (_torchscript, "its own") if path.suffix == ".pt" else (_onnx, _onnx_preprocessing(path))
    return Extractor(path.stem, preprocessing, load, Weights(None, digest(path), str(path.absolute())))


def _torchscript(device: torch.device, path: Path) -> Loaded:
    try:
        network = scripted(path, device)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a TorchScript file: {_first_line(error)}") from error
    return Tensor.float, _checked(network, path)


def _onnx(device: torch.device, path: Path) -> Loaded:
    session, entry = _onnx_session(path, device)
    size = _onnx_size(entry)

    def network(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {entry.name: x.cpu().numpy()})[0])

    return lambda images: resized(images, size) if size else images.float(), _checked(network, path)


def _onnx_preprocessing(path: Path) -> str:
    size = _onnx_size(_onnx_session(path, torch.device("cpu"))[1])
    return f"PIL bicubic to {size[0]} x {size[1]}, then its own" if size else "its own"


def _onnx_size(entry: Any) -> tuple[int, int] | None:
    """The height and width of the network's input, if they are fixed."""
    return tuple(entry.shape[2:]) if all(isinstance(n, int) for n in entry.shape[2:]) else None


def _onnx_session(path: Path, device: torch.device) -> tuple[Any, Any]:
    """An `InferenceSession` of onnxruntime, and the description of its input."""
    with needs("extractors"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the batches run side by side
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider",) if device.type == "cuda" and p in available]
    try:  # from its bytes, so that nothing outside the file, whose sum names the features, can change them
        content = path.read_bytes()
        session = onnxruntime.InferenceSession(content, options, [*providers, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, which share no narrower base
        says = f"{_first_line(error)}; it must be one file, with its weights inside"
        raise InputError(f"{path} cannot be read as an ONNX model: {says}") from error
    entry = session.get_inputs()[0]
    if len(entry.shape) != 4 or entry.shape[1] != 3 or isinstance(entry.shape[0], int) or entry.type != "tensor(float)":
        raise InputError(
            f"{path} takes {entry.type} of shape {entry.shape}; it must be float (B, 3, H, W), with any number B"
        )
    return session, entry


def _checked(network: Callable[[Tensor], Tensor], path: Path) -> Callable[[Tensor], Tensor]:
    """A user's network, whose failures are InputErrors that name its file."""

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

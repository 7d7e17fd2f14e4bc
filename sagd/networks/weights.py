"""Folders of weights that diffusers reads as well: config.json and a safetensors file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from sagd.errors import InputError
from sagd.formulations.base import unpacked
from sagd.runtime.files import read_json, read_tensors, write_bytes, write_tensors

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def classes_of(network: nn.Module) -> int:
    """How many labels a network knows, 0 for none, or if it has no `config`; this number as a label stands for none."""
    config = getattr(network, "config", {})
    if "num_class_embeds" in config:
        return max(0, (config["num_class_embeds"] or 0) - 1)
    return config.get("num_classes", 0)


def _config(network: nn.Module) -> Mapping[str, Any]:
    """What config.json holds: our networks and those of diffusers have it as an attribute."""
    if not hasattr(network, "config"):
        raise InputError(f"{type(network).__name__} has no `config`, as networks of sagd and models of diffusers have")
    return cast(Mapping[str, Any], network.config)


def predictor(network: Callable[..., Any], labels: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """A network as a plain function (xt, t) -> eps (or v, ...), for the classes that ``labels`` (B,) name.

    A model of diffusers will do: what it returns, an object or a tuple, is unpacked.
    """

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        return unpacked(network(xt, t) if labels is None else network(xt, t, class_labels=labels))

    return predict


def save(folder: Path | str, network: nn.Module, weights: dict[str, Tensor] | None = None) -> None:
    """Write a network's configuration and weights (its own, unless others, say of its EMA, are given)."""
    folder = Path(folder)
    write_tensors(folder / WEIGHTS, weights or network.state_dict(), {"format": "pt"})
    write_bytes(folder / CONFIG, (json.dumps(described(network), indent=1, sort_keys=True) + "\n").encode())


def described(network: nn.Module) -> dict[str, Any]:
    """A network's class and settings, ready for JSON."""
    config = _config(network)  # of a model of diffusers it has notes too, such as the path that it was read from
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"_class_name": config.get("_class_name", type(network).__name__), **settings}


def load(folder: Path | str) -> nn.Module:
    """Read a network back, in evaluation mode and without gradients.

    Raises
    ------
    InputError
        As `read`.
    """
    return read(folder).eval().requires_grad_(False)


def read(folder: Path | str) -> nn.Module:
    """Read a network back, as it is before training.

    Raises
    ------
    InputError
        Files that are missing or broken, a configuration that is not implemented, weights that do not fit it.
    """
    from sagd.networks.dit import DiTDH
    from sagd.networks.unet import UNet2DModel

    folder = Path(folder)
    config = read_json(folder / CONFIG)
    kind = DiTDH if config.get("_class_name") == "DiTDH" else UNet2DModel
    try:
        network = kind.from_config(config)
    except (TypeError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise InputError(f"cannot build the network of {folder / CONFIG}: {error}") from error
    tensors, mine = read_tensors(folder / WEIGHTS), network.state_dict()
    if others := [n for n, t in tensors.items() if n in mine and t.is_floating_point() != mine[n].is_floating_point()]:
        raise InputError(f"{folder / WEIGHTS} does not fit: {others[0]} is {tensors[others[0]].dtype}")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {str(error).splitlines()[0]}") from error
    return network

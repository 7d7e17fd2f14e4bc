"""What our networks share with those of diffusers: their files, and gradient checkpointing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sagd.errors import InputError
from sagd.networks import weights


class Network(nn.Module):
    """A network with a configuration.

    Attributes
    ----------
    config : dict
        Content of config.json.
    """

    config: dict[str, Any]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and the weights, as diffusers does."""
        weights.save(Path(folder), self)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read a network back, ready to sample or to train on.

        Raises
        ------
        InputError
            As `sagd.networks.weights.load`; a network of another class.
        """
        network = weights.read(Path(folder))
        if not isinstance(network, cls):
            raise InputError(f"{folder} holds a {type(network).__name__}, not a {cls.__name__}")
        return network.eval()

    def enable_gradient_checkpointing(self) -> None:
        """Compute a block again in the backward pass, in place of keeping its activations. No number changes."""
        self._checkpoint(True)

    def disable_gradient_checkpointing(self) -> None:
        """Keep all activations, as in the beginning."""
        self._checkpoint(False)

    def _checkpoint(self, wanted: bool) -> None:
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = wanted  # type: ignore[assignment]


def times(timestep: Tensor | float, sample: Tensor) -> Tensor:
    """The times of a batch, (B,): one for each image, or one number for all, in float32 whatever the default is."""
    dtype = None if isinstance(timestep, Tensor) else torch.float32
    return torch.as_tensor(timestep, dtype=dtype, device=sample.device).expand(len(sample))


def again(wanted: bool, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What a block returns; if wanted, its activations are computed again in the backward pass."""
    if not wanted or not torch.is_grad_enabled():
        return block(*inputs)
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)  # no block draws

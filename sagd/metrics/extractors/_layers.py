"""What several networks need: clean-fid's resizing, and normalisations folded into convolutions."""

import numpy as np
import torch
from torch import Tensor, nn

from sagd.errors import needs


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Float32 images of (H, W) by clean-fid's resizing: PIL's bicubic filter, antialiased, not rounded."""
    with needs("metrics"):
        from cleanfid.resize import make_resizer

    resize = make_resizer("PIL", False, "bicubic", size[::-1])
    return torch.from_numpy(np.stack([resize(i.permute(1, 2, 0).numpy()) for i in images])).permute(0, 3, 1, 2)


def folded(network: nn.Module, pairs: dict[str, str]) -> nn.Module:
    """The network with each normalisation folded into its convolution: the same function, faster.

    Parameters
    ----------
    pairs
        Attribute names: a convolution's, to that of the normalisation behind it.
    """
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.eval().requires_grad_(False).modules():
        for convolution, norm in pairs.items():
            if hasattr(module, convolution):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network

"""Networks: builders, and folders of weights that diffusers reads as well (config.json and safetensors)."""

from pathlib import Path

from torch import Tensor

from sagd.diffusion import Predict
from sagd.errors import InputError
from sagd.files import read_json, read_tensors, write_json, write_tensors

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def unet(
    size: tuple[int, int],
    channels: int,
    widths: list[int],
    layers: int,
    attention: list[bool],
    groups: int,
    classes: int = 0,
):
    """diffusers' UNet2DModel for images of (channels, H, W).

    Parameters
    ----------
    widths
        Channels of each level, from full resolution down; each level halves the resolution.
    layers
        Residual blocks a level (diffusers' ``layers_per_block``).
    attention
        For each level, whether its blocks attend.
    groups
        Of the group normalisation; must divide every width.
    classes
        How many labels there are, 0 for none; one more stands for no label.
    """
    from diffusers import UNet2DModel

    halvings = 2 ** (len(widths) - 1)
    if any(n % halvings for n in size):
        raise InputError(f"{len(widths)} levels need a resolution that {halvings} divides; it is {size[0]}x{size[1]}")
    if any(w % groups for w in widths):
        raise InputError(f"unet.groups is {groups}; it must divide every one of unet.widths {widths}")
    if len(attention) != len(widths):
        raise InputError(f"unet.attention has {len(attention)} entries; unet.widths has {len(widths)}")
    return UNet2DModel(
        sample_size=size[0] if size[0] == size[1] else tuple(size),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=groups,
        num_class_embeds=classes + 1 if classes else None,
    )


def classes_of(network) -> int:
    """How many labels a network knows, 0 for none; this number as a label stands for none."""
    if "num_class_embeds" in network.config:
        return max(0, (network.config.num_class_embeds or 0) - 1)
    return network.config.num_classes


def dit(size: tuple[int, int], channels: int, classes: int, patch: int, widths: list, depths: list, heads: list):
    """`sagd.dit.DiTDH` for square images or latents of (channels, H, W).

    Parameters
    ----------
    classes
        How many labels there are, 0 for none.
    patch, widths, depths, heads
        Side of a token; width, blocks and attention heads of the body and of the head.
    """
    from sagd.dit import DiTDH

    if size[0] != size[1]:
        raise InputError(f"a DiT takes square images; these are {size[0]}x{size[1]}")
    return DiTDH(  # by name: diffusers takes what is given by position for a default, and does not read it back
        sample_size=size[0], in_channels=channels, patch_size=patch, hidden_sizes=tuple(widths), depths=tuple(depths),
        heads=tuple(heads), num_classes=classes,
    )  # fmt: skip


def predictor(network, labels: Tensor | None = None) -> Predict:
    """A diffusers model as a plain function (xt, t) -> eps (or v, ...), for the classes that ``labels`` (B,) name."""
    if labels is None:
        return lambda xt, t: network(xt, t, return_dict=False)[0]
    return lambda xt, t: network(xt, t, class_labels=labels, return_dict=False)[0]


def save(folder: Path, network, weights: dict[str, Tensor] | None = None) -> None:
    """Write a network's configuration and weights (its own, unless others, say of its EMA, are given)."""
    write_tensors(folder / WEIGHTS, weights or network.state_dict(), {"format": "pt"})
    kind = type(network).__name__
    write_json(folder / CONFIG, dict(network.config) | ({} if kind == "UNet2DModel" else {"_class_name": kind}))


def load(folder: Path):
    """Read a network back, in evaluation mode."""
    config = read_json(folder / CONFIG)
    if config.get("_class_name") == "DiTDH":
        from sagd.dit import DiTDH as Network
    else:
        from diffusers import UNet2DModel as Network

    network = Network.from_config(config)
    try:
        network.load_state_dict(read_tensors(folder / WEIGHTS))
    except RuntimeError as error:
        raise InputError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {str(error).splitlines()[0]}") from error
    return network.eval().requires_grad_(False)

"""The U-Net of diffusers (`UNet2DModel`) in PyTorch alone: same settings, same names of weights, same numbers.

It has what `unet` below can build; other settings are refused. The initial weights that a seed gives, the outputs and
the gradients are diffusers' to the bit on a CPU in float32, with the same number of threads, so layers are made and
called in diffusers' order.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagd.errors import InputError, check_flag, check_whole
from sagd.networks.base import Network, again, times
from sagd.networks.config import MOST, arguments, check_counts, check_sizes, described

DOWN = ("DownBlock2D", "AttnDownBlock2D")  # without and with attention
UP = ("UpBlock2D", "AttnUpBlock2D")
COUNTS = (
    "in_channels", "out_channels", "block_out_channels", "layers_per_block", "attention_head_dim", "norm_num_groups",
)  # fmt: skip
FIXED = dict(  # settings of diffusers of which the default alone is implemented
    act_fn="silu", add_attention=True, attn_norm_num_groups=None, center_input_sample=False, class_embed_type=None,
    downsample_padding=1, downsample_type="conv", dropout=0.0, flip_sin_to_cos=True, freq_shift=0,
    mid_block_scale_factor=1, mid_block_type="UNetMidBlock2D", norm_eps=1e-5, num_train_timesteps=None,
    resnet_time_scale_shift="default", time_embedding_dim=None, time_embedding_type="positional", upsample_type="conv",
)  # fmt: skip


def unet(
    size: tuple[int, int],
    channels: int,
    widths: list[int],
    layers: int,
    attention: list[bool],
    groups: int,
    classes: int = 0,
) -> "UNet2DModel":
    """A U-Net for images of (channels, H, W).

    Parameters
    ----------
    widths
        Channels of each level, from full resolution down; each level halves the resolution.
    layers
        Residual blocks a level.
    attention
        For each level, whether its blocks attend. The middle, below the last level, always attends.
    groups
        Of the group normalisation; must divide every width.
    classes
        Number of labels, 0 for none; one more stands for no label.
    """
    check_counts(locals(), "channels", "widths", "layers", "groups")
    check_sizes(size, widths=widths, attention=attention)
    check_whole("classes", classes, 0, MOST)
    for flag in attention:
        check_flag("an entry of attention", flag)
    halvings = 2 ** (len(widths) - 1)
    if any(n % halvings for n in size):
        raise InputError(f"{len(widths)} levels need a resolution that {halvings} divides; it is {size[0]}x{size[1]}")
    if any(w % groups for w in widths):
        raise InputError(f"groups is {groups}; it must divide every one of widths {list(widths)}")
    if len(attention) != len(widths):
        raise InputError(f"attention has {len(attention)} entries; widths has {len(widths)}")
    return UNet2DModel(
        sample_size=size[0] if size[0] == size[1] else (size[0], size[1]),
        in_channels=channels,
        out_channels=channels,
        down_block_types=tuple(DOWN[a] for a in attention),
        up_block_types=tuple(UP[a] for a in reversed(attention)),
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        norm_num_groups=groups,
        num_class_embeds=classes + 1 if classes else None,
    )


class UNet2DModel(Network):
    """A U-Net of residual blocks, with attention where asked. Settings have diffusers' names and defaults.

    Parameters
    ----------
    sample_size
        Resolution of the images, one number or (H, W). A note only: any resolution that the levels can halve will do.
    down_block_types, up_block_types
        One for each level: see `DOWN` (from full resolution down) and `UP` (in the opposite order).
    block_out_channels
        Channels of each level, from full resolution down.
    layers_per_block
        Residual blocks of a level on the way down; it has one more on the way up.
    attention_head_dim
        Channels of an attention head.
    num_class_embeds
        Labels are 0 to num_class_embeds - 1; None: there are no labels.

    Attributes
    ----------
    config : dict
        Content of config.json.
    """

    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = (DOWN[0], DOWN[1], DOWN[1], DOWN[1]),
        up_block_types: tuple[str, ...] = (UP[1], UP[1], UP[1], UP[0]),
        block_out_channels: tuple[int, ...] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        attention_head_dim: int = 8,
        norm_num_groups: int = 32,
        num_class_embeds: int | None = None,
    ):
        super().__init__()
        self.config = described(UNet2DModel, locals(), FIXED)
        check_counts(self.config, *COUNTS)
        for key in ("sample_size", "num_class_embeds"):
            if self.config[key] is not None:
                check_counts(self.config, key)
        if any(width % norm_num_groups for width in block_out_channels):
            says = f"it must divide every one of block_out_channels {list(block_out_channels)}"
            raise InputError(f"norm_num_groups is {norm_num_groups}; {says}")
        for key, allowed in (("down_block_types", DOWN), ("up_block_types", UP)):
            kinds = self.config[key]
            if len(kinds) != len(block_out_channels) or not set(kinds) <= set(allowed):
                says = f"it must have one of {' and '.join(allowed)} for each of block_out_channels"
                raise InputError(f"{key} is {kinds}; {says} {list(block_out_channels)}")
        widths, layers = block_out_channels, layers_per_block
        time = 4 * widths[0]
        shared = time, norm_num_groups
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time)
        self.class_embedding = None if num_class_embeds is None else nn.Embedding(num_class_embeds, time)
        # diffusers lists the middle's weights after the levels', and draws them between those down and those up.
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        before, skips = widths[0], [widths[0]]
        for i, (width, kind) in enumerate(zip(widths, down_block_types, strict=True)):
            head, resize = attention_head_dim if kind == DOWN[1] else None, i < len(widths) - 1
            self.down_blocks.append(Down([before, *[width] * (layers - 1)], width, *shared, head, resize))
            skips += [width] * (layers + resize)
            before = width
        self.mid_block = Middle(before, *shared, attention_head_dim)
        for i, (width, kind) in enumerate(zip(reversed(widths), up_block_types, strict=True)):
            head, resize = attention_head_dim if kind == UP[1] else None, i < len(widths) - 1
            inside = [channels + skips.pop() for channels in (before, *[width] * layers)]
            self.up_blocks.append(Up(inside, width, *shared, head, resize))
            before = width
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    @classmethod
    def from_config(cls, config: dict) -> "UNet2DModel":
        """Build the network of a config.json, ours or diffusers'; raise InputError where diffusers alone can."""
        return cls(**arguments(cls, config, FIXED))

    def forward(self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        """Predict at x_t, in the shape of ``sample``, with ``out_channels`` channels, in the precision of the weights.

        Parameters
        ----------
        sample
            (B, in_channels, H, W), of any precision.
        timestep
            (B,), or one number for all, from 0 to 1000.
        class_labels
            (B,), int64; needed if the network knows labels.
        """
        if (class_labels is None) != (self.class_embedding is None):
            raise InputError("class_labels must be given if the network knows labels, and only then")
        t = times(timestep, sample)
        dtype = self.conv_in.weight.dtype
        embedded = self.time_embedding(time_features(t, self.conv_in.out_channels).to(dtype))
        if class_labels is not None and self.class_embedding is not None:
            embedded = embedded + self.class_embedding(class_labels).to(dtype)
        x = self.conv_in(sample.to(dtype))
        skips = [x]
        for block in self.down_blocks:
            x = block(x, embedded, skips)
        x = self.mid_block(x, embedded)
        for block in self.up_blocks:
            x = block(x, embedded, skips)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def time_features(t: Tensor, width: int) -> Tensor:
    """Cosines and sines of t (B,) at width / 2 frequencies from 1 down to 1 / 10000, (B, width), float32."""
    half = width // 2
    log_frequencies = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    phases = t.float()[:, None] * log_frequencies.exp()
    return F.pad(torch.cat([phases.cos(), phases.sin()], -1), (0, width % 2))  # an odd width ends with a zero


class TimestepEmbedding(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inside, outside), nn.Linear(outside, outside)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class Residual(nn.Module):
    """Two convolutions; the time is added between them, and the input at the end."""

    def __init__(self, inside: int, outside: int, time: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inside), nn.Conv2d(inside, outside, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, outside)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outside), nn.Conv2d(outside, outside, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(embedded))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        if self.conv_shortcut is not None:
            # Attention leaves x in channels_last: without a copy, DDP would find gradients in another layout.
            x = self.conv_shortcut(x.contiguous() if self.training else x)
        return x + h


class Attention(nn.Module):
    """Every pixel attends to all pixels; the input is added at the end."""

    def __init__(self, width: int, head: int, groups: int):
        super().__init__()
        self.heads = width // head
        if not self.heads:
            raise InputError(f"attention needs a width of at least {head}, a head's; it is {width}")
        inner = head * self.heads
        self.group_norm = nn.GroupNorm(groups, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x.flatten(2)).mT
        q, k, v = (f(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out[0](found).mT.reshape(x.shape) + x


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if the width of a head is given."""

    gradient_checkpointing = False

    def __init__(self, inside: list[int], width: int, time: int, groups: int, head: int | None):
        super().__init__()
        self.attentions, self.resnets = nn.ModuleList(), nn.ModuleList()
        for channels in inside:
            self.resnets.append(Residual(channels, width, time, groups))
            if head is not None:
                self.attentions.append(Attention(width, head, groups))

    def layer(self, i: int, x: Tensor, embedded: Tensor) -> Tensor:
        x = again(self.gradient_checkpointing, self.resnets[i], x, embedded)
        return again(self.gradient_checkpointing, self.attentions[i], x) if len(self.attentions) else x


class Down(Level):
    """A level on the way down. What the way up needs goes to the end of ``skips``."""

    def __init__(self, inside: list[int], width: int, time: int, groups: int, head: int | None, resize: bool):
        super().__init__(inside, width, time, groups, head)
        self.downsamplers = nn.ModuleList()
        if resize:
            halve = nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.downsamplers.append(nn.Sequential(OrderedDict(conv=halve)))

    def forward(self, x: Tensor, embedded: Tensor, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.layer(i, x, embedded)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x


class Middle(nn.Module):
    """Attention between two residual blocks."""

    gradient_checkpointing = False

    def __init__(self, width: int, time: int, groups: int, head: int):
        super().__init__()
        self.attentions, self.resnets = nn.ModuleList(), nn.ModuleList()
        self.resnets.append(Residual(width, width, time, groups))
        self.attentions.append(Attention(width, head, groups))
        self.resnets.append(Residual(width, width, time, groups))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        x = again(self.gradient_checkpointing, self.resnets[0], x, embedded)
        x = again(self.gradient_checkpointing, self.attentions[0], x)
        return again(self.gradient_checkpointing, self.resnets[1], x, embedded)


class Up(Level):
    """A level on the way up. What it needs is at the end of ``skips``."""

    def __init__(self, inside: list[int], width: int, time: int, groups: int, head: int | None, resize: bool):
        super().__init__(inside, width, time, groups, head)
        self.upsamplers = nn.ModuleList([Upsample(width)] if resize else [])

    def forward(self, x: Tensor, embedded: Tensor, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.layer(i, torch.cat([x, skips.pop()], 1), embedded)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class Upsample(nn.Module):
    """Double the resolution by repeating pixels, then convolve."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # CUDA's kernel for channels_last takes no output of 2^31 elements. diffusers copies any 64 images or more, and
        # the bits of what follows depend on it.
        if len(x) >= 64 or 4 * x.numel() >= 2**31:
            x = x.contiguous()
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

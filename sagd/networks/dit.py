"""DiT^DH, the diffusion transformer with a wide head of RAE (Zheng et al., arXiv 2510.11690).

A deep, narrow body (a DiT with RoPE, RMSNorm and SwiGLU) reads x_t; its tokens then modulate a shallow, wide head that
reads x_t again (DDT, Wang et al., arXiv 2504.05741). Modulations begin at zero (adaLN-Zero).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagd.errors import InputError, check_number, check_whole
from sagd.networks.base import Network, again, times
from sagd.networks.config import MOST, arguments, check_counts, check_sizes, described
from sagd.networks.unet import TimestepEmbedding

FOURIER = 256  # random frequencies of the time embedding
UNIT = 1000.0  # of time: networks are given 0 to 1000, as those of diffusers


def dit(
    size: tuple[int, int],
    channels: int,
    classes: int,
    patch: int,
    widths: list[int],
    depths: list[int],
    heads: list[int],
) -> "DiTDH":
    """A DiT^DH for square images or latents of (channels, H, W).

    Parameters
    ----------
    classes
        Number of labels, 0 for none; one more stands for no label.
    patch, widths, depths, heads
        Side of a token; width, blocks and attention heads of the body and of the head.
    """
    check_sizes(size, widths=widths, depths=depths, heads=heads)
    if size[0] != size[1]:
        raise InputError(f"a DiT takes square images; these are {size[0]}x{size[1]}")
    return DiTDH(size[0], channels, patch, tuple(widths), tuple(depths), tuple(heads), num_classes=classes)


class DiTDH(Network):
    """DiT^DH for square images or latents; the defaults are DiT^DH-S, for 768 x 16 x 16.

    Parameters
    ----------
    sample_size, in_channels, patch_size
        The input is (B, in_channels, sample_size, sample_size); a token is a patch.
    hidden_sizes, depths, heads
        Of the body and of the head: widths, blocks, attention heads.
    mlp_ratio
        Of a feed-forward network's hidden width to its block's, before SwiGLU takes two thirds of it.
    num_classes
        Labels are 0 to num_classes - 1; num_classes itself stands for none. 0: there are no labels.

    Attributes
    ----------
    config : dict
        Content of config.json.
    """

    _no_split_modules = ["Block"]  # noqa: RUF012, what FSDP wraps
    gradient_checkpointing = False

    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 768,
        patch_size: int = 1,
        hidden_sizes: tuple[int, ...] = (384, 2048),
        depths: tuple[int, ...] = (12, 2),
        heads: tuple[int, ...] = (6, 16),
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.config = described(DiTDH, locals())
        check_counts(self.config, "sample_size", "in_channels", "patch_size", "hidden_sizes", "depths", "heads")
        check_number("mlp_ratio", mlp_ratio, above=0)
        check_whole("num_classes", num_classes, 0, MOST)
        for key in ("hidden_sizes", "depths", "heads"):
            if len(self.config[key]) != 2:
                raise InputError(f"{key} is {self.config[key]}; it must have two entries, the body's and the head's")
        if sample_size % patch_size:
            raise InputError(f"patch_size is {patch_size}; it must divide the resolution, {sample_size}")
        for width, count in zip(hidden_sizes, heads, strict=True):
            if width % (4 * count):
                raise InputError(f"a width of {width} is no multiple of 4 times its {count} heads")
        body, head = hidden_sizes
        side = sample_size // patch_size
        self.body_embed = nn.Conv2d(in_channels, body, patch_size, stride=patch_size)
        self.head_embed = nn.Conv2d(in_channels, head, patch_size, stride=patch_size)
        self.position = nn.Parameter(_sincos(body, side)[None], requires_grad=False)
        self.time_frequencies = Frequencies(FOURIER)
        self.time_embed = TimestepEmbedding(2 * FOURIER, body)
        self.label_embed = nn.Embedding(num_classes + 1, body) if num_classes else None
        self.body = nn.ModuleList(Block(body, heads[0], mlp_ratio) for _ in range(depths[0]))
        self.to_head = nn.Linear(body, head)
        self.head = nn.ModuleList(Block(head, heads[1], mlp_ratio) for _ in range(depths[1]))
        self.norm = nn.RMSNorm(head, eps=1e-6)
        self.modulation = nn.Linear(head, 2 * head)
        self.out = nn.Linear(head, in_channels * patch_size**2)
        for name, width, count in (("body", body, heads[0]), ("head", head, heads[1])):
            cos, sin = _rotary(width // count, side)
            self.register_buffer(f"{name}_cos", cos, persistent=False)
            self.register_buffer(f"{name}_sin", sin, persistent=False)
        self._initialize()

    @classmethod
    def from_config(cls, config: dict) -> "DiTDH":
        """Build the network of a config.json."""
        return cls(**arguments(cls, config))

    def _initialize(self) -> None:
        for embed in (self.body_embed, self.head_embed):
            nn.init.xavier_uniform_(embed.weight.flatten(1))
            assert embed.bias is not None  # convolutions have one unless they are told otherwise
            nn.init.zeros_(embed.bias)
        for layer in (self.time_embed.linear_1, self.time_embed.linear_2, self.label_embed):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.modulation, self.out, *(block.modulation for block in (*self.body, *self.head))):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        """Predict at x_t, in the precision of the weights.

        Parameters
        ----------
        sample
            (B, C, H, W), of any precision.
        timestep
            (B,), or one number for all, from 0 to 1000, as diffusers' U-Nets take it.
        class_labels
            (B,), int64; without it no label is told.
        """
        sample = sample.to(self.body_embed.weight.dtype)
        timestep = times(timestep, sample)
        timestep = timestep if timestep.is_floating_point() else timestep.float()
        time = self.time_embed(self.time_frequencies(timestep / UNIT).to(sample.dtype))
        condition = time
        if self.label_embed is not None:
            if class_labels is None:
                class_labels = torch.full_like(timestep, self.label_embed.num_embeddings - 1, dtype=torch.int64)
            condition = condition + self.label_embed(class_labels)
        elif class_labels is not None:
            raise InputError("class_labels are given, but the network knows none")
        condition = F.silu(condition)[:, None]
        tokens = self.body_embed(sample).flatten(2).mT + self.position
        for block in self.body:
            tokens = again(self.gradient_checkpointing, block, tokens, condition, (self.body_cos, self.body_sin))
        condition = self.to_head(F.silu(tokens + time[:, None]))
        tokens = self.head_embed(sample).flatten(2).mT
        for block in self.head:
            tokens = again(self.gradient_checkpointing, block, tokens, condition, (self.head_cos, self.head_sin))
        shift, scale = self.modulation(F.silu(condition)).chunk(2, -1)
        tokens = self.out(self.norm(tokens) * (1 + scale) + shift)
        patch = self.body_embed.kernel_size[0]
        side = sample.shape[-1] // patch
        return F.pixel_shuffle(tokens.mT.unflatten(2, (side, side)), patch)


class Block(nn.Module):
    """A transformer block whose condition shifts, scales and gates it (adaLN), for all tokens alike or each its own."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = FeedForward(width, int(2 / 3 * int(width * mlp_ratio)))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (B, L, D), a condition (B, 1 or L, D) and the cosines and sines of RoPE, (L, D / heads)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, -1)
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1, rotary)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def _attend(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (_rotated(t, *rotary).to(v.dtype) for t in (q, k))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with SwiGLU between them; weights are named as diffusers' are."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.net = nn.ModuleList([SwiGLU(width, hidden), nn.Identity(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class SwiGLU(nn.Module):
    """A linear layer whose second half gates the first (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.proj(x).chunk(2, -1)
        return hidden * F.silu(gate)


class Frequencies(nn.Module):
    """Sines and cosines of time at random frequencies, which are not trained."""

    def __init__(self, count: int):
        super().__init__()
        torch.randn(count)  # diffusers draws them twice; the second draw counts
        self.weight = nn.Parameter(torch.randn(count), requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.weight[None, :] * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], -1)


def _sincos(width: int, side: int) -> Tensor:
    """Sines and cosines of a token's place (side * side, width): half for the column, half for the row.

    Places are in units of a grid of 16, so that a finer grid covers the same range.
    """
    place = torch.arange(side, dtype=torch.float32) / (side / 16)
    rates = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    row, column = torch.meshgrid(place, place, indexing="ij")
    angles = [torch.outer(axis.reshape(-1), rates) for axis in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1).float()


def _rotary(width: int, side: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE in the plane, (side * side, width) each: half for the column, half for the row."""
    place = torch.arange(side, dtype=torch.float32)
    rates = 1 / 10000 ** (torch.arange(0, width // 2, 2, dtype=torch.float32) / (width // 2))
    row, column = torch.meshgrid(place, place, indexing="ij")
    angles = torch.cat([torch.outer(axis.reshape(-1), rates).repeat_interleave(2, 1) for axis in (column, row)], 1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels of x (B, heads, L, D) by its angle."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], -1).flatten(-2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)

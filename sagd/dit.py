"""DiT^DH, the diffusion transformer with a wide head of RAE (Zheng et al., arXiv 2510.11690), as a diffusers model.

A deep, narrow body (a DiT with RoPE, RMSNorm and SwiGLU) reads x_t; its tokens then modulate a shallow, wide head that
reads x_t again (DDT, Wang et al., arXiv 2504.05741). Modulations begin at zero (adaLN-Zero).
"""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import (
    GaussianFourierProjection,
    TimestepEmbedding,
    apply_rotary_emb,
    get_2d_rotary_pos_embed,
    get_2d_sincos_pos_embed,
)
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from sagd.errors import InputError
from sagd.flow import EMBEDDED

FOURIER = 256  # random frequencies of the time embedding


class DiTDH(ModelMixin, ConfigMixin):
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
    """

    _no_split_modules = ["Block"]  # noqa: RUF012, diffusers' name for what FSDP wraps

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 768,
        patch_size: int = 1,
        hidden_sizes: tuple[int, int] = (384, 2048),
        depths: tuple[int, int] = (12, 2),
        heads: tuple[int, int] = (6, 16),
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
    ):
        super().__init__()
        if sample_size % patch_size:
            raise InputError(f"patch_size is {patch_size}; it must divide the resolution, {sample_size}")
        for width, count in zip(hidden_sizes, heads, strict=True):
            if width % (4 * count):
                raise InputError(f"a width of {width} is no multiple of 4 times its {count} heads")
        body, head = hidden_sizes
        side = sample_size // patch_size
        self.body_embed = nn.Conv2d(in_channels, body, patch_size, stride=patch_size)
        self.head_embed = nn.Conv2d(in_channels, head, patch_size, stride=patch_size)
        positions = get_2d_sincos_pos_embed(body, side, output_type="pt").float()
        self.position = nn.Parameter(positions[None], requires_grad=False)
        self.time_frequencies = GaussianFourierProjection(FOURIER, log=False)
        self.time_frequencies.weight.requires_grad_(False)
        self.time_embed = TimestepEmbedding(2 * FOURIER, body)
        self.label_embed = nn.Embedding(num_classes + 1, body) if num_classes else None
        self.body = nn.ModuleList(Block(body, heads[0], mlp_ratio) for _ in range(depths[0]))
        self.to_head = nn.Linear(body, head)
        self.head = nn.ModuleList(Block(head, heads[1], mlp_ratio) for _ in range(depths[1]))
        self.norm = nn.RMSNorm(head, eps=1e-6)
        self.modulation = nn.Linear(head, 2 * head)
        self.out = nn.Linear(head, in_channels * patch_size**2)
        for name, width, count in (("body", body, heads[0]), ("head", head, heads[1])):
            cos, sin = get_2d_rotary_pos_embed(width // count, ((0, 0), (side, side)), (side, side), output_type="pt")
            self.register_buffer(f"{name}_cos", cos.float(), persistent=False)
            self.register_buffer(f"{name}_sin", sin.float(), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        for embed in (self.body_embed, self.head_embed):
            nn.init.xavier_uniform_(embed.weight.flatten(1))
            nn.init.zeros_(embed.bias)
        for layer in (self.time_embed.linear_1, self.time_embed.linear_2, self.label_embed):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.modulation, self.out, *(block.modulation for block in (*self.body, *self.head))):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict at x_t.

        Parameters
        ----------
        sample
            (B, C, H, W).
        timestep
            (B,), from 0 to 1000, as diffusers' U-Nets take it.
        class_labels
            (B,), int64; none where they are not given.
        """
        time = self.time_embed(self.time_frequencies(timestep / EMBEDDED).to(sample.dtype))
        condition = time
        if self.label_embed is not None:
            if class_labels is None:
                class_labels = torch.full_like(timestep, self.config.num_classes, dtype=torch.int64)
            condition = condition + self.label_embed(class_labels)
        condition = F.silu(condition)[:, None]
        tokens = self.body_embed(sample).flatten(2).mT + self.position
        for block in self.body:
            tokens = block(tokens, condition, (self.body_cos, self.body_sin))
        condition = self.to_head(F.silu(tokens + time[:, None]))
        tokens = self.head_embed(sample).flatten(2).mT
        for block in self.head:
            tokens = block(tokens, condition, (self.head_cos, self.head_sin))
        shift, scale = self.modulation(F.silu(condition)).chunk(2, -1)
        tokens = self.out(self.norm(tokens) * (1 + scale) + shift)
        side = sample.shape[-1] // self.config.patch_size
        found = F.pixel_shuffle(tokens.mT.unflatten(2, (side, side)), self.config.patch_size)
        return Transformer2DModelOutput(sample=found) if return_dict else (found,)


class Block(nn.Module):
    """A transformer block whose condition shifts, scales and gates it (adaLN), for all tokens alike or each its own."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = FeedForward(width, inner_dim=int(2 / 3 * int(width * mlp_ratio)), activation_fn="swiglu")
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (B, L, D), a condition (B, 1 or L, D) and the cosines and sines of RoPE, (L, D / heads)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, -1)
        x = x + gate1 * self._attend(self.norm1(x) * (1 + scale1) + shift1, rotary)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)

    def _attend(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (apply_rotary_emb(t, rotary).to(v.dtype) for t in (q, k))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

"""DINOv2 of any size."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sagd.errors import needs
from sagd.metrics.features import Loaded

PREPROCESSING = "PIL bicubic to 224, rounded, ImageNet's mean and std"


def load(device: torch.device, weights: Path) -> Loaded:
    """The class token after the last normalisation, on dgm-eval's preprocessing; the size follows from the file.

    Its attention has heads of 64 channels, as all of Facebook's.
    """
    import safetensors.torch

    with needs("metrics"):
        from PIL import Image
    with needs("extractors"):
        from transformers import Dinov2Config, Dinov2Model, logging

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
    mean, std = (torch.tensor(v, device="cpu").view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def prepare(images: Tensor) -> Tensor:
        pictures = (Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images)
        x = np.stack([np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)) for p in pictures])
        return (torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std

    return prepare, lambda x: network(x).pooler_output

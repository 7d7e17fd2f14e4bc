"""DINOv2 with the ViT-B/14, 768 features."""

from sagd.metrics.extractors._dinov2 import PREPROCESSING, load
from sagd.metrics.features import Extractor, Weights

dinov2_vitb14 = Extractor(
    "dinov2_vitb14",
    PREPROCESSING,
    load,
    Weights(
        "https://huggingface.co/facebook/dinov2-base/resolve/f9e44c814b77203eaa57a6bdbbd535f21ede1415/model.safetensors",
        "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
        "dinov2-base.safetensors",
    ),
)

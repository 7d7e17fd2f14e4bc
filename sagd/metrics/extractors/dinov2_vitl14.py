"""DINOv2 with the ViT-L/14, 1024 features."""

from sagd.metrics.extractors._dinov2 import PREPROCESSING, load
from sagd.metrics.features import Extractor, Weights

dinov2_vitl14 = Extractor(
    "dinov2_vitl14",
    PREPROCESSING,
    load,
    Weights(
        "https://huggingface.co/facebook/dinov2-large/resolve/47b73eefe95e8d44ec3623f8890bd894b6ea2d6c/model.safetensors",
        "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
        "dinov2-large.safetensors",
    ),
)

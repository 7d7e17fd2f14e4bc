"""Small things that the tests build on."""

import pytest
import torch


@pytest.fixture
def generator():
    """A fresh generator, seed 0."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_unet():
    """Builds a U-Net of a few thousand weights for 8 x 8 images, the same at every call."""

    def make():
        from sagd.models import unet

        with torch.random.fork_rng():
            torch.manual_seed(0)
            return unet((8, 8), 1, [8, 8], 1, [False, False], 4)

    return make

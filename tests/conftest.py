"""Small things that the tests build on."""

import pytest
import torch

LONG = ("test_soak", "test_sharing", "test_distributed", "test_decide", "test_docs", "test_evaluate", "test_dvc")


def pytest_collection_modifyitems(items):
    """The longest tests first: last, they would keep one worker busy while the others wait."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture
def generator():
    """A fresh generator, seed 0."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def make_unet():
    """Builds a U-Net of a few thousand weights for 8 x 8 images, the same at every call."""

    def make():
        from sagd.networks.unet import unet

        with torch.random.fork_rng():
            torch.manual_seed(0)
            return unet((8, 8), 1, [8, 8], 1, [False, False], 4)

    return make


@pytest.fixture(scope="session")
def inception_folder(tmp_path_factory):
    """A folder with both files of Inception weights, random ones."""
    from tests.networks import save_inception

    folder = tmp_path_factory.mktemp("inception")
    save_inception(folder)
    return folder


@pytest.fixture(scope="session")
def two_folders(tmp_path_factory):
    """Two folders of PNGs: smooth pictures of 40 x 40 in colour, the second ones a little brighter."""
    import numpy as np
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, light in (("a", 100), ("b", 120)):
        (root / name).mkdir()
        for k in range(14):
            coarse = rng.normal(light, 50, (5, 5, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(root / name / f"{k:02d}.png")
    return root / "a", root / "b"

"""Any set of images is opened as the pipeline prepares it, a few images at a time."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from sagd.data import find
from sagd.data.load import load, read
from sagd.errors import InputError
from sagd.images import Images
from sagd.spaces.moments import statistics


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures, grey and coloured, of several sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for k, shape in enumerate([(20, 30, 3), (25, 17, 3), (16, 16, 3), (40, 21), (18, 18, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "set" / f"{k}.png")
    return tmp_path / "set"


def test_load_gives_what_read_gives(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in pictures.iterdir():
            archive.write(file, file.name)
    expected = read("folder", str(pictures), 16)
    for source in (pictures, tmp_path / "set.zip"):
        opened = load(str(source), 16)
        assert len(opened) == 5 and opened[:2].shape == (2, 3, 16, 16) and opened[:2].dtype == np.uint8
        np.testing.assert_array_equal(np.concatenate([opened[:2], opened[2:]]), expected)
    found = statistics(load(str(pictures), 16), block=2)
    torch.testing.assert_close(found, statistics(expected))
    digits = load("mnist_5k")
    assert digits.shape == (5000, 1, 28, 28)
    np.testing.assert_array_equal(load("mnist_5k", 16), read("mnist_5k", None, 16))


@pytest.mark.slow
def test_load_finds_torchvisions_digits(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digit = np.arange(784, dtype=np.uint8).reshape(28, 28)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + digit.tobytes() * count)
    for source in (tmp_path, tmp_path / "MNIST"):
        digits = load(str(source))
        assert digits.shape == (70_000, 1, 28, 28)
        np.testing.assert_array_equal(digits[-1, 0], digit)


def test_statistics_show_each_transform():
    images, seen = np.random.default_rng(0).integers(0, 256, (10, 1, 16, 16), dtype=np.uint8), []
    found = statistics(images, 4, seen.append)
    transforms = torch.cat(seen)
    assert [len(block) for block in seen] == [4, 4, 2]
    torch.testing.assert_close(transforms.abs().square().mean(0), found["power"])


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_path_is_not_this_folder(pictures, monkeypatch, empty):
    monkeypatch.chdir(pictures)
    for opened in (load, Images, lambda path: find("folder", path, 8), lambda path: find("mnist", path, 28)):
        with pytest.raises(InputError, match=r"is '.*'; it must name a file or a folder"):
            opened(empty)

"""Write two folders of images and measure how far they are apart, as `sagd evaluate` does.

Needs `pip install '.[data,extractors]'`. One folder has digits, the other one other digits with weak noise.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

import sagd
from sagd.data.load import read
from sagd.images import Images
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features
from sagd.metrics.measure import caveats, measure
from sagd.runtime.files import scratch
from sagd.spaces.pixels import corrupted


def write(folder: Path, images) -> Images:
    """Images (N, 1, H, W), uint8, as PNG files; the set as the library reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / f"{k:05d}.png")
    return Images(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="in each folder, 6 to 2500 (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("measure_folders"), help="where to write the two folders")
    options = parser.parse_args()

    digits = read("mnist_5k", None, 28)
    noise = sagd.Corruption(sagd.isotropic((28, 28)), gamma=options.noise)
    reference = write(options.out / "reference", digits[::2][: options.images])
    noisy = corrupted(digits[1::2][: options.images], noise, torch.Generator().manual_seed(0))
    generated = write(options.out / "generated", noisy)

    network = extractor("efficientnet_lite0")  # its weights come from pip
    places = {"cache": scratch() / "features", "weights": scratch() / "weights"}
    found = [features(images, network, **places) for images in (generated, reference)]
    for name, value in measure(*found, network, ("fid", "kid"), replicates=20).items():
        print(f"{name}: {value:.4g}")
    print(*caveats(*map(len, found), found[0].shape[1]), sep="\n")
    print(f"the same: python -m sagd evaluate {options.out}/generated {options.out}/reference")


if __name__ == "__main__":
    main()

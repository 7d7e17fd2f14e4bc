"""Bring the data to the space that is trained in (pixels, as they are) and take the statistics that sampling needs."""

from pipeline.console import stage
from pipeline.corrupt import corruption
from sagd.data import statistics
from sagd.files import read_array, read_json, write_json, write_tensors


def main(params, options):
    kind = params.section("encode").kind
    images = "artifacts/prepare/train.npy"
    clean = statistics(read_array(images, memory_map=True))
    for setting in params.all_settings:
        noise = corruption(read_json(setting.artifacts("corrupt") / "corruption.json"))
        power = clean["power"]
        if noise is not None:
            spectrum, gamma = noise
            power = power + (gamma * spectrum.weight) ** 2
        folder = setting.artifacts("encode")
        write_tensors(folder / "statistics.safetensors", {"mean": clean["mean"], "power": power})
        write_json(folder / "manifest.json", {"kind": kind, "images": images, "shape": list(power.shape)})


if __name__ == "__main__":
    stage(main, settings=False)

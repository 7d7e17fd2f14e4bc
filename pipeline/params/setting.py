"""One setting of a study, and what the stages know of it: no other module knows how its files are called."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.params.sections import Corrupt, Encode, Evaluate, Noise, Sample, Train, naming
from sagd.errors import InputError
from sagd.images import Images
from sagd.metrics.denoising import DENOISING
from sagd.networks import weights
from sagd.noise import corruption, stored
from sagd.noise.base import Noise as AnyNoise
from sagd.noise.corruption import Corruption
from sagd.runtime.files import read_array, read_bytes, read_images, read_json, read_tensors
from sagd.spaces import moments


@dataclass(frozen=True)
class Prepared:
    """A data set as `prepare` writes it, in a folder below artifacts/."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record(self) -> Path:
        """What `prepare` says of the images."""
        return Path("reports", *self.folder.parts[1:]).with_suffix(".json")

    def array(self, part: str) -> Path:
        """The file of ``train`` or ``held_out``, images, or of their ``labels`` or ``held_out_labels``."""
        return self.folder / f"{part}.npy"

    @property
    def here(self) -> bool:
        return self.array("train").exists()

    def images(self, part: str = "train") -> np.ndarray:
        """The images to train on, or those ``held_out``: (N, C, H, W), uint8, memory-mapped."""
        path = self.array(part)
        record = read_json(self.record, shape=list, train=int, held_out=int)
        images, shape = read_images(path), (record[part], *record["shape"])
        if images.shape != shape:
            raise InputError(f"{path} has shape {images.shape}, not {shape}; rerun the stage prepare")
        return images

    def labels(self) -> np.ndarray | None:
        """Of the training images, (N,), int64; None where `dataset.labels` does not ask for them."""
        path = self.array("labels")
        if not path.exists():
            return None
        labels, classes = read_array(path, like=(np.int64, 1)), read_json(self.record, classes=int)["classes"]
        n = len(self.images())
        if len(labels) != n or ((labels < 0) | (labels >= classes)).any():
            raise InputError(
                f"{path} holds {len(labels)} labels, not {n} from 0 to {classes - 1}; rerun the stage prepare"
            )
        return labels

    def sha256(self) -> str:
        """What tells the images from others: a hash of what `prepare` says of them."""
        return hashlib.sha256(read_bytes(self.record)).hexdigest()


def at(step: int | None) -> str:
    """How names end that are of a checkpoint before the last (None)."""
    return "" if step is None else f"_step_{step}"


def run_of(seed: int, step: int | None = None) -> str:
    """The name of a seed's network at a step, and of its samples: ``seed_0``, ``seed_0_step_40``."""
    return f"seed_{seed}{at(step)}"


@dataclass(frozen=True)
class Setting:
    """One setting of the study: the focus (name None) or an entry of the grid, and where its files are.

    ``absent`` are the sections that it needs and that the file does not have, ``seed`` among them.
    """

    name: str | None
    section: Callable[[str], Any]
    variant: str | None = None
    group: str | None = None
    prepared: Prepared = Prepared(Path("artifacts", "prepare"))
    profile: str | None = None
    absent: frozenset[str] = frozenset()

    def has(self, *sections: str) -> bool:
        """Whether the file has these sections, or they need none: a stage needs only its own."""
        return self.absent.isdisjoint(sections)

    @property
    def seeds(self) -> list[int]:
        return self.section("seeds")

    @property
    def noise(self) -> Noise:
        return self.section("noise")

    @property
    def corrupt(self) -> Corrupt:
        return self.section("corrupt")

    @property
    def encode(self) -> Encode:
        return self.section("encode")

    @property
    def train(self) -> Train:
        return self.section("train")

    @property
    def sample(self) -> Sample:
        return self.section("sample")

    @property
    def evaluate(self) -> Evaluate:
        return self.section("evaluate")

    def check(self, noise: AnyNoise, shape: tuple[int, ...]) -> None:
        """Raise InputError, before anything is trained, for what could not be sampled; data of a shape (C, H, W)."""
        if self.train.flip and self.encode.stored and not self.encode.flips:
            raise InputError(f"{self.title}: train.flip needs the latents of mirrored images: encode.flips")
        if self.sample.filtered and self.corrupt.band is None:
            raise InputError(
                f"{self.title}: sample.filtered takes the corrupted band out; there is none (corrupt.band)"
            )
        if self.sample.clip == "on" and self.encode.centre:
            raise InputError(
                f"{self.title}: sample.clip is on, which is for images in [-1, 1]; encode.centre moves them"
            )
        formulation = self.train.formulation(shape)
        if self.has("evaluate") and DENOISING in self.evaluate.metrics:
            if self.encode.kind != "pixel" or formulation.alpha_bar is None or not noise.constant:
                raise InputError(
                    f"{self.title}: the metric denoising (evaluate.metrics) is for pixels, schedules of diffusion and "
                    "constant noise"
                )
        try:
            with naming("sample", Sample):
                formulation.check(noise, self.sample.settings(clip=self.sample.clip == "on"))
        except InputError as error:
            raise InputError(f"{self.title}: {error}") from None

    # Where files are.

    def artifacts(self, stage: str) -> Path:
        """The folder of a stage's large files."""
        if self.name is None:
            return Path("artifacts", stage)
        if self.profile is None:
            return Path("artifacts", "grid", stage, "__".join(self._parts(stage)))
        return Path("artifacts", self.profile, self._filled_by(stage), self.group or "", *self._parts(stage), stage)

    def report(self, stage: str, ending: str) -> Path:
        """A small file of a stage, kept in git."""
        if self.name is None:
            return Path("reports", f"{stage}.{ending}")
        if self.profile is None:
            return Path("reports", "grid", stage, f"{'__'.join(self._parts(stage))}.{ending}")
        folder = Path("reports", self.profile, self._filled_by(stage), self.group or "", *self._parts(stage))
        return folder / f"{stage}.{ending}"

    @staticmethod
    def _filled_by(stage: str) -> str:
        """Which stage of a large study runs a script: it has too many settings for one stage a script."""
        return {"corrupt": "encode", "sample": "measure", "evaluate": "measure"}.get(stage, stage)

    def _parts(self, stage: str) -> list[str]:
        """Variants differ from `sample` on; before it they are one."""
        name = self.name or "focus"
        return [name, self.variant] if self.variant and stage in ("sample", "evaluate") else [name]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.variant}" if self.variant else self.name or "focus"

    # What the stages wrote, in their order.

    @property
    def corruption_file(self) -> Path:
        return self.artifacts("corrupt") / "corruption.safetensors"

    def corruption(self) -> Corruption | None:
        """What `corrupt` describes: the corruption of the training images, if there is one."""
        return corruption.load(self.corruption_file)

    @property
    def statistics_file(self) -> Path:
        return self.artifacts("encode") / "statistics.safetensors"

    def statistics(self) -> dict[str, Tensor]:
        """The ``mean`` and ``power``, (C, H, W) in float64, of the data as they are trained on."""
        return moments.read(self.statistics_file)

    @property
    def normalization_file(self) -> Path:
        return self.artifacts("encode") / "normalization.safetensors"

    def mean_image(self, device: torch.device | str) -> Tensor:
        """(C, H, W), float32: what `encode.centre` takes off the images."""
        return read_tensors(self.normalization_file)["mean"].float().to(device)

    @property
    def manifest_file(self) -> Path:
        return self.artifacts("encode") / "manifest.json"

    def manifest(self, **kinds: type) -> dict:
        """What `encode` says of the space that is trained in, and where the data are; with the types of keys."""
        return read_json(self.manifest_file, kind=str, **kinds)

    def noise_file(self, stage: str) -> Path:
        """What `encode` has made of the section noise, or what `train` has trained with."""
        return self.artifacts(stage) / "noise.safetensors"

    def forward_noise(self, stage: str = "train") -> AnyNoise:
        """The noise of `noise_file`."""
        return stored.load(self.noise_file(stage))

    @property
    def run_file(self) -> Path:
        return self.artifacts("train") / "run.json"

    def run(self) -> dict:
        """What the training wrote down: its ``seeds``, and the ``checkpoints``, steps at which networks were kept."""
        run = read_json(self.run_file, seeds=list, checkpoints=list)
        if (run["seeds"], run["checkpoints"]) != (self.seeds, [*self.train.earlier, self.train.steps]):
            raise InputError(
                f"{self.run_file} is of another training than the parameters describe: run the stage train again"
            )
        return run

    def network_folder(self, seed: int, step: int | None = None) -> Path:
        """Of a seed's network: the last, or that of an earlier step."""
        return self.artifacts("train") / run_of(seed, step)

    def network(self, seed: int, step: int | None = None) -> nn.Module:
        """A seed's network, the last or that of an earlier step."""
        return weights.load(self.network_folder(seed, step))

    @property
    def samples_file(self) -> Path:
        return self.artifacts("sample") / "samples.npz"

    @property
    def samples_record(self) -> Path:
        """What the samples were drawn with."""
        return self.artifacts("sample") / "samples.json"

    def samples(self, seed: int, step: int | None = None) -> Images:
        """The samples of a network: (N, C, H, W), uint8, on the disk."""
        return Images(f"{self.samples_file}:{run_of(seed, step)}")

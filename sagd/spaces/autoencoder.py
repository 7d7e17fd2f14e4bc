"""Pretrained autoencoders of diffusers."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagd.errors import InputError, Missing, needs
from sagd.runtime.download import digest
from sagd.runtime.files import scratch

KINDS = ("rae", "vae")


class Autoencoder:
    """A pretrained autoencoder of diffusers: ``rae`` is `AutoencoderRAE`, ``vae`` is `AutoencoderKL`.

    Parameters
    ----------
    path
        A folder that `save_pretrained` wrote, or ``owner/name`` (with ``@revision`` if wanted) on the Hugging Face hub;
        ``random`` is a small one with random weights for images of ``size``, for a trial run.
    """

    def __init__(self, kind: str, path: str, device: torch.device | str = "cpu", size: int | None = None):
        with needs("models"):
            import diffusers

        folder = _random(kind, size) if path == "random" else _folder(path)
        network = {"rae": diffusers.AutoencoderRAE, "vae": diffusers.AutoencoderKL}[kind]
        try:
            found = network.load_config(folder, local_files_only=True).get("_class_name", network.__name__)
            if found != network.__name__:
                raise ValueError(f"its config.json is of {found}")
            self.network = network.from_pretrained(folder, use_safetensors=True, local_files_only=True).to(device)
        except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
            raise InputError(f"{folder} holds no {network.__name__}: {' '.join(str(error).split())[:300]}") from error
        self.network.eval().requires_grad_(False)
        self.kind, self.device = kind, torch.device(device)
        self.sha256 = hashlib.sha256(
            "".join(digest(f) for f in sorted(folder.glob("*.safetensors"))).encode()
        ).hexdigest()

    @classmethod
    def recorded(cls, manifest: dict, device: torch.device | str) -> "Autoencoder":
        """The autoencoder in the manifest of what encode wrote; its weights must be the same."""
        found = cls(manifest["kind"], manifest["autoencoder"], device, manifest["size"])
        if found.sha256 != manifest["autoencoder_sha256"]:
            raise InputError(
                f"{manifest['autoencoder']} is not the autoencoder that encoded (SHA-256 {found.sha256[:16]}, not "
                f"{manifest['autoencoder_sha256'][:16]}): restore it, or encode the images again"
            )
        return found

    def shape(self, images: tuple[int, ...]) -> tuple[int, ...]:
        """(C, h, w) of the latent of an image (C, H, W); InputError if it is decoded to another shape."""
        with torch.inference_mode():
            z = self.encode(torch.zeros(1, 3, *images[1:], device=self.device, dtype=torch.float32))
            decoded = tuple(self.decode(z).shape[1:])
        if decoded != tuple(images):
            raise InputError(
                f"the {self.kind} decodes latents to images of {decoded}, the data are {tuple(images)} (channels, "
                "height, width): use images of that shape"
            )
        return tuple(z.shape[1:])

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]: the mode where the encoder is random."""
        if self.kind == "rae":
            return self.network.encode((x + 1) / 2).latent
        return self.network.encode(x).latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of latents."""
        x = self.network.decode(z).sample
        return 2 * x - 1 if self.kind == "rae" else x


def _random(kind: str, size: int | None) -> Path:
    """A small autoencoder with random weights, saved in diffusers' format below the scratch folder."""
    with needs("models"):
        import diffusers

    folder = scratch() / "random" / f"{kind}_{size}"
    if size is None or size < 8 or size % 4:
        raise InputError(f"path is 'random': size is {size}; it must be 8 or more and divisible by 4")
    if not (folder / "config.json").exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Any
            if kind == "rae":  # 4 x 4 tokens of 64 channels; the encoder's heads have 64 each
                network = diffusers.AutoencoderRAE(
                    encoder_hidden_size=64, encoder_num_hidden_layers=1, encoder_input_size=56, patch_size=size // 4,
                    decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                    decoder_intermediate_size=64,
                )  # fmt: skip
            else:
                network = diffusers.AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                    block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=size,
                )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as beside:
            network.save_pretrained(beside, safe_serialization=True)
            with contextlib.suppress(OSError):  # another process has just put the same there
                os.rename(beside, folder)
    return folder


def _folder(path: str) -> Path:
    """The folder of weights: a local one, or the hub's cache after a download."""
    if Path(path).is_dir():
        return Path(path)
    with needs("models"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = path.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise Missing(
            f"path is {path}: no such folder, and the hub does not have it ({type(error).__name__}); name a "
            "folder that holds config.json and the safetensors file of the autoencoder"
        ) from error

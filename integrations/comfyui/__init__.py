"""Shaped noise in ComfyUI: a NOISE for the start, and a SAMPLER whose steps draw the same noise.

Copy or link this folder into ComfyUI's custom_nodes; it needs `pip install sagd` in ComfyUI's Python.
"""

import inspect
import json

import numpy as np
import torch

from sagd.errors import InputError
from sagd.k_diffusion import noise_sampler
from sagd.operators import OPERATORS, build

FROM_DATA = {name for name, make in OPERATORS.items() if "power" in inspect.signature(make).parameters}


class ShapedNoise:
    """ComfyUI's NOISE: ``seed``, and ``generate_noise(latent)``. Its white noise is that of RandomNoise."""

    def __init__(self, seed: int, operator: str, arguments: dict):
        self.seed, self.operator, self.arguments = seed, operator, arguments
        self._spectra: dict = {}
        self.spectrum((16, 16))  # a wrong argument is told when the node runs, not in the middle of sampling

    def spectrum(self, size):
        """The spectrum for latents of a size (H, W)."""
        size = tuple(size)
        if size not in self._spectra:
            self._spectra[size] = build(self.operator, size, None, self.arguments)
        return self._spectra[size]

    def generate_noise(self, input_latent: dict) -> torch.Tensor:
        """Shaped noise for latents (B, C, H, W) or (B, C, F, H, W), on the CPU.

        As in ComfyUI, an image of ``batch_index`` k is the k-th that the seed draws, whatever the batch.
        """
        latents = input_latent["samples"]
        if getattr(latents, "is_nested", False) or latents.ndim not in (4, 5):
            found = "nested" if getattr(latents, "is_nested", False) else tuple(latents.shape)
            raise InputError(f"latents are {found}; shaped noise is for (B, C, H, W) and (B, C, F, H, W)")
        generator = torch.Generator().manual_seed(self.seed)
        places = input_latent.get("batch_index")
        if places is None:
            white = torch.randn(latents.shape, generator=generator)
        else:
            wanted, place = np.unique(places, return_inverse=True)
            one = (1, *latents.shape[1:])
            drawn = [torch.randn(one, generator=generator) for _ in range(int(wanted[-1]) + 1)]
            white = torch.cat([drawn[wanted[k]] for k in place])
        return self.spectrum(latents.shape[-2:]).shape(white).to(latents.dtype)


class SAGDNoise:
    """The node of the start."""

    CATEGORY = "sampling/custom_sampling/noise"
    FUNCTION = "get_noise"
    RETURN_TYPES = ("NOISE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "noise_seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "operator": (sorted(set(OPERATORS) - FROM_DATA), {"default": "power_law"}),
                "arguments": ("STRING", {"default": '{"alpha": -0.06}', "multiline": True}),
            }
        }

    def get_noise(self, noise_seed: int, operator: str, arguments: str) -> tuple[ShapedNoise]:
        return (ShapedNoise(noise_seed, operator, parsed(arguments)),)


class SAGDSampler:
    """The node of the steps: it matters for ancestral and SDE samplers, the others draw nothing."""

    CATEGORY = "sampling/custom_sampling/samplers"
    FUNCTION = "get_sampler"
    RETURN_TYPES = ("SAMPLER",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sampler": ("SAMPLER",), "noise": ("NOISE",)}}

    def get_sampler(self, sampler, noise: ShapedNoise):
        plain = sampler.sampler_function
        if "noise_sampler" not in inspect.signature(plain).parameters:
            name = getattr(plain, "__name__", type(sampler).__name__)
            raise InputError(
                f"the sampler {name} takes no noise_sampler: its steps draw no noise, or none that can be shaped"
            )

        def sample(model, x, sigmas, **options):
            generator = torch.Generator().manual_seed(noise.seed + 1)  # not what the start was drawn from
            shaped = noise_sampler(noise.spectrum(x.shape[-2:]), x, generator=generator)
            return plain(model, x, sigmas, **{**options, "noise_sampler": shaped})

        return (type(sampler)(sample, sampler.extra_options, sampler.inpaint_options),)


def parsed(arguments: str) -> dict:
    """Arguments of an operator, from JSON."""
    try:
        found = json.loads(arguments or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"arguments are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f'arguments are {found!r}; allowed is an object, such as {{"alpha": -0.06}}')
    return found


NODE_CLASS_MAPPINGS = {"SAGDNoise": SAGDNoise, "SAGDSampler": SAGDSampler}
NODE_DISPLAY_NAME_MAPPINGS = {"SAGDNoise": "Shaped noise (SAGD)", "SAGDSampler": "Shaped steps (SAGD)"}

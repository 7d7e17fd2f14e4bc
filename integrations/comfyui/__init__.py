"""Shaped noise in ComfyUI: a NOISE for the start, and a SAMPLER whose steps draw the same noise.

Copy or link this folder into ComfyUI's custom_nodes; it needs sagd in ComfyUI's Python: there, in a
clone of sagd, `pip install .`
"""

import inspect
import json

import numpy as np
import torch

from sagd.errors import InputError, check_floating, shortened
from sagd.k_diffusion import noise_sampler
from sagd.operators import OPERATORS, build

SEEDS = 2**64  # ComfyUI's are 0 to SEEDS - 1
FROM_DATA = {name for name, make in OPERATORS.items() if "power" in inspect.signature(make).parameters}


class ShapedNoise:
    """ComfyUI's NOISE: ``seed``, and ``generate_noise(latent)``. Its white noise is that of RandomNoise."""

    def __init__(self, seed: int, operator: str, arguments: dict):
        if type(seed) is not int or not -SEEDS // 2 <= seed < SEEDS:
            raise InputError(f"noise_seed is {shortened(repr(seed), 60)}; allowed are whole numbers from 0 to 2^64 - 1")
        self.seed, self.operator, self.arguments, self._last = seed, operator, arguments, None
        self.spectrum((16, 16))  # a wrong argument is told when the node runs, not while it samples

    def spectrum(self, size):
        """The spectrum for latents of a size (H, W)."""
        size = tuple(size)
        if self._last is None or self._last.size != size:
            self._last = build(self.operator, size, None, self.arguments)
        return self._last

    def generate_noise(self, input_latent: dict) -> torch.Tensor:
        """Shaped noise for latents (B, C, H, W) or (B, C, F, H, W), on the CPU.

        As in ComfyUI, an image of ``batch_index`` k is the k-th that the seed draws, whatever the batch.
        """
        latents = input_latent["samples"]
        if getattr(latents, "is_nested", False) or latents.ndim not in (4, 5):
            found = "nested" if getattr(latents, "is_nested", False) else tuple(latents.shape)
            raise InputError(f"latents are {found}; shaped noise is for (B, C, H, W) and (B, C, F, H, W)")
        check_floating("latents", latents)
        generator = torch.Generator().manual_seed(self.seed)
        places = input_latent.get("batch_index")
        if places is None:
            white = torch.randn(latents.shape, generator=generator)
        else:
            wanted, one = places_of(places, len(latents)), (1, *latents.shape[1:])
            drawn = {}
            for k in range(max(wanted) + 1):  # the seed draws them in order; those that are wanted are kept
                image = torch.randn(one, generator=generator)
                if k in wanted:
                    drawn[k] = image
            white = torch.cat([drawn[k] for k in wanted])
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
        if not hasattr(noise, "spectrum"):  # ComfyUI's own
            raise InputError(f"the noise is a {type(noise).__name__}; take the node Shaped noise (SAGD)")
        plain = sampler.sampler_function
        if "noise_sampler" not in inspect.signature(plain).parameters:
            name = getattr(plain, "__name__", type(sampler).__name__)
            raise InputError(
                f"the sampler {name} takes no noise_sampler: its steps draw no noise, or none that can be shaped"
            )

        def sample(model, x, sigmas, **options):
            other = noise.seed + 1 if noise.seed < SEEDS - 1 else 0  # not what the start was drawn from
            generator = torch.Generator().manual_seed(other)
            shaped = noise_sampler(noise.spectrum(x.shape[-2:]), x, generator=generator)
            return plain(model, x, sigmas, **{**options, "noise_sampler": shaped})

        return (type(sampler)(sample, sampler.extra_options, sampler.inpaint_options),)


def places_of(batch_index, images: int) -> list[int]:
    """A latent's batch_index as whole numbers from 0 on, one for each image."""
    found = np.asarray(batch_index)
    if found.shape != (images,) or found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        raise InputError(
            f"batch_index is {shortened(repr(batch_index), 60)}; allowed is a whole number from 0 on for each of "
            f"{images} images"
        )
    return found.tolist()


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

"""A pipeline for networks that were trained with shaped noise."""

import contextlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, Optional

import torch
from diffusers import (
    ConfigMixin,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ImagePipelineOutput,
    ModelMixin,
    SchedulerMixin,
)
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sagd.diffusers.drawing import drawing, intercept
from sagd.diffusers.schedulers import Shaped
from sagd.errors import InputError, check_floating, check_number, check_whole, one_of, shortened
from sagd.networks.dit import DiTDH
from sagd.networks.weights import predictor
from sagd.noise.randomness import check_generator


class SAGDTransformer2DModel(ModelMixin, ConfigMixin):
    """`sagd.networks.dit.DiTDH` as a model of diffusers: the same arguments, and the same names of weights."""

    _no_split_modules = DiTDH._no_split_modules
    _supports_gradient_checkpointing = True
    gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 768,
        patch_size: int = 1,
        hidden_sizes: tuple[int, ...] = (384, 2048),
        depths: tuple[int, ...] = (12, 2),
        heads: tuple[int, ...] = (6, 16),
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
    ):
        super().__init__()
        network = DiTDH(
            sample_size,
            in_channels,
            patch_size,
            tuple(hidden_sizes),
            tuple(depths),
            tuple(heads),
            mlp_ratio,
            num_classes,
        )
        # Its parts, not itself, so that weights have the same names.
        for of in ("_modules", "_parameters", "_buffers"):
            getattr(self, of).update(getattr(network, of))
        self._non_persistent_buffers_set |= network._non_persistent_buffers_set
        self.label_embed = network.label_embed  # None, if there are no labels

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> tuple[Tensor]:
        """As `DiTDH.forward`; in a tuple, as diffusers has it."""
        return (DiTDH.forward(self, sample, timestep, class_labels),)


class SAGDPipeline(DiffusionPipeline):
    """Draw images with a network and a scheduler that has a spectrum: the start is shaped, and so are the steps.

    Saved by ``save_pretrained``, it loads by ``diffusers.DiffusionPipeline.from_pretrained`` where `sagd.diffusers` is
    imported. Elsewhere its U-Net loads as any ``UNet2DModel``.

    Parameters
    ----------
    scheduler
        One of `sagd.diffusers`' schedulers; one without a spectrum draws white noise.
    unet
        ``diffusers.UNet2DModel``, with labels or without; or None.
    transformer
        In place of a U-Net: ``diffusers.DiTTransformer2DModel``, or `SAGDTransformer2DModel`.

    Raises
    ------
    InputError
        Not one network; one of `sagd.networks`; a spectrum of another size than the network's images.
    """

    model_cpu_offload_seq = "unet->transformer"
    _optional_components = ["unet", "transformer"]  # noqa: RUF012, diffusers' name

    def __init__(
        self,
        scheduler: SchedulerMixin,
        unet: Optional[ModelMixin] = None,  # noqa: UP045, diffusers before 0.37 does not know the other spelling
        transformer: Optional[ModelMixin] = None,  # noqa: UP045
    ):
        super().__init__()
        self.register_modules(scheduler=scheduler, unet=unet, transformer=transformer)
        if (unet is None) == (transformer is None):
            raise InputError("a pipeline has one network: a unet or a transformer")
        if not isinstance(self.network, ModelMixin):
            ours = type(self.network).__name__
            reads = "SAGDTransformer2DModel" if isinstance(self.network, DiTDH) else "diffusers.UNet2DModel"
            raise InputError(
                f"the network is a {ours} of {type(self.network).__module__}, and no model of diffusers: save it by "
                f"save_pretrained(folder), and read it by {reads}.from_pretrained(folder)"
            )
        if self.noise is not None and self.noise.size != self.image_shape[-len(self.noise.size) :]:
            size, images = ("x".join(map(str, s)) for s in (self.noise.size, self.image_shape[1:]))
            raise InputError(f"the scheduler's spectrum is of {size}; the network's images are of {images}")

    @property
    def network(self) -> ModelMixin:
        """The U-Net or the transformer."""
        return self.transformer if self.unet is None else self.unet

    @property
    def noise(self) -> Any:
        """The scheduler's noise; None is white."""
        return self.scheduler.noise if isinstance(self.scheduler, Shaped) else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        size = self.network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.network.config.in_channels, height, width

    def _no_label(self) -> int | None:
        """The label that stands for none, the network's last; None if it knows no labels."""
        config = self.network.config
        if getattr(config, "num_class_embeds", None):
            return config.num_class_embeds - 1
        return getattr(config, "num_classes", None) or getattr(config, "num_embeds_ada_norm", None) or None

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: list[int] | Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance_scale: float = 1.0,
    ) -> ImagePipelineOutput | tuple:
        """Draw images.

        Parameters
        ----------
        batch_size
            How many; with ``class_labels``, their number.
        class_labels
            (B,), one for each image, of a network that knows labels.
        generator
            The source of randomness; a list has one for each image, which then does not depend on the others.
        num_inference_steps
            Steps of the scheduler.
        eta
            Of DDIM: 0 is deterministic, 1 adds the noise of DDPM.
        latents
            (B, C, H, W), a start of your own: noise of mean square 1, drawn by `Spectrum.sample`. As in diffusers it is
            multiplied by the scheduler's ``init_noise_sigma``, which is 1 for DDPM and DDIM.
        output_type
            ``pil``, ``np`` (B, H, W, C) in [0, 1], or ``pt`` (B, C, H, W) in [0, 1].
        guidance_scale
            s of classifier-free guidance (Ho and Salimans, arXiv 2207.12598): what the scheduler is given is
            none + s (label - none), where the last label of the network stands for none, as in training with label
            dropout. 1 is without guidance; else each step takes the network twice as many images.

        Returns
        -------
        ImagePipelineOutput
            Its ``images``; a tuple of them where ``return_dict`` is false.

        Raises
        ------
        InputError
            Labels missing, not wanted or unknown; guidance without labels; as many generators as there are not images;
            latents of another shape; a number of images or of steps that is not 1 or more; eta outside of [0, 1].
        """
        one_of("output_type", output_type, ("pil", "np", "pt"))
        network, device = self.network, self._execution_device
        none = self._no_label()
        if (class_labels is None) != (none is None):
            raise InputError("class_labels must be given if the network knows labels, and only then")
        check_number("guidance_scale", guidance_scale)
        if guidance_scale != 1 and none is None:
            raise InputError(f"guidance_scale is {guidance_scale:g}; guidance needs a network that knows labels")
        labels = None if none is None or class_labels is None else _labels(class_labels, none).to(device)
        batch_size = batch_size if labels is None else len(labels)
        check_whole("batch_size", batch_size, 1)
        check_whole("num_inference_steps", num_inference_steps, 1)
        check_number("eta", eta, least=0, most=1)
        check_generator(generator, batch_size)
        generator = list(generator) if isinstance(generator, tuple) else generator  # diffusers takes no tuple
        wanted = (batch_size, *self.image_shape)
        if latents is None:
            with contextlib.nullcontext() if self.noise is None else drawing(self.noise):
                latents = randn_tensor(wanted, generator=generator, device=device, dtype=network.dtype)
        check_floating("latents", latents)
        if latents.shape != wanted:
            raise InputError(f"latents have the shape {tuple(latents.shape)}; it must be {wanted}")
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):  # evenly spaced from 1 to 0, as Flux has it
            sigmas = torch.linspace(1, 1 / num_inference_steps, num_inference_steps, dtype=torch.float64, device="cpu")
            self.scheduler.set_timesteps(sigmas=sigmas.tolist(), device=device)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device)
        x = latents.to(device, network.dtype) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        known = inspect.signature(self.scheduler.step).parameters
        more = {key: value for key, value in {"eta": eta, "generator": generator}.items() if key in known}
        predict = predictor(network, labels)
        if labels is not None and none is not None and guidance_scale != 1:
            predict = _guided(network, labels, torch.full_like(labels, none), guidance_scale)
        on_device = self.scheduler.timesteps
        # Schedulers look times up in tables on the CPU: given those of the device they would wait for it in every step.
        for t, now in zip(self.progress_bar(on_device.cpu()), on_device, strict=True):
            scaled = self.scheduler.scale_model_input(x, t) if hasattr(self.scheduler, "scale_model_input") else x
            found = predict(scaled, now.expand(batch_size))
            x = self.scheduler.step(found, t, x, **more).prev_sample
        images: Any = (x / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
            images = self.numpy_to_pil(images) if output_type == "pil" else images
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def _labels(given: list[int] | Tensor, none: int) -> Tensor:
    """(B,), whole numbers from 0 to ``none``, which is checked where they are on the CPU."""
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        said = shortened(repr(given), 60)
        raise InputError(f"class_labels are {said}; they must be whole numbers, one for each image") from None
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        found = f"{tuple(labels.shape)}, {labels.dtype}"
        raise InputError(f"class_labels are {found}; they must be whole numbers, one for each image")
    if labels.device.type == "cpu" and len(labels) and not 0 <= labels.min() <= labels.max() <= none:
        raise InputError(f"class_labels are {labels.min()} to {labels.max()}; allowed are 0 to {none}, which is none")
    return labels.long()  # embeddings take no shorter ones


def _guided(network: ModelMixin, labels: Tensor, none: Tensor, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A network under classifier-free guidance; of channels beyond those of x, variances, the label's are taken."""
    both = predictor(network, torch.cat([labels, none]))

    def predict(x: Tensor, t: Tensor) -> Tensor:
        label, without = both(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        c = x.shape[1]
        return torch.cat([without[:, :c] + scale * (label[:, :c] - without[:, :c]), label[:, c:]], 1)

    return predict


intercept(sys.modules[__name__])

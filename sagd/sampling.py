"""Sampling a trained network, image by image reproducible."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sagd.diffusion import STARTS, Diffusion, Formulation, check_sampler, sample, start_from_marginal, start_from_noise
from sagd.errors import InputError
from sagd.flow import SAMPLERS
from sagd.models import classes_of, predictor
from sagd.parallel import concurrently
from sagd.randomness import generator
from sagd.spectrum import Spectrum, one_of
from sagd.spectrum.varying import Varying


def check_sampling(
    formulation: Formulation,
    spectrum: Spectrum | Varying,
    *,
    steps: int,
    spacing: str = "leading",
    start: str = "noise",
    sampler: str = "ddim",
    eta: float = 0.0,
) -> None:
    """Refuse what cannot be sampled: a sampler, a spectrum and a formulation that do not go together."""
    if isinstance(formulation, Diffusion):
        timesteps = formulation.schedule.timesteps(steps, spacing)
        check_sampler(formulation.schedule, spectrum, timesteps, sampler, formulation.prediction, eta, start)
        return
    name = type(formulation).__name__
    formulation.grid(steps)
    if sampler not in SAMPLERS:
        raise InputError(f"sampler is {sampler!r}; {name} is sampled by {' or '.join(SAMPLERS)}")
    if eta > 0 or start != "noise":
        raise InputError(f"{name} is sampled from noise alone: eta must be 0 and start must be noise")
    if isinstance(spectrum, Varying):
        raise InputError("a varying spectrum follows a discrete schedule; flow matching and EDM have none")


def draw_batches(
    network: nn.Module,
    formulation: Formulation,
    spectrum: Spectrum | Varying,
    data: dict[str, Tensor],
    firsts: Sequence[int],
    *,
    n: int,
    steps: int,
    seed: int,
    spacing: str = "leading",
    start: str = "noise",
    sampler: str = "ddim",
    eta: float = 0.0,
    clip: bool = False,
    batch_size: int = 32,
    decode: Callable[[Tensor], Tensor] = lambda x: x,
) -> Iterator[Tensor]:
    """Draw some of n samples, a batch at a time. Sample k has a generator of its own, so nothing else changes it.

    To the bit on one machine at one batch size; at another, convolutions may round differently in the last place.

    Parameters
    ----------
    network
        A diffusers model in evaluation mode. If it knows c labels, sample k has the label k mod c, so counts are equal.
    data
        ``mean`` and ``power`` of `sagd.moments.statistics`; give the shape, and the start from the marginal.
    firsts
        The first sample of each batch that is wanted, multiples of ``batch_size``.
    start
        ``noise``: x_T = T_w xi, as the paper. ``marginal``: with the data's own share, see `start_from_marginal`.
    sampler, eta, clip
        Of `sagd.sample`, `Flow.sample` or `EDM.sample`.
    decode
        From what is trained on to images in [-1, 1].

    Yields
    ------
    (batch_size or what is left of n, C, H, W), float32, on the CPU, not clipped at the end.
    """
    one_of("start", start, STARTS)
    batch_size = min(batch_size, n)
    device = next(network.parameters()).device
    shape = tuple(data["mean"].shape)
    classes = classes_of(network)

    def batch(first: int) -> Tensor:
        # A short last batch is filled up, so that every batch takes the same path through the convolutions.
        sources = [generator(seed, "sample", first + k) for k in range(batch_size)]
        labels = (first + torch.arange(batch_size, device=device)) % classes if classes else None
        predict = predictor(network, labels)

        def white() -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) for g in sources]).to(device)

        with torch.inference_mode():
            if not isinstance(formulation, Diffusion):
                x = formulation.sample(predict, spectrum, start_from_noise(spectrum, white()), steps, sampler=sampler)
            else:
                schedule, visited = formulation.schedule, formulation.schedule.timesteps(steps, spacing)
                if start == "noise":
                    x = start_from_noise(spectrum, white(), visited[0])
                else:
                    x = start_from_marginal(schedule, spectrum, visited[0], data["mean"], data["power"], white())
                x = sample(
                    predict, schedule, spectrum, x, visited,
                    sampler=sampler, prediction=formulation.prediction, eta=eta, clip=clip,
                    white=white if sampler == "ddpm" or eta > 0 else None,
                )  # fmt: skip
            return decode(x)[: n - first].float().cpu()

    yield from concurrently(batch, firsts, device)


def draw(
    network: nn.Module,
    formulation: Formulation,
    spectrum: Spectrum | Varying,
    data: dict[str, Tensor],
    *,
    n: int,
    batch_size: int = 32,
    **how: object,
) -> Tensor:
    """All of n samples, (n, C, H, W), whatever n and the batch size; the parameters are those of `draw_batches`."""
    firsts = range(0, n, batch_size)
    return torch.cat([*draw_batches(network, formulation, spectrum, data, firsts, n=n, batch_size=batch_size, **how)])


def to_uint8(x: Tensor) -> Tensor:
    """Pixels of [-1, 1] to uint8, rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

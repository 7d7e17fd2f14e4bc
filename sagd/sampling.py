"""Sampling a trained network, image by image reproducible."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sagd.errors import InputError, check_whole, shortened
from sagd.formulations.base import Formulation, Predict, Sampler, check_formulation, moments_of
from sagd.networks.weights import classes_of, predictor
from sagd.noise.base import Noise
from sagd.noise.randomness import generator as stream
from sagd.noise.spectrum import check_draw
from sagd.runtime.parallel import concurrently


def sample(
    predict: Predict,
    formulation: Formulation,
    noise: Noise,
    sampler: Sampler,
    *,
    shape: Sequence[int],
    generator: torch.Generator | Sequence[torch.Generator],
    data: dict[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
    gradients: bool = False,
) -> Tensor:
    """Draw samples with a network, start and steps shaped (App. D.4).

    Parameters
    ----------
    predict
        Takes x_t (B, ...) and t (B,) and gives what the formulation predicts, in x_t's shape: a tensor, or an object of
        diffusers. It must not write into x_t, which the sampler goes on from.
    formulation, noise
        What the network was trained with.
    sampler
        How to sample.
    shape
        (B, C, H, W).
    generator
        The source of all randomness; a sequence has one for each image, which then does not depend on the others.
    data
        ``mean`` and ``power`` of `sagd.spaces.moments.statistics`, for ``start="marginal"``.
    device
        Of the network.
    gradients
        Whether to keep the graph of all steps, so that gradients can be taken through the sampler.

    Returns
    -------
    Tensor
        ``shape``, float32; float64 if the network's output is.

    Raises
    ------
    InputError
        Noise, sampler and formulation that do not go together, a shape that is not the noise's, what is no generator,
        or a network whose output has another shape than its input.
    """
    _check(predict, formulation, noise, sampler)
    if generator is None:
        raise InputError("generator is None; sampling takes a torch.Generator, or a sequence with one for each image")
    size = check_draw(shape, generator, torch.float32)

    def drawn(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=source, device=source.device, dtype=torch.float32).to(device)

    def white() -> Tensor:
        if isinstance(generator, Sequence):
            return torch.stack([drawn(size[1:], source) for source in generator])
        return drawn(size, generator)

    start = formulation.start(noise, sampler, white(), data)
    return formulation.sample(predict, noise, start, sampler, white=white, gradients=gradients)


def _check(predict: Predict, formulation: Formulation, noise: Noise, sampler: Sampler) -> None:
    """Refuse what does not go together, or is another kind of object."""
    if not callable(predict):
        raise InputError(f"the network is {shortened(repr(predict), 60)}; it must be callable: (x_t, t)")
    check_formulation(formulation)
    if sampler is None:
        raise InputError("sampler is None; it must be a Sampler, such as sagd.Sampler('ddim', 50)")
    formulation.check(noise, sampler)


def draw_batches(
    network: nn.Module,
    formulation: Formulation,
    noise: Noise,
    sampler: Sampler,
    data: dict[str, Tensor],
    firsts: Sequence[int],
    *,
    n: int,
    seed: int,
    batch_size: int = 32,
    decode: Callable[[Tensor], Tensor] = lambda x: x,
) -> Iterator[Tensor]:
    """Draw some of n samples, a batch at a time. Sample k has a generator of its own, so nothing else changes it.

    To the bit on one machine at one batch size and number of threads; at another, convolutions may round differently in
    the last place.

    Parameters
    ----------
    network
        In evaluation mode. If it knows c labels, sample k has the label k mod c, so counts are equal. Without weights
        it samples on the device of ``data``.
    data
        ``mean`` and ``power`` of `sagd.spaces.moments.statistics`; give the shape, and the start from the marginal.
    firsts
        The first sample of each batch that is wanted, multiples of ``batch_size``.
    decode
        From what is trained on to images in [-1, 1].

    Yields
    ------
    (batch_size or what is left of n, C, H, W), float32, on the CPU, not clipped at the end.
    """
    check_whole("n", n, 1)
    check_whole("batch_size", batch_size, 1)
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}; it must be a torch.nn.Module, or use sagd.sample")
    _check(network, formulation, noise, sampler)
    batch_size = min(batch_size, n)
    mean, _ = moments_of(data)
    device = next(itertools.chain(network.parameters(), network.buffers()), mean).device
    shape = tuple(mean.shape)
    classes = classes_of(network)

    def batch(first: int) -> Tensor:
        # A short last batch is filled up, so that every batch takes the same path through the convolutions.
        sources = [stream(seed, "sample", first + k) for k in range(batch_size)]
        labels = (first + torch.arange(batch_size, device=device)) % classes if classes else None

        def white() -> Tensor:
            each = [torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in sources]
            return torch.stack(each).to(device)

        with torch.inference_mode():
            start = formulation.start(noise, sampler, white(), data)
            x = formulation.sample(predictor(network, labels), noise, start, sampler, white=white)
            return decode(x)[: n - first].float().cpu()

    yield from concurrently(batch, firsts, device)


def draw(
    network: nn.Module,
    formulation: Formulation,
    noise: Noise,
    sampler: Sampler,
    data: dict[str, Tensor],
    *,
    n: int,
    seed: int,
    batch_size: int = 32,
) -> Tensor:
    """All of n samples, (n, C, H, W), whatever n and the batch size; the parameters are those of `draw_batches`."""
    check_whole("n", n, 1)
    check_whole("batch_size", batch_size, 1)
    firsts = range(0, n, batch_size)
    each = draw_batches(network, formulation, noise, sampler, data, firsts, n=n, seed=seed, batch_size=batch_size)
    return torch.cat(list(each))

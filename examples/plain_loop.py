"""Shaped noise in a plain training loop, on discs made here; needs torch alone. Prints samples, saves them as npy."""

import argparse
from pathlib import Path

import numpy as np
import torch

import sagd
from sagd.networks.unet import unet


def discs(n: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Soft bright discs on black, (n, 1, size, size) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    top, left, radius = (torch.rand((3, n, 1, 1), generator=generator) * 0.3 + 0.2) * size
    distance = torch.hypot(y - top - size * 0.15, x - left - size * 0.15)
    return (2 * torch.sigmoid(1.5 * (0.6 * radius - distance)) - 1)[:, None]


def show(images: torch.Tensor) -> str:
    """A row of images (N, 1, H, W) in characters."""
    rows = ((images[:, 0].clamp(-1, 1) + 1) * 2).round().int().transpose(0, 1)  # (H, N, W)
    return "\n".join("  ".join("".join(" .+o#"[v] * 2 for v in line) for line in row) for row in rows.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="of training (default: %(default)s)")
    parser.add_argument("--alpha", type=float, default=-0.06, help="exponent of the noise (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("plain_loop.npy"), help="file of samples")
    options = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # the network's initial weights
    data = discs(1024, 16, generator)
    noise = sagd.power_law((16, 16), options.alpha)
    diffusion = sagd.Diffusion(sagd.Schedule.linear(), prediction="v")
    network = unet((16, 16), 1, widths=[16, 32], layers=1, attention=[False, False], groups=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)

    for step in range(options.steps):
        x0 = data[torch.randint(len(data), (32,), generator=generator)]
        eps = noise.sample(x0.shape, generator=generator)  # N(0, Sigma_w), in place of torch.randn
        loss = diffusion.loss(network, noise, x0, diffusion.draw_times(32, generator=generator), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}")

    sampler = sagd.Sampler(steps=50)
    samples = sagd.sample(network, diffusion, noise, sampler, shape=(64, 1, 16, 16), generator=generator)
    np.save(options.out, ((samples.clamp(-1, 1) + 1) * 127.5).byte().numpy())
    print(show(samples[:4]))
    print(f"mean pixel {samples.mean():.2f} (data {data.mean():.2f}); saved {options.out}")


if __name__ == "__main__":
    main()

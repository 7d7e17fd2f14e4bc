"""Print ratios of times, each the median over pairs of runs that alternate: ours, theirs, ours, theirs, ...

Times on shared machines are noisy; the ratio of neighbours is less so. Nothing here asserts anything.
"""

import argparse
import contextlib
import copy
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import sagd
from sagd.formulations.flow import dimension_shift
from sagd.networks.dit import dit
from sagd.networks.unet import unet
from sagd.networks.weights import classes_of, predictor
from sagd.runtime.parallel import concurrently
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe

# Small, of three levels; the default study's has two.
UNET = {"widths": [16, 16, 32], "layers": 1, "attention": [False] * 3, "groups": 8}
PAPER_UNET = {"widths": [32, 64, 128, 256], "layers": 2, "attention": [False, True, True, True], "groups": 32}
SIZE = (16, 16)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> tuple[float, float, float]:
    """Median of (time of ours / time of theirs) over the pairs, and the smallest and the largest."""
    ours(), theirs()
    found = sorted(seconds(ours) / seconds(theirs) for _ in range(pairs))
    return found[len(found) // 2], found[0], found[-1]


def tell(what: str, measured: tuple[float, float, float], invert: bool = False, aim: str = "") -> None:
    middle, low, high = measured if not invert else (1 / measured[0], 1 / measured[2], 1 / measured[1])
    print(f"{what:<66} {middle:6.2f}  ({low:.2f} to {high:.2f}){aim and f', aim {aim}'}", flush=True)


def noise() -> None:
    print("\nShaped noise: its time over that of ...")
    for shape in ((64, 1, 16, 16), (64, 3, 32, 32), (16, 3, 64, 64), (128, 768, 16, 16)):
        spectrum = sagd.power_law(shape[-2:], -0.06)
        source = torch.Generator().manual_seed(0)
        white = torch.randn(shape, generator=source)
        weight = spectrum.weight.numpy()
        rng = np.random.default_rng(0)

        def ours(shape=shape, spectrum=spectrum, source=source):
            return spectrum.sample(shape, generator=source)

        def randn(shape=shape, source=source):
            return torch.randn(shape, generator=source)

        def pair(shape=shape, white=white):
            return torch.fft.irfft2(torch.fft.rfft2(white), s=shape[-2:])

        def listing(shape=shape, weight=weight, rng=rng):
            """The steps of the paper's App. E, in NumPy: draw, transform, weigh, transform back, normalise."""
            x = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * weight).real
            return x / x.std(axis=(-2, -1), keepdims=True)

        for name, peer in (("torch.randn", randn), ("a bare rfft2, irfft2 pair", pair), ("the paper's NumPy", listing)):
            tell(f"  {shape}: {name}", ratio(ours, peer, 5 if white.numel() > 1e7 else 31))

    shape, spectrum, source = (16, 3, 32, 32), sagd.power_law((32, 32), -0.06), torch.Generator().manual_seed(0)
    network, x = unet((32, 32), 3, **PAPER_UNET), torch.randn(shape)

    def step():
        network(x, torch.zeros(len(x))).square().mean().backward()

    def hundred():
        for _ in range(100):
            spectrum.sample(shape, generator=source)

    tell(f"  {shape}: a forward and backward pass of the paper's U-Net, in %", ratio(hundred, step, 5))


def theirs_of(network: torch.nn.Module) -> torch.nn.Module:
    """diffusers' network of the same settings and weights."""
    from diffusers import UNet2DModel

    found = UNet2DModel.from_config(network.config)
    found.load_state_dict(network.state_dict())
    return found


def plain_diffusers_training(network: torch.nn.Module, images: torch.Tensor, steps: int, batch_size: int) -> None:
    """What diffusers' unconditional training script does for a step, with EMA, without its logging."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel
    from torch.utils.data import DataLoader
    from torchvision import transforms

    size, gpu = images.shape[-1], torch.cuda.is_available()
    augment = transforms.Compose(
        [transforms.ToPILImage(), transforms.Resize(size), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    )
    loader = DataLoader(_Pictures(images, augment), batch_size, shuffle=True, num_workers=8 if gpu else 0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    schedule = get_cosine_schedule_with_warmup(optimizer, 50, steps)
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
    network, optimizer, loader, schedule = accelerator.prepare(network, optimizer, loader, schedule)
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    forward = DDPMScheduler()
    done = 0
    while done < steps:
        for clean in loader:
            eps = torch.randn(clean.shape, device=clean.device)
            t = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
            predicted = network(forward.add_noise(clean, eps, t), t).sample
            loss = torch.nn.functional.mse_loss(predicted, eps)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            average.step(network.parameters())
            done += 1
            if done == steps:
                break


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor, augment: Callable):
        self.images, self.augment = images, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, k: int) -> torch.Tensor:
        return self.augment(self.images[k])


def training(steps: int = 30) -> None:
    images = torch.randint(0, 256, (4000, 1, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source, spectrum, formulation = Pixels(images), sagd.power_law(SIZE, -0.06), sagd.Diffusion(sagd.Schedule.linear())

    def run(seed: int, batch_size: int):
        recipe = Recipe(steps, batch_size, warmup=5, precision="fp32")
        return train(unet(SIZE, 1, **UNET), source, spectrum, formulation, recipe, seed=seed)

    def theirs(batch_size: int):
        plain_diffusers_training(theirs_of(unet(SIZE, 1, **UNET)), images, steps, batch_size)

    print("\nTraining images/s, the small U-Net, float32: ours (with shaped noise) over a plain diffusers loop")
    for batch in (16, 64):
        tell(
            f"  one run, batch {batch}",
            ratio(lambda b=batch: run(0, b), lambda b=batch: theirs(b), 5),
            invert=True,
            aim="1.5",
        )
        tell(
            f"  two seeds, batch {batch}: side by side, as the stage does; theirs in turn",
            ratio(
                lambda b=batch: list(concurrently(lambda seed: run(seed, b), [0, 1], torch.device("cpu"))),
                lambda b=batch: [theirs(b) for _ in range(2)],
                5,
            ),
            invert=True,
            aim="1.5",
        )


def arithmetic() -> None:
    """What a step of training (forward, backward) reaches of what the machine can, and what might bring it closer."""
    print("\nA step's arithmetic, float32: GFLOP/s reached, of those of a product of matrices of 1024x1024")
    cores = torch.get_num_threads()
    square = torch.randn(1024, 1024)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and "bf16" in Path("/proc/cpuinfo").read_text()
    for name, how, size, batch in (("the small U-Net", UNET, 16, 16), ("the paper's U-Net", PAPER_UNET, 32, 8)):
        network, x, t = unet((size, size), 1, **how), torch.randn(batch, 1, size, size), torch.rand(batch)

        def step(network=network, x=x, t=t) -> None:
            network(x, t).square().mean().backward()

        with FlopCounterMode(display=False) as counted:
            step()
        work = counted.get_total_flops() / 1e9
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads)
            times = sorted(seconds(step) for _ in range(9))
            peak = 2 * 1024**3 / 1e9 / sorted(seconds(lambda: square @ square) for _ in range(31))[15]
            reached = work / times[4]
            print(f"  {name}, batch {batch}, {threads} threads: {reached:.0f} of {peak:.0f}, {reached / peak:.0%}")

        def other(setting: Callable, network=network, step=step, x=x, t=t) -> Callable:
            def stepped() -> None:
                setting(network)(x, t).square().mean().backward()

            return stepped

        last, compiled = copy.deepcopy(network).to(memory_format=torch.channels_last), torch.compile(network)
        tell("    in channels_last, times as fast", ratio(other(lambda _, last=last: last), step, 9), invert=True)
        tell("    compiled, times as fast", ratio(other(lambda _, c=compiled: c), step, 9), invert=True)
        if bf16:

            def in_bf16(step=step) -> None:
                with torch.autocast("cpu", torch.bfloat16):
                    step()

            tell("    in bfloat16, times as fast", ratio(in_bf16, step, 9), invert=True)
        else:
            print("    bfloat16: not run, this CPU has no instructions for it")


def many(batch: int = 16, steps: int = 5) -> None:
    """Networks of one shape: in turn, side by side in threads (as the stage does), or as one (torch.func)."""
    print(f"\nTraining steps of several networks, the small U-Net, batch {batch}: times as fast as in turn")
    cpu = torch.device("cpu")
    for count in (2, 4, 8):
        networks = [unet(SIZE, 1, **UNET) for _ in range(count)]
        stacked = {k: v.detach().requires_grad_() for k, v in torch.func.stack_module_state(networks)[0].items()}
        shape = copy.deepcopy(networks[0]).to("meta")
        x, t = torch.randn(count, batch, 1, *SIZE), torch.rand(count, batch)
        at_once = torch.func.vmap(lambda p, x, t, shape=shape: torch.func.functional_call(shape, p, (x, t)))

        def alone(k: int, networks=networks, x=x, t=t) -> None:
            for _ in range(steps):
                networks[k](x[k], t[k]).square().mean().backward()

        def in_turn(alone=alone, count=count) -> None:
            for k in range(count):
                alone(k)

        def side_by_side(alone=alone, count=count) -> None:
            list(concurrently(alone, range(count), cpu))

        def as_one(at_once=at_once, stacked=stacked, x=x, t=t) -> None:
            for _ in range(steps):
                at_once(stacked, x, t).square().mean().backward()

        aim = "2.67" if count == 8 else ""
        tell(f"  {count} networks, side by side", ratio(side_by_side, in_turn, 5), invert=True, aim=aim)
        tell(f"  {count} networks, as one", ratio(as_one, in_turn, 5), invert=True, aim=aim)


def plain_loop(network: torch.nn.Module, formulation: object, shape: tuple, steps: int, batch_size: int) -> None:
    """A loop without this project: white noise, AdamW, EMA, bfloat16 on a GPU."""
    device = next(network.parameters()).device
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    network.to(memory_format=layout).train()
    x0 = torch.rand((batch_size, *shape), device=device) * 2 - 1
    parameters = list(network.parameters())
    averaged = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device) if classes_of(network) else None
    source, white = torch.Generator(device).manual_seed(0), sagd.isotropic(shape[-2:])
    for _ in range(steps):
        t = formulation.draw_times(batch_size, generator=source, device=device)
        eps = torch.randn(x0.shape, generator=source, device=device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = formulation.loss(predictor(network, labels), white, x0.to(memory_format=layout), t, eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1e-4)
    loss.item()


@contextlib.contextmanager
def utilisation() -> Iterator[list[int]]:
    """What nvidia-smi says of the GPU's use, in percent, twice a second; nothing without one."""
    found, over = [], threading.Event()
    ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def poll() -> None:
        while torch.cuda.is_available() and not over.wait(0.5):
            found.append(int(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(poll)
        try:
            yield found
        finally:
            over.set()


def throughput() -> None:
    """The paper's networks as they are trained: on a GPU, if there is one, in bfloat16."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    steps, pairs = (50, 5) if gpu else (3, 3)
    latents = (768, 16, 16)
    cases = {
        "the paper's U-Net, 3x32x32": (
            unet((32, 32), 3, **PAPER_UNET), (3, 32, 32), sagd.Diffusion(sagd.Schedule.linear()), 256 if gpu else 8,
        ),
        "DiT^DH-S, 768x16x16": (
            dit((16, 16), 768, 1000, 1, [384, 2048], [12, 2], [6, 16]), latents,
            sagd.Flow(shift=dimension_shift(latents)), 64 if gpu else 2,
        ),
    }  # fmt: skip
    print(
        f"\nTraining on {torch.cuda.get_device_name() if gpu else 'the CPU'}: images/s, and over that of a plain loop"
    )
    for name, (network, shape, formulation, batch) in cases.items():
        network.to(device)
        spectrum, recipe = sagd.power_law(shape[1:], -0.04), Recipe(steps, batch, warmup=1)
        drawn = torch.randint(256, (2 * batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        labels = np.arange(2 * batch) % 1000 if classes_of(network) else None
        pixels, white = Pixels(drawn.to(device), labels), torch.Generator(device).manual_seed(0)

        def ours(network=network, pixels=pixels, spectrum=spectrum, formulation=formulation, recipe=recipe, **how):
            train(network, pixels, spectrum, formulation, replace(recipe, **how), seed=0)

        def compiled(ours=ours):
            ours(compile=True)

        def noise(pixels=pixels, spectrum=spectrum, shape=shape, batch=batch, white=white):
            for _ in range(steps):
                spectrum.sample((batch, *shape), generator=white)
            if gpu:
                torch.cuda.synchronize()

        def plain(network=network, formulation=formulation, shape=shape, batch=batch):
            plain_loop(network, formulation, shape, steps, batch)

        def script(network=network, drawn=drawn, batch=batch):
            plain_diffusers_training(theirs_of(network), drawn.repeat(steps, 1, 1, 1)[: steps * batch], steps, batch)

        with utilisation() as used:
            speed = steps * batch / seconds(ours)
        print(f"  {name}, batch {batch}: {speed:.4g} images/s", end="")
        print(
            f", {np.mean(used):.0f} % of the GPU used, {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if gpu else ""
        )
        tell("    over a plain loop", ratio(ours, plain, pairs), invert=True)
        if shape[0] == 3:
            tell("    over a loop as diffusers' script has it", ratio(ours, script, pairs), invert=True)
        tell("    with torch.compile, over without", ratio(compiled, ours, pairs), invert=True)
        tell("    time of shaped noise over that of a step, percent", tuple(100 * r for r in ratio(noise, ours, pairs)))


def sampling(n: int = 256, steps: int = 10) -> None:
    from diffusers import DDIMPipeline, DDIMScheduler

    network = unet(SIZE, 1, **UNET).eval().requires_grad_(False)
    pipeline = DDIMPipeline(theirs_of(network), DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    spectrum, formulation = sagd.power_law(SIZE, -0.06), sagd.Diffusion(sagd.Schedule.linear())
    data = {"mean": torch.zeros(1, *SIZE, dtype=torch.float64), "power": torch.ones(1, *SIZE, dtype=torch.float64)}

    how = sagd.Sampler(steps=steps, clip=True)
    print("\nSampling images/s, the small U-Net, float32: ours (from shaped noise) over DDIMPipeline")
    for batch in (32, 128):
        tell(
            f"  {n} images in batches of {batch}",
            ratio(
                lambda b=batch: sagd.draw(network, formulation, spectrum, how, data, n=n, seed=0, batch_size=b),
                lambda b=batch: [
                    pipeline(batch_size=b, num_inference_steps=steps, output_type="np") for _ in range(n // b)
                ],
                5,
            ),
            invert=True,
            aim="2",
        )


def distances(n: int = 5000, dimensions: int = 2048) -> None:
    """On features like a network's: not negative, of a falling spectrum."""
    from cleanfid import fid as clean_fid
    from scipy.linalg import sqrtm
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    from sagd.metrics.frechet import Moments, frechet_distance
    from sagd.metrics.kernel import kernel_distance, kernel_distance_of_subsets

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((dimensions, dimensions)) * np.exp(-3 * np.arange(dimensions) / dimensions)
    mixing /= np.sqrt(dimensions)
    a, b = (np.maximum(rng.standard_normal((n, dimensions)) @ mixing + m, 0).astype(np.float32) for m in (0.3, 0.32))
    moments = [(x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)) for x in (a, b)]

    def ours():
        return frechet_distance(*(Moments.given(*m) for m in moments))

    def fidelity():
        return fid_statistics_to_metric(*({"mu": mu, "sigma": sigma} for mu, sigma in moments), False)

    print(f"\nFréchet distance, two means and covariances of {dimensions} features: time of ... over ours")
    for name, peer in {
        "scipy's sqrtm alone": lambda: sqrtm(moments[0][1] @ moments[1][1]),
        "clean-fid's frechet_distance": lambda: clean_fid.frechet_distance(*moments[0], *moments[1]),
        "torch-fidelity's (eigenvalues)": fidelity,
    }.items():
        tell(f"  {name}", ratio(ours, peer, 3), invert=True)

    print(f"\nKID, two sets of {n} x {dimensions} features: time of clean-fid's (100 subsets of 1,000) over ours")
    kid = {"num_subsets": 100, "max_subset_size": 1000}
    for name, of in {
        "all pairs": lambda: kernel_distance(a, b),
        "100 subsets of 1,000": lambda: kernel_distance_of_subsets(
            a, b, subsets=100, size=1000, rng=np.random.default_rng(0)
        ),
    }.items():
        tell(f"  {name}", ratio(of, lambda: clean_fid.kernel_distance(a, b, **kid), 3), invert=True, aim="10")
    single = np.random.default_rng(0).standard_normal((1024, dimensions), dtype=np.float32)
    double, work = single.astype(np.float64), (n * n + n * n) * 2 * dimensions / 1e9  # two halves and a whole
    for name, x in (("float64, as it is", double), ("float32", single)):
        rate = 2 * 1024**2 * dimensions / 1e9 / sorted(seconds(lambda x=x: x @ x.T) for _ in range(9))[4]
        print(f"  all pairs are {work:.0f} GFLOP; {name}: {rate:.0f} GFLOP/s, so {work / rate:.1f} s at least")


def measuring(n: int = 2000) -> None:
    """From PNG files to FID, on Inception networks of random weights: speed does not depend on them."""
    from cleanfid.fid import compute_fid
    from cleanfid.inception_torchscript import InceptionV3W
    from PIL import Image
    from torch_fidelity import calculate_metrics

    from sagd.cli import main
    from sagd.metrics.extractors import EXTRACTORS
    from tests.networks import on_these_weights, save_inception

    rng = np.random.default_rng(0)
    print(f"\nFID of {n} PNG files of 32x32, from the files to the number: time of ... over ours, one run each")
    with tempfile.TemporaryDirectory() as root:
        for name in "ab":
            (Path(root) / name).mkdir()
            for k in range(n // 2):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(f"{root}/{name}/{k}.png")
        save_inception(Path(root))
        names = ("inception_2048", "inception_768")
        files = {name: Path(root) / EXTRACTORS[name].weights.file for name in names}
        EXTRACTORS._entries().update({name: on_these_weights(name, file) for name, file in files.items()})
        folders = (f"{root}/a", f"{root}/b")

        def ours(name):
            cache = tempfile.mkdtemp(dir=root)
            with contextlib.redirect_stdout(io.StringIO()):
                main(
                    ["evaluate", *folders, "--features", name, "--metrics", "fid", "--bootstrap", "0", "--cache", cache]
                )

        def clean():
            network = InceptionV3W(root, download=False)
            compute_fid(*folders, custom_feat_extractor=network, device="cpu", num_workers=2, verbose=False)

        def fidelity(layer):
            weights = {"feature_extractor_weights_path": files["inception_768"], "feature_layer_fid": layer}
            choice = {"fid": True, "cuda": False, "cache": False, "verbose": False}
            calculate_metrics(input1=folders[0], input2=folders[1], **weights, **choice)

        for name, mine, peer in (
            ("clean-fid's compute_fid; inception_2048", names[0], clean),
            ("torch-fidelity's; inception_2048 against its layer 2048", names[0], lambda: fidelity("2048")),
            ("torch-fidelity's; inception_768 against its layer 768", names[1], lambda: fidelity("768")),
        ):
            own, other = seconds(lambda m=mine: ours(m)), seconds(peer)
            print(f"  {name:<64} {other / own:6.2f}  ({own:.0f} s, {n / own:.1f} images/s ours)", flush=True)


def start_up() -> None:
    needs = {
        "prepare": "PIL.Image",
        "corrupt": "PIL.Image",
        "encode": "",
        "train": "",
        "sample": "",
        "evaluate": "cleanfid.resize, efficientnet_lite_pytorch, scipy.linalg",
        "report": "papermill, nbconvert",
    }
    print("\nStart-up of each stage: seconds until everything that it uses is loaded, and over `import torch` alone")
    for stage, modules in needs.items():
        own = f"import pipeline.{stage}" + (f"; import {modules}" if modules else "")
        times = {"own": [], "torch": []}
        for _ in range(4):
            for key, code in (("own", own), ("torch", "import torch")):
                command = [sys.executable, "-c", code]
                times[key].append(seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
        own_time, torch_time = (sorted(v[1:])[1] for v in times.values())
        print(f"  {stage:<64} {own_time:6.1f} s  {own_time / torch_time:.2f}", flush=True)


def commands(runs: int = 5) -> None:
    """What a user waits for at the prompt, in a clone of the last commit whose study is in the cache."""
    root = Path(__file__).parents[1]

    def dvc(*arguments: str, folder: str = "", fails: bool = False) -> float:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=clone / folder, capture_output=True)
        if (done.returncode != 0) != fails:
            sys.exit(f"dvc {' '.join(arguments)}: {done.stderr.decode()[-500:]}")
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        for key, value in (("user.name", "bench"), ("user.email", "bench@localhost")):
            subprocess.run(["git", "config", key, value], cwd=clone, check=True)
        page = Path(".dvc", "plots", "page.html")
        (clone / page).write_bytes((root / page).read_bytes())
        for folder in ("", "studies/paper", "studies/theory"):
            dvc("cache", "dir", "--local", str(root / ".dvc" / "cache"), folder=folder)
        dvc("checkout")
        print(f"\nCommands, seconds: median of {runs} (smallest to largest)")
        for name, arguments, folder, fails in (
            ("dvc repro, nothing to do", ("repro",), "", False),
            ("dvc status", ("status",), "", False),
            ("dvc status, in studies/paper", ("status",), "studies/paper", False),
            ("dvc exp show", ("exp", "show"), "", False),
            ("dvc metrics diff", ("metrics", "diff"), "", False),
            ("dvc params diff", ("params", "diff"), "", False),
            ("dvc exp run -S noise.alpha=inf, until refused", ("exp", "run", "-S", "noise.alpha=inf"), "", True),
        ):
            times = []
            for _ in range(runs + 1):
                times.append(dvc(*arguments, folder=folder, fails=fails))
                subprocess.run(["git", "checkout", "--quiet", "."], cwd=clone, check=True)
            times = sorted(times[1:])
            print(f"  {name:<64} {times[len(times) // 2]:6.1f}  ({times[0]:.1f} to {times[-1]:.1f})", flush=True)
        # An experiment whose training, sampling and measuring take next to nothing: what is left is DVC and start-up.
        tiny = ("train.steps=1", "train.warmup=0", "sample.n=6", "sample.steps=1", "++evaluate.bootstrap=2")
        dvc("exp", "run", *(f"-S{k}" for k in tiny))  # the grid, too
        whole = dvc("exp", "run", "-Snoise.alpha=-0.5")
        print(f"  {'dvc exp run of one step and six samples, one run':<64} {whole:6.1f}", flush=True)
        settings = json.loads((clone / "studies" / "paper" / "params.json").read_text())["stages"]
        names = list(settings)[:runs]
        idle = sorted(dvc("status", f"train@{name}", f"measure@{name}", folder="studies/paper") for name in names)
        what = "DVC for one setting of the paper (dvc status train@X measure@X)"
        print(f"  {what:<64} {idle[len(idle) // 2]:6.1f}  ({idle[0]:.1f} to {idle[-1]:.1f})", flush=True)


PARTS = {
    f.__name__: f
    for f in (noise, arithmetic, many, training, throughput, sampling, distances, measuring, start_up, commands)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all if none is given")
    chosen = parser.parse_args().part or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median (smallest to largest) of paired runs")
    warnings.simplefilter("ignore")
    for part in chosen:
        with contextlib.redirect_stderr(io.StringIO()):
            PARTS[part]()

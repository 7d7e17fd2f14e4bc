"""docs/trainers.md: each option of a trainer is the operator that the page names; the change of a script works.

The trainers' formulas are written anew. ``draw`` gives normal numbers (B, 1, ...), so that the same formula draws noise
and, fed with unit vectors, tells its covariance exactly.
"""

import contextlib
import itertools
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sagd
from sagd.noise import stored
from sagd.noise.grid import radius
from tests.sagd.test_pyramid import linear_map, power, pyramid_noise

SIZES = [(8, 6), (7, 9)]
PAGE = Path(__file__).parents[2] / "docs" / "trainers.md"
sized = pytest.mark.parametrize("size", SIZES, ids=str)


def covariance(noise, size):
    rows = linear_map(noise, size).reshape(-1, math.prod(size))
    return rows.T @ rows


def dense(spectrum):
    n = math.prod(spectrum.size)
    return spectrum.covariance(torch.eye(n, dtype=torch.float64).reshape(n, *spectrum.size)).reshape(n, n)


def offset_noise(draw, size, strength):
    """noise + strength * randn(B, C, 1, 1): kohya, diffusers, OneTrainer, SimpleTuner, EveryDream2."""
    return draw(size) + strength * draw((1, 1))


def with_offset(noise, strength):
    """As the page has it: one more normal number for each image and channel, on top of a noise."""
    weight = noise.weight.clone()
    weight[0, 0] = (weight[0, 0] ** 2 + strength**2 * weight.numel()) ** 0.5
    return sagd.Spectrum(weight)


@sized
def test_offset_noise(size):
    wanted = covariance(lambda draw: offset_noise(draw, size, 0.3), size)
    torch.testing.assert_close(dense(sagd.offset(size, 0.3, normalize="none")), wanted, atol=1e-12, rtol=1e-12)


@sized
def test_a_random_strength_has_the_covariance_of_its_root_mean_square(size):
    """kohya's noise_offset_random_strength: the strength of a batch is uniform in [0, noise_offset]."""
    strengths = (torch.arange(100, dtype=torch.float64) + 0.5) / 100 * 0.3
    wanted = sum(covariance(lambda draw, s=s: offset_noise(draw, size, s), size) for s in strengths) / 100
    found = dense(sagd.offset(size, 0.3 / 3**0.5, normalize="none"))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # the sum over 100 strengths is a little off


@sized
def test_an_offset_of_some_batches_has_the_covariance_of_a_weaker_one(size):
    """SimpleTuner's noise_offset_probability."""
    with_it, without = (covariance(lambda draw, s=s: offset_noise(draw, size, s), size) for s in (0.3, 0.0))
    found = dense(sagd.offset(size, 0.3 * 0.25**0.5, normalize="none"))
    torch.testing.assert_close(found, 0.25 * with_it + 0.75 * without, atol=1e-12, rtol=1e-12)


@sized
def test_onetrainers_perturbation_is_stronger_white_noise(size):
    """It perturbs the noise that is also the target; kohya's and diffusers' perturbs the input alone."""
    wanted = covariance(lambda draw: draw(size) + 0.4 * draw(size), size)
    found = dense(sagd.isotropic(size, gain=(1 + 0.4**2) ** 0.5, normalize="none"))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_onetrainers_generalized_offset_is_another_offset_at_each_step():
    """Algorithm 1 and eq. 22 of arXiv 2412.03134, balanced; docs/trainers.md has psi in closed form."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()  # Stable Diffusion's
    alpha_bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    alpha = alpha_bar / before
    gathered = gamma = torch.ones((), dtype=torch.float64)
    psi = [gathered / (1 - alpha_bar[0]).sqrt()]
    for t in range(1, len(alpha_bar)):
        gamma = (1 - alpha[t]) * before[t].sqrt() / (alpha[t] * (1 - before[t])) * gathered
        gathered = gathered + gamma / before[t].sqrt()
        psi.append(gathered / (1 - alpha_bar[t]).sqrt())
    psi = torch.stack(psi) / psi[-1]
    closed = alpha_bar[-1] / alpha_bar * ((1 - alpha_bar) / (1 - alpha_bar[-1])).sqrt()
    torch.testing.assert_close(closed, psi, rtol=1e-9, atol=0)
    assert closed[-1] == 1 and closed[500] == pytest.approx(0.014, abs=5e-4)  # an offset of the last steps


@sized
@pytest.mark.parametrize("ratio", [2.0, 2.9])
def test_offset_and_pyramid_together(size, ratio):
    """kohya adds both and divides the sum; EveryDream2 divides the pyramid and adds its offset to that."""

    def kohya(draw):
        return pyramid_noise(offset_noise(draw, size, 0.3), draw, 6, 0.5, "kohya", lambda: ratio)

    found = with_offset(sagd.pyramid(size, 6, 0.5, shrink=ratio, normalize="none"), 0.3).weight.square()
    torch.testing.assert_close(found, power(linear_map(kohya, size)), atol=1e-12, rtol=1e-12)

    def divided(draw):
        return pyramid_noise(draw(size), draw, 10, 0.8, "original", lambda: ratio)

    deviation = power(linear_map(divided, size)).mean().sqrt()  # of a large batch

    def everydream(draw):
        return divided(draw) / deviation + 0.02 * draw((1, 1))

    found = with_offset(sagd.pyramid(size, 10, 0.8, shrink=ratio, sizes="original"), 0.02).weight.square()
    torch.testing.assert_close(found, power(linear_map(everydream, size)), atol=1e-12, rtol=1e-12)


# What stands for sagd's alpha where another has `a`, and the amplitude that its code gives to a frequency.
ALPHAS = {
    "sonar, its code": (lambda a: -a, lambda r, a: r**-a),
    "sonar, its documentation": (lambda a: -a / 2, lambda r, a: (1 / r**a) ** 0.5),
    "res4lyf": (lambda a: -0.1 * a, lambda r, a: 1 / (r * 8) ** (a * 0.1)),  # its frequencies are the image's, 0 to 4
}


@pytest.mark.parametrize("a", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("who", ALPHAS)
def test_everybodys_alpha(who, a):
    """Up to the zero frequency, which has no noise there, and a factor, as all divide by the deviation."""
    size, (ours, amplitude) = (8, 8), ALPHAS[who]
    r = radius(size)
    table = torch.where(r > 0, amplitude(r.clamp(min=1e-9), a), 0)

    def theirs(draw):
        return torch.fft.ifft2(torch.fft.fft2(draw(size)) * table).real

    ratio = (power(linear_map(theirs, size)) / sagd.power_law(size, ours(a)).weight.square())[r > 0]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "exponent"),
    [("white", 0), ("pink", -1), ("brown", -2), ("red", -2), ("blue", 1), ("violet", 2), ("purple", 2)],
)
def test_colours_are_powers_of_the_frequency(name, exponent):
    for size in ((9, 12), (16,)):
        r = radius(size)
        ratio = (sagd.colour(name, size).weight.square() / r**exponent)[r > 0]
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-6, atol=0)


def test_brown_is_the_pink_of_those_who_add_up_rings():
    """The same power in each octave."""
    cycles, power = radius((64, 64)) * 64, sagd.colour("brown", (64, 64)).weight.square()
    octaves = torch.stack([power[(cycles >= low) & (cycles < 2 * low)].sum() for low in (2, 4, 8, 16)])
    assert (octaves / octaves.mean() - 1).abs().max() < 0.1


def test_an_unknown_colour_is_told_in_one_line():
    with pytest.raises(sagd.InputError, match="colour is 'green'; allowed: white, pink, brown, red, blue, violet, pur"):
        sagd.colour("green", (8, 8))


# diffusers' train_unconditional.py is not in its package: a loop like its own, with the lines that the page changes.
TRAINING = """
for batch in train_dataloader:
            clean_images = batch["input"].to(weight_dtype)
            noise = torch.randn(clean_images.shape, dtype=weight_dtype, device=clean_images.device)
            bsz = clean_images.shape[0]
            timesteps = torch.randint(
                0, noise_scheduler.config.num_train_timesteps, (bsz,), device=clean_images.device
            ).long()
            noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
            model_output = model(noisy_images, timesteps).sample
            loss = F.mse_loss(model_output.float(), noise.float())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            noises.append(noise)
"""
SAMPLING = """
if accelerator.is_main_process:
                images = pipeline(
                    generator=generator,
                    batch_size=args.eval_batch_size,
                    num_inference_steps=args.ddpm_num_inference_steps,
                    output_type="np",
                ).images
"""


def changed(code):
    """The code with the page's change: a line with + takes the place of the line with - above it, or stands before."""
    lines = re.search(r"^```diff\n(.*?)^```$", PAGE.read_text(), re.M | re.S)[1].splitlines()
    assert sum(line.startswith("+") for line in lines) == 3
    before = [line[1:] for above, line in itertools.pairwise(["", *lines]) if line[:1] == "+" and above[:1] != "-"]
    for old, new in itertools.pairwise(lines):
        if old[:1] == "-":
            assert new[:1] == "+" and (TRAINING + SAMPLING).count(old[1:] + "\n") == 1
            code = code.replace(old[1:] + "\n", new[1:] + "\n")
    return "\n".join([*before, code])


def train(code, batches):
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    model = UNet2DModel(8, 1, 1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **kinds)
    names = {
        "args": SimpleNamespace(resolution=8),
        "train_dataloader": [{"input": torch.rand(64, 1, 8, 8) * 2 - 1}] * batches,
        "noise_scheduler": DDPMScheduler(),
        "optimizer": torch.optim.AdamW(model.parameters()),
        "weight_dtype": torch.float32,
    }
    names |= {"model": model, "losses": [], "noises": [], "sagd": sagd, "torch": torch, "F": torch.nn.functional}
    exec(code, names)
    return names["losses"], torch.cat(names["noises"])


@pytest.mark.slow
def test_diffusers_script_with_the_change_and_white_noise_is_the_same_to_the_bit():
    code = changed(TRAINING)
    white = code.replace("alpha=-0.06", "alpha=0.0")
    plain, same, other = (train(c, 5)[0] for c in (TRAINING, white, code))
    assert white != code and plain == same != other


@pytest.mark.slow
def test_diffusers_script_with_the_change_trains_on_shaped_noise():
    noise = train(changed(TRAINING).replace("alpha=-0.06", "alpha=-0.6"), 40)[1]
    found = torch.fft.fft2(noise[:, 0].double(), norm="ortho").abs().square()
    error = found.std(0) / len(found) ** 0.5
    wanted = sagd.power_law((8, 8), alpha=-0.6).weight.square()
    assert ((found.mean(0) - wanted).abs() <= 5 * error).all() and (error / wanted).max() < 0.05


def test_diffusers_script_with_the_change_samples_within_the_shape():
    entered = []

    @contextlib.contextmanager
    def shaped(pipeline, noise):
        entered.append(noise.size)
        yield
        entered.append("left")

    def pipeline(**settings):
        entered.append(settings["output_type"])
        return SimpleNamespace(images="images")

    names = {name: SimpleNamespace(is_main_process=True) for name in ("accelerator", "generator")}
    names["args"] = SimpleNamespace(resolution=8, eval_batch_size=2, ddpm_num_inference_steps=3)
    names["sagd"] = SimpleNamespace(power_law=sagd.power_law, diffusers=SimpleNamespace(shaped=shaped))
    names["pipeline"] = pipeline
    exec(changed(SAMPLING), names)
    assert entered == [(8, 8), "np", "left"] and names["images"] == "images"


EXAMPLE = PAGE.parents[1] / "examples" / "train_unconditional.py"


def run_example(folder, *options):
    """On tiny digits."""
    words = [sys.executable, EXAMPLE, *options, "--size", 8, "--widths", 8, "--batch-size", 4]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_example_resumes_to_the_bit_and_keeps_its_noise(tmp_path):
    text = "two_band:0.3,[0,0.4],[0.5,1]"
    for folder, steps in (("whole", 6), ("parts", 3), ("parts", 6)):
        done = run_example(tmp_path, "--noise", text, "--steps", steps, "--out", folder)
        assert done.returncode == 0, done.stderr
    files = ["network/diffusion_pytorch_model.safetensors", "options.json", "noise.safetensors", "samples.png"]
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes(), file
    noise = stored.load(tmp_path / "whole" / "noise.safetensors")
    assert torch.equal(noise.weight, sagd.two_band((8, 8), 0.3, (0, 0.4), (0.5, 1)).weight)
    (lines,) = (block for block in re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.S) if "pyramid/network" in block)
    found: dict = {}
    with contextlib.chdir(tmp_path):  # the page's lines, on what was trained
        exec(lines.replace("pyramid/", "whole/").replace("16, 16", "8, 8"), found)
    assert found["images"].shape == (4, 1, 8, 8) and found["images"].isfinite().all()
    for change, told in (
        (("--noise", "pink"), f"{{'noise': '{text}'}}"),
        (("--noise", text, "--lr", 1), "{'lr': '0.003'}"),
    ):
        refused = run_example(tmp_path, *change, "--out", "parts")
        wanted = f"train_unconditional: parts/options.json has {told}: resume with these, or choose another --out"
        assert refused.returncode == 1 and refused.stderr.strip().splitlines()[-1] == wanted
        assert "Traceback" not in refused.stderr


@pytest.mark.slow  # imports accelerate
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pnik", "allowed: white, pink, brown, red, blue, violet, purple; operators are band_pass, data_matched"),
        ("pink:1", "colour is 'pink:1'"),
        ("power_law", "missing a required argument: 'alpha'"),
        ("power_law:low", "alpha is 'low'"),
        ("offset:0.05,normalize=none", "offset takes strength, normalize"),
        ("two_band:2", "gamma_low is 2; it must lie in"),
        ("pyramid:2.5", "iterations is 2.5; it must be a whole number"),
        ("band_pass:0.4", "band_pass:0.4: "),
    ],
)
def test_the_example_refuses_a_bad_noise_in_one_line(text, says):
    noise_of = runpy.run_path(str(EXAMPLE))["noise_of"]
    power = torch.ones(8, 8)
    with pytest.raises(sagd.InputError, match=says) as failure:
        noise_of(text, (8, 8), power)
    assert str(failure.value).startswith(f"--noise {text}: ") and "\n" not in str(failure.value)
    listed = sagd.offset((8, 8), 0.05, normalize="none")
    for good, same in (
        ("pink", sagd.colour("pink", (8, 8))),
        ("pyramid", sagd.pyramid((8, 8))),
        ("offset:0.05,none", listed),
        ('offset:5e-2,"none"', listed),
    ):
        assert torch.equal(noise_of(good, (8, 8), power).weight, same.weight)

"""An exported folder: what its card says to do draws what the library draws."""

import json
import re

import diffusers
import numpy as np
import pytest
import torch

import sagd
import sagd.diffusers
from sagd import export
from sagd.colored import Colored, ColoredNoise
from sagd.networks import weights
from sagd.networks.dit import dit
from sagd.networks.unet import unet
from sagd.spaces.moments import statistics

pytestmark = pytest.mark.slow

SIZE = (16, 16)
TILTED = sagd.power_law(SIZE, -0.5)
GAP = sagd.two_band(SIZE, 0.5, low=(0, 0.4), high=(0.5, 1))
LINEAR, ENDS = sagd.Schedule.linear(), sagd.Schedule.zero_terminal_snr()
OWN = sagd.Schedule.linear(1000, 8.5e-4, 0.012)
DATA = statistics(
    torch.randint(0, 256, (50, 1, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
)
PIPELINES = {
    "ddim": (sagd.Diffusion(LINEAR, "v"), TILTED, sagd.Sampler(steps=5)),
    "clipped": (sagd.Diffusion(LINEAR), TILTED, sagd.Sampler(steps=5, clip=True)),
    "a band left out": (sagd.Diffusion(LINEAR, "v"), GAP, sagd.Sampler(steps=5)),
    "trailing, zero terminal SNR": (sagd.Diffusion(ENDS, "v"), TILTED, sagd.Sampler(steps=5, spacing="trailing")),
    "flow matching": (sagd.Flow(shift=2.0), TILTED, sagd.Sampler("euler", 5)),
    "another length": (sagd.Diffusion(sagd.Schedule.linear(500), "v"), TILTED, sagd.Sampler(steps=5)),
    "betas of one's own": (sagd.Diffusion(OWN, "v"), TILTED, sagd.Sampler(steps=5)),
}
ELSEWHERE = {
    "heun": (sagd.Diffusion(LINEAR, "v"), TILTED, sagd.Sampler("heun", 5)),
    "marginal": (sagd.Diffusion(LINEAR), TILTED, sagd.Sampler(steps=5, start="marginal")),
    "a band left out, clipped": (sagd.Diffusion(LINEAR, "v"), GAP, sagd.Sampler(steps=5, clip=True)),
    "betas of one's own, by Heun": (sagd.Diffusion(OWN, "v"), TILTED, sagd.Sampler("heun", 5)),
    "another length, from the marginal": (
        sagd.Diffusion(sagd.Schedule.linear(500)),
        TILTED,
        sagd.Sampler(steps=5, start="marginal"),
    ),
    "EDM": (sagd.EDM(), TILTED, sagd.Sampler("heun", 4)),
    "flow matching by Heun": (sagd.Flow("logit_normal", 2.0), TILTED, sagd.Sampler("heun", 4)),
    "varying": (
        sagd.Diffusion(LINEAR),
        sagd.Varying(TILTED, sagd.isotropic(SIZE), LINEAR.alpha_bar),
        sagd.Sampler(steps=5),
    ),
    "steps that do not divide T": (sagd.Diffusion(ENDS, "v"), TILTED, sagd.Sampler(steps=6, spacing="trailing")),
}


def network(classes=0):
    torch.manual_seed(0)
    return unet(SIZE, 1, widths=[8, 16], layers=1, attention=[False, False], groups=4, classes=classes).eval()


def followed(folder):
    """What the code in a card draws."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    names = {"FOLDER": str(folder)}
    exec(code.replace("num_inference_steps", "output_type='pt', num_inference_steps"), names)
    return names["images"]


def drawn(model, formulation, noise, sampler, labels=None):
    """Four images of the library, from the card's seed."""
    predict = weights.predictor(model, labels)
    source = torch.Generator().manual_seed(0)
    return sagd.sample(predict, formulation, noise, sampler, shape=(4, 1, *SIZE), generator=source, data=DATA).detach()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_draws_what_the_library_draws(name, tmp_path):
    formulation, noise, sampler = PIPELINES[name]
    export.save(tmp_path, network(), formulation, noise, sampler, DATA, description="# What it is")
    assert "# What it is" in (tmp_path / "README.md").read_text()
    expected = (drawn(network(), formulation, noise, sampler) / 2 + 0.5).clamp(0, 1)
    # diffusers rounds alpha_bar to float32, of which predictions of eps see a hundredfold
    torch.testing.assert_close(followed(tmp_path), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_no_scheduler_equals_is_sampled_by_the_library(name, tmp_path):
    formulation, noise, sampler = ELSEWHERE[name]
    export.save(tmp_path, network(), formulation, noise, sampler, DATA)
    assert not (tmp_path / "model_index.json").exists()
    torch.testing.assert_close(followed(tmp_path), drawn(network(), formulation, noise, sampler))


def test_a_users_text_is_no_markup():
    assert export.text("a_b <b>`x`</b> & *c*\u202e\n") == r"a_b &lt;b&gt;\`x\`&lt;/b&gt; &amp; \*c\*\\u202e\\n"
    assert export.code('{"a": 1}') == '`{"a": 1}`'
    assert export.code("a``b") == "``` a``b ```"


def test_colored_steps_are_not_lost_in_silence(tmp_path):
    colored = ColoredNoise(SIZE, torch.zeros(1, dtype=torch.float64), torch.zeros(1, 12, dtype=torch.float64))
    diffusion = Colored.of(sagd.Diffusion(LINEAR), colored)
    with pytest.raises(sagd.InputError, match="Colored can't be exported"):
        export.save(tmp_path, network(), diffusion, sagd.isotropic(SIZE), sagd.Sampler("ddpm", 5), DATA)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"formulation": sagd.Flow()}, "sampler is 'ddim'; Flow is sampled by"),
        ({"formulation": sagd.Diffusion(ENDS), "sampler": sagd.Sampler(steps=5, spacing="trailing")}, "alpha_bar is 0"),
        ({"noise": sagd.power_law((8, 8), -0.5)}, r"they must be \(C, H, W\), with noise of \(8, 8\)"),
        ({"data": DATA | {"power": DATA["power"][:, :8]}}, r"data has mean \(1, 16, 16\), power \(1, 8, 16\)"),
        ({"data": {key: value.expand(3, *SIZE) for key, value in DATA.items()}}, "takes 1 channels; the data have 3"),
        ({"network": torch.nn.Identity()}, "the network is a Identity; it must be one of UNet2DModel, DiTDH"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changed, says, tmp_path):
    formulation, noise, sampler = PIPELINES["ddim"]
    good = {"network": network(), "formulation": formulation, "noise": noise, "sampler": sampler, "data": DATA}
    with pytest.raises(sagd.InputError, match=says):
        export.save(tmp_path / "new", **good | changed)
    assert not (tmp_path / "new").exists()


def test_numpys_numbers_are_written_as_pythons(tmp_path):
    sampler = sagd.Sampler("heun", np.int64(4))
    export.save(tmp_path, network(), sagd.EDM(np.float32(0.5)), TILTED, sampler, DATA)
    assert "sagd.EDM(sigma_data=0.5," in (tmp_path / "README.md").read_text()
    assert "np." not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_networks_with_labels_are_asked_for_them(kind, tmp_path):
    diffusion, sampler = sagd.Diffusion(LINEAR, "v"), sagd.Sampler(steps=5)
    if kind == "unet":
        model = network(classes=3)
    else:
        torch.manual_seed(0)
        model = dit(SIZE, 1, 3, patch=2, widths=[16, 32], depths=[1, 1], heads=[2, 2]).eval()
        torch.nn.init.normal_(model.out.weight, std=0.1)
    export.save(tmp_path / "a", model, diffusion, TILTED, sampler, DATA)
    labels = torch.zeros(4, dtype=torch.int64)
    expected = drawn(model, diffusion, TILTED, sampler, labels)
    torch.testing.assert_close(followed(tmp_path / "a"), (expected / 2 + 0.5).clamp(0, 1), atol=5e-3, rtol=0)
    export.save(tmp_path / "b", model, diffusion, TILTED, sampler, DATA, images=False)  # such as latents
    torch.testing.assert_close(followed(tmp_path / "b"), expected)


def test_the_folder_is_what_the_pipeline_itself_would_save(tmp_path):
    formulation, noise, sampler = PIPELINES["ddim"]
    export.save(tmp_path / "ours", network(), formulation, noise, sampler, DATA)
    diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / f / "model_index.json").read_text()) for f in ("ours", "theirs"))
    assert {k: v for k, v in theirs.items() if k in ours} == ours
    ours, theirs = (
        json.loads((tmp_path / f / "scheduler" / "scheduler_config.json").read_text()) for f in ("ours", "theirs")
    )
    assert {k: v for k, v in theirs.items() if k in ours} == ours
    files = [{p.relative_to(tmp_path / f) for p in (tmp_path / f).rglob("*.*")} for f in ("ours", "theirs")]
    assert {str(p) for p in files[0] - files[1]} == {"README.md", "noise.safetensors"}
    assert files[1] <= files[0]

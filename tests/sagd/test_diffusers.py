"""`sagd.diffusers` on diffusers' own schedulers and on real pipelines of tiny random networks."""

import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from diffusers.utils.torch_utils import randn_tensor

import sagd
import sagd.diffusers
from sagd.diffusers import SAGDPipeline, SAGDTransformer2DModel, Shaped, shaped
from sagd.diffusers.drawing import intercept
from sagd.networks import weights
from sagd.networks.unet import unet
from sagd.noise.grid import ring_means

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIZE = (16, 16)
TILTED = sagd.power_law(SIZE, -0.5)
GAP = sagd.two_band(SIZE, 0.5, low=(0, 0.4), high=(0.5, 1))
STEPS = {  # what makes a step draw noise: arguments of the constructor and of `step`
    "DDPM": ({}, {}),
    "DDIM": ({}, {"eta": 1.0}),
    "DPMSolverMultistep": ({"algorithm_type": "sde-dpmsolver++"}, {}),
    "EulerDiscrete": ({}, {"s_churn": 5.0}),
    "EulerAncestralDiscrete": ({}, {}),
    "EDMEuler": ({}, {"s_churn": 5.0}),
    "FlowMatchEulerDiscrete": ({"stochastic_sampling": True}, {}),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def step(scheduler, model_output, sample, **how):
    """The second of five steps, from a seed."""
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[1]
    scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
    return scheduler.step(model_output, t, sample, generator=generator(), **how).prev_sample


@pytest.mark.parametrize("name", STEPS)
def test_a_spectrum_is_saved_loaded_and_taken_over_with_the_configuration(name, tmp_path):
    kind = getattr(sagd.diffusers, f"Shaped{name}Scheduler")
    made = kind(num_train_timesteps=500, spectrum=TILTED)
    made.save_pretrained(tmp_path)
    for again in (kind.from_pretrained(tmp_path), kind.from_config(made.config)):
        assert torch.equal(again.noise.weight, TILTED.weight)
        assert again.config.num_train_timesteps == 500
        assert len(getattr(again, "betas", range(500))) == 500  # it is used, not only kept
    assert "spectrum" in (tmp_path / "scheduler_config.json").read_text()
    plain = getattr(diffusers, f"{name}Scheduler").from_pretrained(tmp_path)
    assert not hasattr(plain, "noise")  # and the spectrum is no obstacle to diffusers
    assert torch.equal(kind.from_config(plain.config, spectrum=TILTED).noise.weight, TILTED.weight)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_draws_the_same_white_noise_shaped(name):
    settings, how = STEPS[name]
    kind, zero = getattr(sagd.diffusers, f"Shaped{name}Scheduler"), torch.zeros(3, 2, *SIZE)
    white = step(getattr(diffusers, f"{name}Scheduler")(**settings), zero, zero, **how)  # all there is, is its noise
    assert white.std() > 0
    torch.testing.assert_close(
        step(kind(**settings, spectrum=TILTED), zero, zero, **how), TILTED.sqrt(white), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("spectrum", [None, sagd.isotropic(SIZE)], ids=["none", "isotropic"])
def test_white_noise_is_that_of_diffusers_to_the_bit(name, spectrum):
    settings, how = STEPS[name]
    found, x = torch.randn(2, 3, 1, *SIZE, generator=generator(1)).unbind()
    plain = step(getattr(diffusers, f"{name}Scheduler")(**settings), found, x, **how)
    kind = getattr(sagd.diffusers, f"Shaped{name}Scheduler")
    assert torch.equal(step(kind(**settings, spectrum=spectrum), found, x, **how), plain)


def test_a_scheduler_of_ones_own_is_shaped_in_one_line():
    class ShapedKDPM2(Shaped, diffusers.KDPM2AncestralDiscreteScheduler):
        pass

    zero = torch.zeros(1, 1, *SIZE)
    white = step(diffusers.KDPM2AncestralDiscreteScheduler(), zero, zero)
    torch.testing.assert_close(step(ShapedKDPM2(spectrum=TILTED), zero, zero), TILTED.sqrt(white), atol=1e-4, rtol=1e-4)


def test_a_learnt_variance_is_not_projected():
    scheduler = sagd.diffusers.ShapedDDPMScheduler(variance_type="learned_range", clip_sample=False, spectrum=GAP)
    found, x = torch.randn(2, 6, *SIZE, generator=generator(1)), GAP.sample((2, 3, *SIZE), generator=generator(2))
    plain = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    projected = torch.cat([GAP.project(found[:, :3]), found[:, 3:]], 1)
    for each in (scheduler, plain):
        each.set_timesteps(5)
    last = scheduler.timesteps[-1]  # t = 0 draws no noise
    torch.testing.assert_close(scheduler.step(found, last, x).prev_sample, plain.step(projected, last, x).prev_sample)


def tiny(channels=1, size=16, **more):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=4, **more,
    ).eval()  # fmt: skip


def stable_diffusion(kind=diffusers.StableDiffusionPipeline):
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2,
                                  up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=2)  # fmt: skip
    return kind(
        vae=vae, text_encoder=None, tokenizer=None, unet=network, safety_checker=None, feature_extractor=None,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1), requires_safety_checker=False,
    )  # fmt: skip


def upscaler():
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=7, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, num_class_embeds=100, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.StableDiffusionUpscalePipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, scaling_factor=0.08333),
        text_encoder=None, tokenizer=None, unet=network, low_res_scheduler=diffusers.DDPMScheduler(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1), max_noise_level=90,
    )  # fmt: skip


def video():
    torch.manual_seed(0)
    network = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=16, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=8, num_attention_heads=(2,),
        down_block_types=("CrossAttnDownBlockSpatioTemporal",), up_block_types=("CrossAttnUpBlockSpatioTemporal",),
        projection_class_embeddings_input_dim=96, addition_time_embed_dim=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2
    )
    seen = transformers.CLIPVisionConfig(
        hidden_size=8, projection_dim=8, num_hidden_layers=1, num_attention_heads=2, image_size=32, intermediate_size=8,
        patch_size=8,
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(
        unet=network, vae=vae, image_encoder=transformers.CLIPVisionModelWithProjection(seen),
        feature_extractor=transformers.CLIPImageProcessor(size=32, crop_size=32),
        scheduler=diffusers.EulerDiscreteScheduler(prediction_type="v_prediction"),
    )  # fmt: skip


def flux(**scheduler):
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler), transformer=network, vae=None,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip


def dit():
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(
        sample_size=16, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        patch_size=2, num_embeds_ada_norm=10, norm_num_groups=4,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2)
    return diffusers.DiTPipeline(transformer=network, vae=vae, scheduler=diffusers.DDPMScheduler(clip_sample=False))


def text(n):
    return {"prompt_embeds": torch.zeros(n, 4, 8), "guidance_scale": 1.0, "output_type": "latent"}


N = 40
CALLS = {  # the pipeline, how to call it for N images, how often it draws
    "DDPM": (
        lambda: diffusers.DDPMPipeline(tiny(), diffusers.DDPMScheduler()),
        {"batch_size": N, "num_inference_steps": 3, "output_type": "pt"}, 3,
    ),
    "DDIM": (
        lambda: diffusers.DDIMPipeline(tiny(), diffusers.DDIMScheduler()),
        {"batch_size": N, "num_inference_steps": 3, "eta": 1.0, "output_type": "pt"}, 4,
    ),
    "StableDiffusion": (
        stable_diffusion, {"num_inference_steps": 2, "eta": 1.0, "height": 32, "width": 32} | text(N), 3,
    ),
    "DiT": (dit, {"class_labels": [1] * N, "num_inference_steps": 3, "guidance_scale": 1.0, "output_type": "np"}, 3),
    "Flux": (
        flux,
        {"num_inference_steps": 2, "height": 128, "width": 128, "pooled_prompt_embeds": torch.zeros(N, 8)} | text(N), 1,
    ),
}  # fmt: skip


@pytest.fixture
def draws(monkeypatch):
    """A function that records what the modules of a pipeline draw from then on."""

    def record(pipeline):
        found = []
        for kind in (*type(pipeline).__mro__, *type(pipeline.scheduler).__mro__):
            module = sys.modules[kind.__module__]
            if hasattr(module, "randn_tensor") and not hasattr(module.randn_tensor, "recorded"):
                intercept(module)
                plain = module.randn_tensor

                def drawn(*args, plain=plain, **kwargs):
                    found.append(plain(*args, **kwargs))
                    return found[-1]

                drawn.recorded = drawn.intercepted = True
                monkeypatch.setattr(module, "randn_tensor", drawn)
        return found

    return record


@pytest.mark.parametrize("name", CALLS)
def test_all_that_a_pipeline_draws_has_the_covariance(name, draws):
    build, call, count = CALLS[name]
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    found = draws(pipeline)
    with shaped(pipeline, TILTED):
        pipeline(**call, generator=generator())
    assert len(found) == count
    expected = ring_means(TILTED.weight**2)
    for noise in found:
        each = ring_means(torch.fft.fft2(noise.double(), norm="ortho").abs().square()).flatten(0, 1)
        error = each.std(0) / len(each) ** 0.5
        assert ((each.mean(0) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("name", CALLS)
def test_outside_a_pipeline_is_diffusers_to_the_bit(name, monkeypatch):
    build, call, _ = CALLS[name]
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)

    def images():
        torch.manual_seed(0)  # DiT's steps draw from the global generator
        return torch.as_tensor(pipeline(**call, generator=generator()).images)

    with shaped(pipeline, sagd.isotropic(SIZE)):
        white = images()
    with pytest.raises(KeyError), shaped(pipeline, TILTED):
        raise KeyError
    after = images()
    for kind in (*type(pipeline).__mro__, *type(pipeline.scheduler).__mro__):
        monkeypatch.setattr(sys.modules[kind.__module__], "randn_tensor", randn_tensor, raising=False)
    plain = images()
    assert torch.equal(after, plain)
    assert torch.equal(white, plain)


def test_image_to_image_adds_shaped_noise(draws):
    pipeline = stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline)
    pipeline.set_progress_bar_config(disable=True)
    found = draws(pipeline)
    with shaped(pipeline, TILTED):
        pipeline(image=torch.zeros(1, 3, 32, 32), strength=0.5, num_inference_steps=4, **text(1), generator=generator())
    assert len(found) == 1  # what the encoder draws is none of the diffusion's
    source = generator()
    _, white = (torch.randn(1, 4, *SIZE, generator=source) for _ in range(2))
    torch.testing.assert_close(found[0], TILTED.sqrt(white))


CONDITIONED = {  # a pipeline, how to call it, and the shape of the noise on what it is conditioned on
    "upscaler": (
        upscaler,
        {"image": torch.zeros(1, 3, *SIZE), "eta": 1.0, "noise_level": 10} | text(1),
        (1, 3, 16, 16),
    ),
    "video": (
        video,
        {"image": torch.full((1, 3, 32, 32), 0.5), "num_frames": 2, "output_type": "latent", "height": 32, "width": 32},
        (1, 3, 32, 32),
    ),
}


@pytest.mark.parametrize("name", CONDITIONED)
def test_the_noise_on_what_a_pipeline_is_conditioned_on_stays_white(name, draws):
    build, call, given = CONDITIONED[name]
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    found, source = draws(pipeline), generator()
    with shaped(pipeline, TILTED):
        pipeline(**call, num_inference_steps=2, generator=generator())
    assert found[0].shape == given and len(found) > 1
    assert torch.equal(found[0], torch.randn(given, generator=source))
    for noise in found[1:]:  # the start, and the steps
        torch.testing.assert_close(noise, TILTED.sqrt(torch.randn(noise.shape, generator=source)))


def test_a_pipeline_without_prepare_latents_draws_its_start_where_it_is_called():
    class Whole(diffusers.DDPMPipeline):
        def __call__(self):
            return diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor((1, 1, *SIZE), generator=generator())

    class Parted(Whole):
        def prepare_latents(self):
            return Whole.__call__(self)

    white = torch.randn(1, 1, *SIZE, generator=generator())
    whole, parted = (kind(tiny(), diffusers.DDPMScheduler()) for kind in (Whole, Parted))
    with shaped(whole, TILTED):
        assert torch.equal(whole(), TILTED.sqrt(white))
    with shaped(parted, TILTED):
        assert torch.equal(parted.prepare_latents(), TILTED.sqrt(white))
        assert torch.equal(parted(), white)


def test_the_start_of_our_pipeline_is_shaped_once():
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED), tiny())
    plain = SAGDPipeline(diffusers.DDIMScheduler(), tiny())
    starts = []
    for each in (pipeline, plain):
        each.set_progress_bar_config(disable=True)
        each.unet.register_forward_pre_hook(lambda _, inputs: starts.append(inputs[0]))
    pipeline(2, num_inference_steps=1, generator=generator())
    with shaped(pipeline):
        pipeline(2, num_inference_steps=1, generator=generator())
    with shaped(plain, TILTED):
        plain(2, num_inference_steps=1, generator=generator())
    for start in starts:
        assert torch.equal(start, TILTED.sqrt(torch.randn(2, 1, *SIZE, generator=generator())))


def test_what_the_noise_leaves_out_stays_empty():
    pipeline = diffusers.DDIMPipeline(tiny(), diffusers.DDIMScheduler(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    found = []
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with shaped(pipeline, GAP):
        pipeline(batch_size=2, num_inference_steps=4, eta=0.5, generator=generator())
    for x in found:
        torch.testing.assert_close(GAP.project(x), x, atol=1e-4, rtol=1e-4)
    assert "step" not in vars(pipeline.scheduler)
    own = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(clip_sample=False, spectrum=GAP), tiny())
    own.set_progress_bar_config(disable=True)
    found.clear()
    own.unet.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    own(2, generator=generator(), num_inference_steps=4, eta=0.5)
    for x in found:
        torch.testing.assert_close(GAP.project(x), x, atol=1e-4, rtol=1e-4)


class OwnDraws(diffusers.DDIMScheduler):
    """A user's scheduler that draws in its own way."""

    def step(self, model_output, timestep, sample, *args, **kwargs):
        return super().step(torch.randn_like(model_output), timestep, sample, *args, **kwargs)


class OwnSteps(diffusers.DDIMScheduler):
    """A user's scheduler that does not, in a file that draws elsewhere."""

    def step(self, *args, **kwargs):
        return super().step(*args, **kwargs)


class Modular:
    """A pipeline that draws nothing in its own file, as modular ones of diffusers."""

    __module__ = "sagd"
    scheduler = diffusers.DDIMScheduler()


@pytest.mark.parametrize("name", [*STEPS, "own"])
def test_a_pipeline_whose_scheduler_has_a_spectrum_is_shaped_without_giving_the_noise(name):
    """Its start, which `DDPMPipeline` would leave white, and its steps as before."""
    settings, how = STEPS.get(name, ({}, {"eta": 1.0}))
    kind = getattr(sagd.diffusers, f"Shaped{name}Scheduler", None) or type("Own", (Shaped, OwnSteps), {})
    pipeline = diffusers.DDPMPipeline(tiny(), kind(**settings, spectrum=TILTED))
    with shaped(pipeline):
        drawn = diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor((2, 1, *SIZE), generator=generator(3))
        torch.testing.assert_close(drawn, TILTED.sqrt(torch.randn(2, 1, *SIZE, generator=generator(3))))
        zero = torch.zeros(3, 2, *SIZE)
        inside = step(pipeline.scheduler, zero, zero, **how)
    torch.testing.assert_close(inside, step(kind(**settings, spectrum=TILTED), zero, zero, **how))


@pytest.mark.parametrize("spectrum", [None, TILTED], ids=["white", "tilted"])
@pytest.mark.parametrize("name", ["DDIM", "DDPM"])
def test_a_network_of_eps_does_not_begin_without_signal(name, spectrum):
    """alpha_bar is 0 at T - 1, and x0 would be divided by it; `Diffusion.check` refuses the same."""
    kind, ends = getattr(sagd.diffusers, f"Shaped{name}Scheduler"), {"rescale_betas_zero_snr": True}
    for spacing in ("trailing", "linspace"):
        with pytest.raises(sagd.InputError, match=f"Shaped{name}Scheduler begins at t = 999, where alpha_bar is 0"):
            kind(timestep_spacing=spacing, spectrum=spectrum, **ends)
        for prediction in ("v_prediction", "sample"):
            kind(timestep_spacing=spacing, spectrum=spectrum, prediction_type=prediction, **ends).set_timesteps(5)
    leading = kind(timestep_spacing="leading", steps_offset=1, spectrum=spectrum, **ends)
    leading.set_timesteps(10)  # begins at t = 901
    x = torch.zeros(1, 1, *SIZE)
    assert leading.step(x, leading.timesteps[0], x).prev_sample.isfinite().all()
    with pytest.raises(sagd.InputError, match="begins at t = 999"):
        leading.set_timesteps(500)


def test_a_pipeline_of_others_does_not_begin_without_signal():
    ends, x = {"rescale_betas_zero_snr": True}, {"output_type": "pt", "batch_size": 1}
    pipeline = diffusers.DDPMPipeline(tiny(), diffusers.DDPMScheduler(timestep_spacing="trailing", **ends))
    with pytest.raises(sagd.InputError, match="DDPMScheduler begins at t = 999"), shaped(pipeline, TILTED):
        pass
    pipeline.scheduler = diffusers.DDPMScheduler(num_train_timesteps=10, **ends)
    pipeline.set_progress_bar_config(disable=True)
    with shaped(pipeline, TILTED):
        assert pipeline(**x, num_inference_steps=5).images.isfinite().all()
        with pytest.raises(sagd.InputError, match="DDPMScheduler begins at t = 9"):
            pipeline(**x, num_inference_steps=10)
    assert "set_timesteps" not in vars(pipeline.scheduler)


def test_an_infinite_sigma_is_refused_for_every_prediction():
    with pytest.raises(sagd.InputError, match="ShapedEulerDiscreteScheduler begins at t = 9"):
        sagd.diffusers.ShapedEulerDiscreteScheduler(
            num_train_timesteps=10, trained_betas=[*[0.1] * 9, 1.0], prediction_type="v_prediction", spectrum=TILTED
        )
    sagd.diffusers.ShapedEulerDiscreteScheduler(rescale_betas_zero_snr=True)  # diffusers leaves alpha_bar 2^-24 here


def test_a_scheduler_that_draws_in_its_own_way_is_refused_where_it_would_draw():
    """As the flow matching of diffusers 0.36 to 0.38, which must not take the other schedulers with it."""

    class Old(diffusers.FlowMatchEulerDiscreteScheduler):
        def step(self, model_output, timestep, sample, **kwargs):
            return super().step(torch.randn_like(model_output), timestep, sample, **kwargs)

    class ShapedOld(Shaped, Old):
        pass

    assert torch.equal(ShapedOld(spectrum=TILTED).noise.weight, TILTED.weight)
    with pytest.raises(sagd.InputError, match="Old draws noise by randn_like, which can't be shaped"):
        ShapedOld(spectrum=TILTED, stochastic_sampling=True)


def test_what_cannot_be_shaped_is_told_in_one_line():
    pipeline = diffusers.DDIMPipeline(tiny(), diffusers.DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)

    def refused(match, call, *args, **kwargs):
        with pytest.raises(sagd.InputError, match=match) as error:
            call(*args, **kwargs)
        assert "\n" not in str(error.value)

    def under(noise, pipeline=pipeline, **call):
        with shaped(pipeline, noise):
            pipeline(**call)

    refused("the spectrum is of 8x8, and noise of shape .1, 1, 16, 16. is drawn", under, sagd.power_law((8, 8), -0.5))
    refused("clip_sample is True; the noise leaves frequencies out", under, GAP)
    refused("clip_sample is True", sagd.diffusers.ShapedDDPMScheduler, spectrum=GAP)
    refused("has no spectrum: give the noise", under, None)
    schedule = sagd.Schedule.linear()
    varying = sagd.Varying(TILTED, sagd.isotropic(SIZE), schedule.alpha_bar)
    refused("a varying spectrum", under, varying)
    refused("a varying spectrum", sagd.diffusers.ShapedDDIMScheduler, spectrum=varying)
    refused("operator", sagd.diffusers.ShapedDDIMScheduler, spectrum={"operator": "grey", "size": [16, 16]})
    pipeline.scheduler = diffusers.ScoreSdeVeScheduler()
    refused("ScoreSdeVeScheduler draws noise by", under, TILTED)
    pipeline.scheduler = OwnDraws()
    refused("OwnDraws draws noise by randn_like", under, TILTED)
    pipeline.scheduler = diffusers.DDIMScheduler()
    refused("Modular does not draw by diffusers' randn_tensor", under, TILTED, Modular())
    refused("the noise is a str; it must be a Spectrum", under, "pink")
    own = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED), tiny())
    refused("another spectrum than the noise", under, sagd.isotropic(SIZE), own)
    packed = flux(stochastic_sampling=True)
    packed.set_progress_bar_config(disable=True)
    refused("packed latents", under, TILTED, packed, **CALLS["Flux"][1])


def ours(prediction="eps", classes=0):
    """A network of `sagd.networks`, and the same as a model of diffusers."""
    torch.manual_seed(0)
    network = unet(SIZE, 1, widths=[8, 16], layers=1, attention=[False, False], groups=4, classes=classes).eval()
    theirs = diffusers.UNet2DModel.from_config(network.config).eval()
    theirs.load_state_dict(network.state_dict())
    return network, theirs


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("noise", [TILTED, GAP], ids=["tilted", "gap"])
def test_the_pipeline_draws_what_the_library_draws(prediction, spacing, noise):
    network, theirs = ours()
    diffusion = sagd.Diffusion(sagd.Schedule.linear(), prediction)
    start = noise.sample((3, 1, *SIZE), generator=generator(), dtype=torch.float64)
    expected = diffusion.sample(
        weights.predictor(network.double()), noise, start, sagd.Sampler(steps=5, spacing=spacing)
    )
    scheduler = sagd.diffusers.ShapedDDIMScheduler(
        clip_sample=False,
        timestep_spacing=spacing,
        spectrum=noise,
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction],
    )
    scheduler.alphas_cumprod = diffusion.alpha_bar  # diffusers' are rounded to float32
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    pipeline = SAGDPipeline(scheduler, theirs.double())
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(3, generator=generator(), num_inference_steps=5, output_type="pt").images
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), atol=1e-6, rtol=1e-6)
    given = pipeline(3, latents=start, num_inference_steps=5, output_type="pt").images
    torch.testing.assert_close(given, found)


def test_flow_matching_in_the_pipeline_is_the_librarys():
    network, theirs = ours()
    flow, start = sagd.Flow(shift=3.0), TILTED.sample((2, 1, *SIZE), generator=generator())
    expected = flow.sample(weights.predictor(network), TILTED, start, sagd.Sampler("euler", 5))
    scheduler = sagd.diffusers.ShapedFlowMatchEulerDiscreteScheduler(shift=3.0, spectrum=TILTED)
    pipeline = SAGDPipeline(scheduler, theirs)
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(2, generator=generator(), num_inference_steps=5, output_type="pt").images
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheduler", ["DDPM", "DDIM"])
def test_an_image_does_not_depend_on_the_others(scheduler):
    kind = getattr(sagd.diffusers, f"Shaped{scheduler}Scheduler")
    pipeline = SAGDPipeline(kind(spectrum=TILTED), ours(classes=3)[1])
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 3, "output_type": "pt"} | ({"eta": 0.7} if scheduler == "DDIM" else {})
    many = pipeline(class_labels=[0, 1, 2], generator=[generator(k) for k in range(3)], **call).images
    alone = pipeline(class_labels=[2], generator=[generator(2)], **call).images
    torch.testing.assert_close(alone[0], many[2])
    with pytest.raises(sagd.InputError, match="class_labels must be given"):
        pipeline(2)
    with pytest.raises(sagd.InputError, match="3 generators for a first axis of 2"):
        pipeline(class_labels=[0, 1], generator=[generator(k) for k in range(3)])


def test_a_transformer_with_labels_has_the_librarys_weights():
    torch.manual_seed(0)
    sizes = dict(sample_size=8, in_channels=2, hidden_sizes=(16, 32), depths=(1, 1), heads=(2, 2), num_classes=3)
    network = sagd.networks.dit.DiTDH(**sizes).eval()
    theirs = SAGDTransformer2DModel(**sizes).eval()
    theirs.load_state_dict(network.state_dict())
    for p, q in zip(network.parameters(), theirs.parameters(), strict=True):
        torch.nn.init.normal_(p, std=0.1, generator=generator(p.numel())), q.data.copy_(p.data)
    x, t, labels = torch.randn(3, 2, 8, 8, generator=generator()), torch.tensor([1, 500, 999]), torch.arange(3)
    assert torch.equal(theirs(x, t, labels)[0], network(x, t, labels))
    noise = sagd.power_law((8, 8), -0.25)
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDPMScheduler(spectrum=noise), transformer=theirs)
    assert pipeline(class_labels=[0, 2], num_inference_steps=2, output_type="np").images.shape == (2, 8, 8, 2)
    with pytest.raises(sagd.InputError, match="the scheduler's spectrum is of 16x16; the network's images are of 8x8"):
        SAGDPipeline(sagd.diffusers.ShapedDDPMScheduler(spectrum=TILTED), transformer=theirs)
    with pytest.raises(sagd.InputError, match="one network"):
        SAGDPipeline(sagd.diffusers.ShapedDDPMScheduler(spectrum=noise))


@pytest.mark.parametrize("kind", ["unet", "ours", "theirs"])
def test_guidance_is_its_formula(kind):
    """One step of DDIM from T - 1 with all the noise: what the scheduler is given is none + s (label - none)."""
    if kind == "unet":
        network, none = {"unet": tiny(num_class_embeds=4)}, 3
    elif kind == "ours":
        torch.manual_seed(0)
        model = SAGDTransformer2DModel(16, 1, 2, (16, 32), (1, 1), (2, 2), num_classes=3)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.3)
        network, none = {"transformer": model.eval()}, 3
    else:
        network, none = {"transformer": dit().transformer}, 10
    scheduler = sagd.diffusers.ShapedDDPMScheduler(
        clip_sample=False, spectrum=TILTED, variance_type="learned_range" if kind == "theirs" else "fixed_small"
    )
    pipeline = SAGDPipeline(scheduler, **network)
    pipeline.set_progress_bar_config(disable=True)
    given, plain = [], scheduler.step
    scheduler.step = lambda found, t, x, **how: given.append((found, x, t)) or plain(found, t, x, **how)
    model = pipeline.network
    with torch.no_grad():
        for scale in (1.0, 0.0, 3.0):
            given.clear()
            pipeline(class_labels=[1, none], num_inference_steps=1, guidance_scale=scale, output_type="pt")
            found, x, t = given[0]
            label, without = (
                weights.predictor(model, torch.tensor(labels))(x, t.expand(2)) for labels in ([1, none], [none, none])
            )
            c, close = x.shape[1], {"rtol": 0, "atol": 1e-5 * float(found.abs().max())}  # a sum's, in float32
            torch.testing.assert_close(found[:, :c], (without + scale * (label - without))[:, :c], **close)
            torch.testing.assert_close(found[:, c:], label[:, c:], **close)
            torch.testing.assert_close(found[1:, :c], without[1:, :c], **close)  # none guides to itself
    assert not torch.allclose(label[0], without[0], atol=1e-3)


def test_what_our_pipeline_cannot_be_asked_is_told_in_one_line():
    network, theirs = ours(classes=3)
    scheduler = sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED)
    labelled, plain = SAGDPipeline(scheduler, theirs), SAGDPipeline(scheduler, tiny())
    for match, pipeline, call in (
        ("class_labels are 0 to 4; allowed are 0 to 3, which is none", labelled, {"class_labels": [0, 4]}),
        ("class_labels are -1 to 0; allowed", labelled, {"class_labels": torch.tensor([0, -1])}),
        (r"class_labels are \(1,\), torch.float32; they must be whole", labelled, {"class_labels": [0.5]}),
        (r"class_labels are \(\), torch.int64; they must be", labelled, {"class_labels": 1}),
        (
            "guidance_scale is 'high'; it must be a finite number",
            labelled,
            {"class_labels": [0], "guidance_scale": "high"},
        ),
        ("guidance_scale is 2; guidance needs a network that knows labels", plain, {"guidance_scale": 2.0}),
        ("output_type is 'jpeg'; allowed: pil, np, pt", plain, {"output_type": "jpeg"}),
    ):
        with pytest.raises(sagd.InputError, match=match):
            pipeline(**call)
    with pytest.raises(
        sagd.InputError, match=r"the network is a UNet2DModel of sagd.networks.unet, .* diffusers.UNet2"
    ):
        SAGDPipeline(scheduler, network)


def run(code, *arguments):
    """Python in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_a_saved_folder_loads_where_the_library_is_imported_and_its_unet_anywhere(network, tmp_path):
    noise = sagd.power_law(SIZE, -0.25)
    if network == "unet":
        model = ours()[1]
    else:
        model = SAGDTransformer2DModel(16, 1, hidden_sizes=(16, 32), depths=(1, 1), heads=(2, 2), num_classes=0).eval()
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=noise), **{network: model})
    pipeline.save_pretrained(tmp_path)
    call = "2, num_inference_steps=3, eta=0.5, output_type='pt', generator=torch.Generator().manual_seed(0)"
    expected = eval(f"pipeline({call})").images
    load = f"import sys, torch, diffusers; pipeline = diffusers.DiffusionPipeline.from_pretrained({str(tmp_path)!r})"
    with_it = run(
        f"import sagd.diffusers; {load}; print(type(pipeline).__name__, pipeline({call}).images.double().sum().item())"
    )
    assert with_it.stdout.split()[0] == "SAGDPipeline", with_it.stderr
    assert float(with_it.stdout.split()[1]) == expected.double().sum().item()
    assert run(load).returncode != 0
    if network == "unet":
        alone = run(f"import diffusers; diffusers.UNet2DModel.from_pretrained({str(tmp_path / 'unet')!r})")
        assert alone.returncode == 0, alone.stderr


def test_a_pipeline_is_offloaded_as_any_other():
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED), ours()[1])
    call = {"batch_size": 2, "num_inference_steps": 2, "output_type": "pt"}
    before = pipeline(**call, generator=generator()).images
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(pipeline(**call, generator=generator()).images, before)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"eta": float("nan")}, "eta is nan"),
        ({"eta": -1}, "eta is -1"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "2"}, "batch_size is '2'"),
        ({"generator": 0}, "generator is 0"),
        ({"latents": "x"}, "latents is a str"),
        ({"class_labels": "ab"}, "class_labels are 'ab'"),
    ],
)
def test_what_no_pipeline_can_draw_with_is_refused_in_one_line(changed, says):
    labels = {"num_class_embeds": 4} if "class_labels" in changed else {}
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED), tiny(**labels))
    with pytest.raises(sagd.InputError, match=says) as failure:
        pipeline(**{"output_type": "pt", "num_inference_steps": 1} | changed)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("spectrum", ["x", 5, torch.ones(16, 16)])
def test_a_scheduler_takes_no_bare_weight_for_a_spectrum(spectrum):
    with pytest.raises(sagd.InputError, match=r"spectrum is a (str|int|Tensor); it must be a Spectrum"):
        sagd.diffusers.ShapedDDIMScheduler(spectrum=spectrum)


def test_a_pipeline_takes_short_labels_and_a_tuple_of_generators():
    pipeline = SAGDPipeline(sagd.diffusers.ShapedDDIMScheduler(spectrum=TILTED), tiny(num_class_embeds=4))
    pipeline.set_progress_bar_config(disable=True)

    def drawn(labels, generators):
        return pipeline(class_labels=labels, generator=generators, num_inference_steps=1, output_type="pt").images

    short = drawn(torch.tensor([1, 2], dtype=torch.uint8), (generator(0), generator(1)))
    assert torch.equal(short, drawn([1, 2], [generator(0), generator(1)]))

"""Colored noise sampling: gamma on trajectories whose end is known, and the noise that follows."""

import json
import math

import pytest
import torch

import sagd
from sagd.cli import main
from sagd.colored import Colored, ColoredNoise, calibrate, level
from sagd.k_diffusion import noise_sampler
from sagd.noise.grid import ring_means, rings
from sagd.runtime.files import read_tensors, write_tensors

SIZE = (8, 8)
DIFFUSION = sagd.Diffusion(sagd.Schedule.linear())
_, RING = rings(SIZE).unique(return_inverse=True)
RINGS = int(RING.max()) + 1
VARIANCE = torch.linspace(2.0, -3.0, RINGS, dtype=torch.float64).exp()  # of the data in each ring


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def perfect(xt, t, class_labels=None):
    """E[eps | x_t] of Gaussian data with `VARIANCE` at each frequency."""
    alpha_bar, s = DIFFUSION.alpha_bar[t[0]], VARIANCE[RING]
    return torch.fft.ifft2(
        torch.fft.fft2(xt) * ((1 - alpha_bar).sqrt() / (alpha_bar * s + 1 - alpha_bar)).to(xt.dtype)
    ).real


def noise(levels=3, strength=1.0, seed=0):
    gamma = torch.rand(levels, RINGS, generator=generator(seed), dtype=torch.float64)
    return ColoredNoise(SIZE, torch.linspace(-4, 4, levels, dtype=torch.float64), gamma, strength)


def test_gamma_of_a_gaussian_is_what_its_ode_says():
    """Each frequency of x_t is a number m_t times that of x_T: so gamma = 1 - (1 - m / m_0)^2, without any error."""
    sampler = sagd.Sampler("ddim", 20)
    start = torch.randn(6, 2, *SIZE, generator=generator(), dtype=torch.float64)
    counted = []
    found = calibrate(perfect, DIFFUSION, start, sampler, batch_size=4, report=counted.append)
    steps = DIFFUSION.timesteps(sampler)
    m, expected = torch.ones(RINGS, dtype=torch.float64), []
    for t, t_prev in zip(steps, [*steps[1:], -1], strict=True):
        before, after = DIFFUSION.schedule.alpha_bars(t, t_prev)
        x0 = m * before**0.5 * VARIANCE / (before * VARIANCE + 1 - before)
        expected.append(x0)
        m = after**0.5 * x0 + ((1 - after) / (1 - before)) ** 0.5 * (m - before**0.5 * x0)
    wanted = 1 - (1 - torch.stack(expected) / m).square()
    torch.testing.assert_close(found.gamma, wanted)
    assert counted == [4, 2]
    low, high = found.gamma[:, 1], found.gamma[:, -1]  # strong frequencies come first
    assert (low[:-1] > high[:-1]).all() and torch.equal(found.gamma[-1], torch.ones(RINGS, dtype=torch.float64))


def test_the_weight_is_what_is_left_at_mean_square_one():
    colored = noise()
    for strength, divider in ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.5, 1.73)):
        its = ColoredNoise(SIZE, colored.log_snr, colored.gamma, strength, divider)
        square = its.at_level(0.0).weight.square()
        assert square.mean().item() == pytest.approx(1)
        left = (1 - colored.gamma[1] / divider) ** strength
        torch.testing.assert_close(ring_means(square), left / left[RING].mean())
    assert torch.equal(ColoredNoise(SIZE, colored.log_snr, colored.gamma, 0.0).at_level(0.0).weight, torch.ones(SIZE))


def test_between_levels_gamma_is_interpolated_and_beyond_them_constant():
    colored = noise()
    torch.testing.assert_close(colored.gamma_at(-3.0), 0.75 * colored.gamma[0] + 0.25 * colored.gamma[1])
    for beyond, row in ((-30.0, 0), (30.0, 2), (0.0, 1)):
        assert torch.equal(colored.gamma_at(beyond), colored.gamma[row])
    settled = ColoredNoise(SIZE, torch.zeros(1).double(), torch.ones(1, RINGS).double())
    assert torch.equal(settled.at_level(0.0).weight, torch.ones(SIZE))  # nothing is left: white


@pytest.mark.parametrize("how", [{"name": "ddpm"}, {"name": "ddim", "eta": 1.0}, {"name": "ddim", "eta": 0.3}])
def test_strength_0_is_the_plain_sampler_and_another_shapes_the_same_draws(how):
    sampler, white = sagd.Sampler(steps=5, **how), sagd.isotropic(SIZE)
    x = torch.randn(2, 1, *SIZE, generator=generator(1))
    given = {"shape": x.shape, "generator": generator(2)}
    plain = sagd.sample(perfect, DIFFUSION, white, sampler, **given)
    for strength, same in ((0.0, True), (1.0, False)):
        colored = Colored.of(DIFFUSION, noise(strength=strength))
        given["generator"] = generator(2)
        assert torch.allclose(sagd.sample(perfect, colored, white, sampler, **given), plain, atol=1e-5) == same
    # One step: what is added is T_w of the same white noise.
    xi = torch.randn(x.shape, generator=generator(3))
    colored = Colored.of(DIFFUSION, noise())
    spectrum = colored.colored.at_level(level(DIFFUSION.alpha_bar[400]).item())
    step = {"white": lambda: xi}, {"white": lambda: torch.zeros_like(xi)}, {"white": lambda: spectrum.sqrt(xi)}
    drawn, none, shaped = (
        d.step(perfect, white, x, 400, 200, sampler, **s)
        for d, s in zip((colored, colored, DIFFUSION), step, strict=True)
    )
    torch.testing.assert_close(drawn, shaped)
    assert not torch.allclose(drawn, none)


def test_a_perfect_network_draws_the_datas_spectrum_with_white_steps_and_another_with_colored_ones():
    """What CNS costs: its steps do not put back what they took away. So it can help only against a network's errors."""
    sampler, white = sagd.Sampler("ddpm", 250), sagd.isotropic(SIZE)
    colored = calibrate(perfect, DIFFUSION, torch.randn(64, 1, *SIZE, generator=generator(5)), sampler)
    zero, impulse = torch.zeros(2, 1, 1, *SIZE, dtype=torch.float64)
    impulse[..., 0, 0] = 1  # all frequencies alike
    ratios = []
    for diffusion in (DIFFUSION, Colored.of(DIFFUSION, colored)):
        power = torch.ones(SIZE, dtype=torch.float64)  # of x_T at each frequency
        steps = diffusion.timesteps(sampler)
        for t, t_prev in zip(steps, [*steps[1:], -1], strict=True):  # what a step does to x, and what it adds
            of_x = diffusion.step(perfect, white, impulse, t, t_prev, sampler, white=lambda: zero)
            added = diffusion.step(perfect, white, zero, t, t_prev, sampler, white=lambda: impulse)
            factor, amplitude = (torch.fft.fft2(x[0, 0]).abs() for x in (of_x, added))
            power = factor.square() * power + amplitude.square()
        ratios.append(ring_means(power) / VARIANCE)
    assert (ratios[0] - 1).abs().max() < 0.15  # of so many steps
    assert ratios[1][0] < 0.3 and ratios[1][-1] > 10


def test_it_is_written_and_read(tmp_path):
    colored = ColoredNoise(SIZE, noise().log_snr, noise().gamma, 0.5, 2.0)
    colored.save(tmp_path / "colored.json")
    again = ColoredNoise.load(tmp_path / "colored.json")
    assert torch.equal(again.gamma, colored.gamma) and torch.equal(again.log_snr, colored.log_snr)
    assert (again.size, again.strength, again.divider) == (SIZE, 0.5, 2.0)
    content = json.loads((tmp_path / "colored.json").read_text())
    for change, told in (
        ({"gamma": [[0.5]]}, r"gamma has the shape \(1, 1\); for 8x8 and 3 levels it must be \(3, 7\)"),
        ({"log_snr": [3.0, 2.0, 1.0]}, "log_snr must rise"),
        ({"strength": -1}, "strength is -1.0; it must be 0 or more"),
        ({"divider": 0.5}, "divider is 0.5; it must be 1 or more"),
        ({"gamma": "high"}, "it is not what `sagd calibrate` writes"),
        ({"size": [8]}, "must be .* of a grid"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(content | change))
        with pytest.raises(sagd.InputError, match=told):
            ColoredNoise.load(tmp_path / "other.json")


def test_what_does_not_fit_is_refused():
    colored, ddpm = Colored.of(DIFFUSION, noise()), sagd.Sampler("ddpm", 5)
    for given, sampler, told in (
        (sagd.power_law(SIZE, -0.5), ddpm, "this noise is shaped"),
        (sagd.isotropic((16, 16)), ddpm, "the colored noise is of 8x8, and the images are of 16x16"),
        (sagd.isotropic(SIZE), sagd.Sampler("ddim", 5), "ddim with eta 0 draws no noise in its steps"),
    ):
        with pytest.raises(sagd.InputError, match=told):
            sagd.sample(perfect, colored, given, sampler, shape=(1, 1, *given.size), generator=generator())
    assert colored.to_dict()["colored"]["strength"] == 1 and colored.to_dict() != DIFFUSION.to_dict()
    with pytest.raises(sagd.InputError, match="not finite"):
        calibrate(lambda xt, t: xt * torch.nan, DIFFUSION, torch.randn(2, 1, *SIZE), sagd.Sampler("ddim", 5))
    assert math.isfinite(level(torch.zeros(1)).item())  # where zero terminal SNR begins


def test_noise_samplers_of_k_diffusion_take_it():
    colored, x = noise(), torch.zeros(2, 3, *SIZE)
    shaped = noise_sampler(colored, x, generator=generator(4))(torch.tensor(2.0), torch.tensor(1.0))
    white = torch.randn(x.shape, generator=generator(4))
    torch.testing.assert_close(shaped, colored.at_level(-2 * math.log(2.0)).sqrt(white))
    with pytest.raises(sagd.InputError, match=r"the spectrum is of 8x8, and x has the shape \(1, 16, 16\)"):
        noise_sampler(colored, torch.zeros(1, 16, 16))


@pytest.mark.slow
class TestPipelines:
    """On real pipelines of tiny random networks."""

    def pipeline(self, scheduler=None, **network):
        import diffusers

        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
            block_out_channels=(4, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            **network,
        )  # fmt: skip
        return diffusers.DDPMPipeline(unet, scheduler or diffusers.DDPMScheduler())

    @pytest.mark.parametrize("name", ["DDPM", "EulerAncestralDiscrete", "ShapedDDPM"])
    def test_the_steps_of_a_pipeline_draw_it_and_its_start_does_not(self, name):
        import diffusers

        import sagd.diffusers

        pipeline = self.pipeline(diffusers.DDPMScheduler(clip_sample=False))
        if name == "EulerAncestralDiscrete":
            pipeline.scheduler = diffusers.EulerAncestralDiscreteScheduler()
        if name == "ShapedDDPM":  # as a network trained on white noise is exported
            pipeline.scheduler = sagd.diffusers.ShapedDDPMScheduler(clip_sample=False, spectrum=sagd.isotropic(SIZE))

        def draw():
            return pipeline(num_inference_steps=3, generator=generator(1), output_type="np").images

        plain, colored = draw(), noise()
        with sagd.diffusers.colored(pipeline, ColoredNoise(SIZE, colored.log_snr, colored.gamma, 0.0)):
            assert (draw() == plain).all()
        with sagd.diffusers.colored(pipeline, colored):
            assert (draw() != plain).any()
            # A step: what all zeros become is the noise that is drawn, of this level.
            scheduler, zero = pipeline.scheduler, torch.zeros(2, 1, *SIZE)
            scheduler.set_timesteps(3)
            t = scheduler.timesteps[1]
            drawn = scheduler.step(zero, t, zero, generator=generator(2)).prev_sample
        scheduler.set_timesteps(3)
        white = scheduler.step(zero, t, zero, generator=generator(2)).prev_sample
        between = torch.lerp(*level(scheduler.alphas_cumprod[int(t) : int(t) + 2]), float(t) - int(t)).item()
        torch.testing.assert_close(drawn, colored.at_level(between).sqrt(white), atol=1e-5, rtol=1e-5)
        assert (draw() == plain).all()

    def test_pipelines_that_do_not_fit_are_refused(self):
        import diffusers

        import sagd.diffusers

        pipeline = self.pipeline()
        with pytest.raises(sagd.InputError, match="the noise is a Spectrum; it must be a ColoredNoise"):
            with sagd.diffusers.colored(pipeline, sagd.isotropic(SIZE)):
                pass
        for scheduler, told in (
            (diffusers.FlowMatchEulerDiscreteScheduler(), "no scheduler with alphas_cumprod"),
            (sagd.diffusers.ShapedDDPMScheduler(spectrum=sagd.power_law(SIZE, -0.5)), "has a spectrum"),
        ):
            pipeline.scheduler = scheduler
            with pytest.raises(sagd.InputError, match=told), sagd.diffusers.colored(pipeline, noise()):
                pass
        pipeline.scheduler = diffusers.DDPMScheduler()
        with sagd.diffusers.colored(pipeline, noise()):
            with pytest.raises(sagd.InputError, match="colored already"), sagd.diffusers.colored(pipeline, noise()):
                pass

    @pytest.mark.parametrize("classes", [None, 3])
    def test_the_command_calibrates_a_pipeline(self, tmp_path, capsys, classes):
        import diffusers

        pipeline = self.pipeline(diffusers.DDPMScheduler(prediction_type="v_prediction"), num_class_embeds=classes)
        pipeline.save_pretrained(tmp_path / "model")
        arguments = [str(tmp_path / "model"), "--out", str(tmp_path / "c.json"), "--samples", "5", "--steps", "4"]
        main(["calibrate", *arguments, "--strength", "2"])
        told = capsys.readouterr().out
        assert "t=750" in told and "5 trajectories, 4 steps" in told
        found = ColoredNoise.load(tmp_path / "c.json")
        assert found.strength == 2 and len(found.log_snr) == 4
        diffusion = sagd.Diffusion(sagd.Schedule(pipeline.scheduler.alphas_cumprod.double()), "v")
        from sagd.noise.randomness import generator as stream

        start = torch.randn(5, 1, *SIZE, generator=stream(0, "calibrate"))
        labels = torch.arange(5) % classes if classes else None
        same = calibrate(pipeline.unet.eval(), diffusion, start, sagd.Sampler("ddim", 4), labels=labels)
        torch.testing.assert_close(found.gamma, same.gamma, atol=1e-5, rtol=1e-5)

    def test_of_a_network_that_sagd_exported_the_last_label_stands_for_none(self, tmp_path, monkeypatch):
        import sagd.diffusers
        from sagd.cli import calibrate as command

        asked = []
        monkeypatch.setattr(command, "calibrate", lambda *_, labels, **__: asked.append(labels.tolist()) or noise())
        for scheduler, labels in (
            (sagd.diffusers.ShapedDDPMScheduler(spectrum=sagd.isotropic(SIZE)), [0, 1, 2, 0, 1]),
            (None, [0, 1, 2, 3, 0]),
        ):
            self.pipeline(scheduler, num_class_embeds=4).save_pretrained(tmp_path / "model")
            main(["calibrate", str(tmp_path / "model"), "--out", str(tmp_path / "c.json"), "--samples", "5"])
            assert asked.pop() == labels

    def test_a_network_that_guesses_worse_than_nothing_is_told(self, tmp_path, capsys, monkeypatch):
        from sagd.cli import calibrate as command

        self.pipeline().save_pretrained(tmp_path / "model")
        for value, told in ((0.5, False), (-3.0, True)):
            gamma = torch.full((3, RINGS), value, dtype=torch.float64)
            measured = ColoredNoise(SIZE, noise().log_snr, gamma)
            monkeypatch.setattr(command, "calibrate", lambda *_, m=measured, **__: m)
            main(["calibrate", str(tmp_path / "model"), "--out", str(tmp_path / "c.json")])
            assert ("100% is below 0, where the network guesses worse than 0" in capsys.readouterr().out) == told

    def test_folders_that_do_not_fit_are_refused_in_one_line(self, tmp_path, capsys):
        import diffusers

        import sagd.diffusers

        def refused(*more):
            with pytest.raises(SystemExit) as exit:
                main(["calibrate", str(tmp_path / "model"), "--out", str(tmp_path / "c.json"), *more])
            told = str(exit.value)
            assert "\n" not in told and not (tmp_path / "c.json").exists()
            return told

        assert "model is no folder here" in refused()
        (tmp_path / "model").mkdir()
        assert "scheduler_config.json" in refused()
        self.pipeline().save_pretrained(tmp_path / "model")
        assert "--divider is 0.0; it must be 1" in refused("--divider", "0")
        assert "--samples is 0" in refused("--samples", "0")
        assert "--device is abacus, which can't be used here" in refused("--device", "abacus")
        assert "--device is '', which can't be used here" in refused("--device", "")
        if not torch.cuda.is_available():
            assert "--device is cuda, which can't be used here" in refused("--device", "cuda")
        assert "allowed: 1 to 1000" in refused("--steps", "2000")
        assert "must end in .json" in refused("--out", "c.txt")
        for scheduler, told in (
            (diffusers.FlowMatchEulerDiscreteScheduler(), "no betas"),
            (diffusers.DDPMScheduler(prediction_type="sample"), "prediction_type is sample; allowed: epsilon, v_pred"),
            (sagd.diffusers.ShapedDDPMScheduler(spectrum=sagd.power_law(SIZE, -0.5)), "trained on shaped noise"),
        ):
            scheduler.save_pretrained(tmp_path / "model" / "scheduler")
            assert told in refused()
        diffusers.DDPMScheduler().save_pretrained(tmp_path / "model" / "scheduler")
        config = json.loads((tmp_path / "model/unet/config.json").read_text())
        variances = diffusers.UNet2DModel.from_config(config | {"out_channels": 2})
        self.pipeline().save_pretrained(tmp_path / "learned")
        variances.save_pretrained(tmp_path / "learned" / "unet")
        (tmp_path / "model" / "unet").rename(tmp_path / "unet")
        (tmp_path / "learned" / "unet").rename(tmp_path / "model" / "unet")
        assert "the network takes 1 channels and gives 2; learned variances" in refused()
        (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").write_bytes(b"?")
        assert "unet" in refused()

    SCHEDULER_KEYS = (
        ("num_train_timesteps", 10**9, "must be a whole number, 1 to 100,000"),
        ("num_train_timesteps", "1000", "must be a whole number"),
        ("num_train_timesteps", None, "must be a whole number"),
        ("num_train_timesteps", 0, "must be a whole number"),
        ("num_train_timesteps", 10.5, "must be a whole number"),
        ("beta_start", "low", "betas that can't be used"),
        ("beta_end", None, "betas that can't be used"),
        ("beta_end", 3.0, "betas that can't be used"),
        ("beta_schedule", ["linear"], "betas that can't be used"),
        ("beta_schedule", None, "betas that can't be used"),
        ("trained_betas", "abc", "betas that can't be used"),
        ("trained_betas", [[0.1], [0.2]], "betas that can't be used"),
        ("trained_betas", [], "betas that can't be used"),
        ("prediction_type", ["epsilon"], "prediction_type is ['epsilon']; allowed"),
        ("prediction_type", None, "prediction_type is None; allowed"),
        ("spectrum", "white", "spectrum is white; it must be a mapping"),
        ("spectrum", {"operator": ["isotropic"], "size": [8, 8]}, "operator ['isotropic']"),
        ("spectrum", {"operator": "isotropic", "size": [10**6, 10**6]}, "frequencies at most"),
        ("spectrum", {}, "scheduler_config.json: spectrum: operator is None"),
        ("spectrum", {"operator": 5}, "scheduler_config.json: spectrum: operator is 5"),
        ("spectrum", {"operator": "pyramid", "size": [8, 8], "iterations": 10**9}, "_config.json: spectrum: "),
    )
    NETWORK_KEYS = (
        ("sample_size", None, "sample_size is null"),
        ("sample_size", [8], "it must be a whole number, or [height, width]"),
        ("sample_size", [8, 8, 8], "it must be a whole number, or [height, width]"),
        ("sample_size", [], "it must be a whole number, or [height, width]"),
        ("sample_size", "8", "sample_size is 8; it must be a whole number, 2 to 16,384"),
        ("sample_size", [8, "b"], "sample_size is b; it must be a whole number"),
        ("sample_size", 8.5, "sample_size is 8.5; it must be a whole number"),
        ("sample_size", True, "sample_size is True; it must be a whole number"),
        ("sample_size", -8, "sample_size is -8; it must be a whole number"),
        ("sample_size", 10**6, "sample_size is 1000000; it must be a whole number"),
        ("sample_size", 7, "the network fails on images of [1, 7, 7]"),
        ("sample_size", 1, "sample_size is 1; it must be a whole number"),
        ("in_channels", "one", "in_channels is one; it must be a whole number"),
        ("in_channels", 10**9, "in_channels is 1000000000; it must be"),
        ("layers_per_block", 10**9, "layers_per_block is 1000000000; it must be"),
        ("block_out_channels", 8, "unet"),
        ("block_out_channels", ["a", "b"], "block_out_channels is a; it must be"),
        ("norm_num_groups", 0, "unet"),
        ("down_block_types", ["Nowhere", "Nowhere"], "unet"),
        ("class_embed_type", "timestep", "class_embed_type is timestep; calibrating takes a network of labels"),
        ("num_class_embeds", "many", "num_class_embeds is many; it must be a whole number"),
        ("_class_name", ["UNet2DModel"], "the network is a ['UNet2DModel']; calibrating takes a UNet2DModel"),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("pipeline") / "model"
        cls().pipeline().save_pretrained(folder)
        return folder

    @pytest.mark.parametrize(
        ("file", "key", "value", "says"),
        [("scheduler/scheduler_config.json", *rest) for rest in SCHEDULER_KEYS]
        + [("unet/config.json", *rest) for rest in NETWORK_KEYS],
    )
    def test_a_key_that_does_not_fit_is_refused_in_one_line(self, saved, tmp_path, file, key, value, says):
        config = json.loads((saved / file).read_text())
        (saved / file).write_text(json.dumps(config | {key: value}))
        try:
            with pytest.raises(SystemExit) as exit:
                main(["calibrate", str(saved), "--out", str(tmp_path / "c.json"), "--samples", "2", "--steps", "2"])
        finally:
            (saved / file).write_text(json.dumps(config))
        told = str(exit.value)
        assert told.startswith("sagd calibrate: ") and says in told and "\n" not in told
        assert not (tmp_path / "c.json").exists()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda tensors: tensors.pop("conv_in.bias"), "unet: the weights lack 1 tensors, such as conv_in.bias"),
            (
                lambda tensors: tensors.update({"conv_in.bias": tensors["conv_in.bias"].long()}),
                "diffusion_pytorch_model.safetensors: conv_in.bias is I64; weights must be floating-point",
            ),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(self, tmp_path, change, says):
        self.pipeline().save_pretrained(tmp_path / "model")
        file = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
        change(tensors := dict(read_tensors(file)))
        write_tensors(file, tensors, {"format": "pt"})
        with pytest.raises(SystemExit, match=f"^sagd calibrate: .*{says}$"):
            main(["calibrate", str(tmp_path / "model"), "--out", str(tmp_path / "c.json")])

    def test_the_file_is_tried_before_the_pipeline_is_read(self, saved, monkeypatch):
        from sagd.cli import calibrate as command

        monkeypatch.setattr(command, "_network", lambda folder: pytest.fail("the work has begun"))
        before = (saved / "unet" / "config.json").read_bytes()
        for place, says in (
            (saved.parent, "must end in .json"),
            (saved / "unet" / "config.json", "would change the input"),
            (saved / "unet" / "config.json" / "c.json", "is no folder"),
            ("/proc/c.json", "cannot be written"),
        ):
            with pytest.raises(SystemExit, match=f"^sagd calibrate: --out is {place}.*{says}"):
                main(["calibrate", str(saved), "--out", str(place)])
        assert (saved / "unet" / "config.json").read_bytes() == before

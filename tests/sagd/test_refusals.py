"""What a third reader tried: words for flags, noise that varies, formulations without steps, and what was left over."""

import json

import numpy as np
import pytest
import torch

import sagd
from sagd import export, oracle
from sagd.colored import ColoredNoise, calibrate
from sagd.data.load import load, read
from sagd.data.pictures import Pictures
from sagd.data.prepare import split, square
from sagd.images import Images
from sagd.metrics.denoising import denoising_errors
from sagd.metrics.rapsd import exponent
from sagd.metrics.scores import score_difference
from sagd.networks.unet import unet
from sagd.oracle.suggest import suggest, verdict
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import Recipe

SHAPE = (2, 1, 8, 8)
SCHEDULE = sagd.Schedule.linear()
DIFFUSION = sagd.Diffusion(SCHEDULE, "v")
NOISE = sagd.power_law((8, 8), -0.4)
VARYING = sagd.Varying(sagd.power_law((8, 8), -0.5), sagd.power_law((8, 8), 0.5), SCHEDULE.alpha_bar)
X, EPS = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
STEPS, TIMES = torch.tensor([10, 500]), torch.tensor([0.2, 0.5])
FIELD = oracle.gaussian_field(torch.zeros(1, 8, 8, dtype=torch.float64), torch.ones(1, 8, 8, dtype=torch.float64))
MOMENTS = {"mean": FIELD.means[0], "power": FIELD.power[0]}
FORMULATIONS = {"diffusion": (DIFFUSION, STEPS), "flow": (sagd.Flow(), TIMES), "edm": (sagd.EDM(), TIMES)}


def network(x, t):
    return 0.3 * x


def trained(steps=3, snapshots=(), formulation=DIFFUSION, **recipe):
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.manual_seed(0)
    model = unet((8, 8), 1, [8], 1, [False], 4)
    how = Recipe(**{"steps": steps, "batch_size": 2, "warmup": 0} | recipe)
    return train(model, Pixels(images), NOISE, formulation, how, seed=0, snapshots=snapshots)


FLAGS = {
    "clip of ddim": lambda: sagd.ddim_step(SCHEDULE, X, 500, 480, EPS, clip="off"),
    "clip of ddpm": lambda: sagd.ddpm_step(SCHEDULE, X, 500, 480, EPS, clip="off", noise=EPS),
    "project of the target": lambda: FIELD.predict(SCHEDULE, NOISE, project="false"),
    "project of the velocity": lambda: FIELD.velocity(NOISE, project="false"),
    "project of the denoised": lambda: FIELD.denoised(X.double(), 1.0, NOISE, project="false"),
    **{
        f"project of {name}": lambda f=f, t=t: f.loss(network, NOISE, X, t, EPS, project="false")
        for name, (f, t) in FORMULATIONS.items()
    },
    **{
        f"gradients of {name}": lambda f=f: f.sample(network, NOISE, X, sagd.Sampler("euler", 3), gradients="off")
        for name, (f, _) in FORMULATIONS.items()
    },
}


@pytest.mark.parametrize("which", FLAGS)
def test_a_word_is_no_flag(which):
    with pytest.raises(sagd.InputError, match=r"(clip|project|gradients) is '(off|false)'; it must be True or False"):
        FLAGS[which]()


@pytest.mark.parametrize("name", FORMULATIONS)
def test_a_sampler_starts_from_real_numbers(name):
    start = torch.zeros(SHAPE, dtype=torch.uint8)
    with pytest.raises(sagd.InputError, match=r"^x .*uint8"):
        FORMULATIONS[name][0].sample(network, NOISE, start, sagd.Sampler("euler", 3))


VARIES = {
    "score from eps": lambda: SCHEDULE.score_from_eps(VARYING, STEPS, EPS),
    "eps from score": lambda: SCHEDULE.eps_from_score(VARYING, STEPS, EPS),
    "score from velocity": lambda: sagd.Flow().score_from_velocity(VARYING, X, TIMES, EPS),
    "velocity from score": lambda: sagd.Flow().velocity_from_score(VARYING, X, TIMES, EPS),
    "score from denoised": lambda: sagd.EDM().score_from_denoised(VARYING, X, TIMES, EPS),
    "denoised from score": lambda: sagd.EDM().denoised_from_score(VARYING, X, TIMES, EPS),
    "corruption": lambda: sagd.Corruption(VARYING),
    "velocity of a target": lambda: FIELD.velocity(VARYING),
    "denoised of a target": lambda: FIELD.denoised(X.double(), 1.0, VARYING),
    "scores of networks": lambda: score_difference((network, VARYING), (network, NOISE), DIFFUSION, X, EPS, 10),
}


@pytest.mark.parametrize("which", VARIES)
def test_noise_that_varies_is_no_single_spectrum(which):
    with pytest.raises(
        sagd.InputError, match=r"^spectrum varies with t; give the spectrum of one step, its \.at\(t\)$"
    ):
        VARIES[which]()


DISCRETE = {
    "suggest": lambda f: suggest(MOMENTS["mean"], MOMENTS["power"], f, sagd.Sampler("euler", 3)),
    "drawn": lambda f: oracle.drawn(FIELD, f, NOISE, sagd.Sampler("euler", 3)),
    "denoising errors": lambda f: denoising_errors(network, f, NOISE, X, generator=torch.Generator()),
    "scores": lambda f: score_difference((network, NOISE), (network, NOISE), f, X, EPS, 10),
}


@pytest.mark.parametrize("formulation", [sagd.Flow(), sagd.EDM()], ids=["flow", "edm"])
@pytest.mark.parametrize("which", DISCRETE)
def test_what_needs_steps_takes_a_diffusion(which, formulation):
    with pytest.raises(
        sagd.InputError, match=r"^formulation is a (Flow|EDM); it must be a Diffusion, in discrete steps"
    ):
        DISCRETE[which](formulation)


def test_an_export_leaves_nothing_of_another(tmp_path):
    model = unet((8, 8), 1, [8], 1, [False], 4)
    sampler = sagd.Sampler("ddim", 10)
    export.save(str(tmp_path), model, DIFFUSION, NOISE, sampler, MOMENTS)  # a text is a folder, too
    assert (tmp_path / "model_index.json").is_file() and (tmp_path / "scheduler/scheduler_config.json").is_file()
    export.save(tmp_path, model, DIFFUSION, NOISE, sagd.Sampler("ddim", 10, start="marginal"), MOMENTS)
    assert not (tmp_path / "model_index.json").exists() and not (tmp_path / "scheduler/scheduler_config.json").exists()
    assert (tmp_path / "statistics.safetensors").is_file()
    export.save(tmp_path, model, DIFFUSION, NOISE, sampler, MOMENTS)
    assert not (tmp_path / "statistics.safetensors").exists()
    for data in (None, {}):
        with pytest.raises(sagd.InputError, match="data"):
            export.save(tmp_path, model, DIFFUSION, NOISE, sampler, data)


@pytest.mark.parametrize("step", [0, -1, 4])
def test_a_snapshot_is_of_a_step_of_the_training(step):
    with pytest.raises(
        sagd.InputError, match=rf"^an entry of snapshots is {step}; it must be a whole number from 1 to 3"
    ):
        trained(snapshots=[step])


def test_numbers_of_numpy_train_as_those_of_python():
    plain, theirs = trained(lr=0.01), trained(steps=np.int64(3), lr=np.float32(0.01).astype(np.float64))
    assert torch.equal(plain.losses, theirs.losses) or torch.allclose(plain.losses, theirs.losses, rtol=1e-4)
    trained(formulation=sagd.EDM(sigma_data=np.float32(0.5)))
    for formulation in (sagd.EDM(sigma_data=np.float32(0.5)), sagd.Flow(shift=np.float32(2))):
        assert json.loads(json.dumps(formulation.to_dict())) == formulation.to_dict()


@pytest.mark.parametrize("how", [{"alpha": 200}, {"alpha": 40, "dc": "floor"}])
def test_a_power_law_leaves_no_frequency_out(how):
    with pytest.raises(sagd.InputError, match="the weight over- or underflows"):
        sagd.power_law((64, 64), **how)


def test_colored_noise_with_numbers_of_numpy_is_written(tmp_path):
    noise = ColoredNoise((8, np.int64(8)), torch.tensor([-2.0, 2.0]), torch.rand(2, 7), np.float32(1.0))
    noise.save(tmp_path / "c.json")
    assert ColoredNoise.load(tmp_path / "c.json").strength == 1.0


def test_labels_of_a_calibration_are_a_tensor():
    with pytest.raises(sagd.InputError, match=r"^labels are a ndarray; for 2 images they must be a tensor \(2,\)"):
        calibrate(network, DIFFUSION, X, sagd.Sampler("ddim", 3), labels=np.zeros(2, dtype=np.int64))


@pytest.mark.parametrize("size", [10**6, 0, -3, 8.5])
def test_a_size_that_no_picture_is_brought_to_is_refused(size, tmp_path, two_folders):
    for call in (lambda: read("folder", two_folders[0], size), lambda: square(None, 1, size)):
        with pytest.raises(sagd.InputError, match=r"^size is"):
            call()


def test_paths_and_channels_of_a_folder(two_folders):
    assert read("folder", two_folders[0], 8, 1).shape[1:] == (1, 8, 8)  # a Path, too
    assert len(load(two_folders[0], 8)) == len(read("folder", str(two_folders[0]), 8))
    with pytest.raises(sagd.InputError, match=r"^channels is 2; it must be 1"):
        read("folder", two_folders[0], 8, 2)
    for call in (lambda: split(10, 3.5, 0), lambda: split(10, 3, -1)):
        with pytest.raises(sagd.InputError, match=r"^(held_out is 3\.5|seed is -1)"):
            call()


def test_arrays_of_images():
    floats = np.random.default_rng(0).random((4, 8, 8))
    assert Images(floats)[0:0].shape == (0, 1, 8, 8)
    with pytest.raises(sagd.InputError, match=r"^the array is masked"):
        Images(np.ma.masked_array(floats, floats > 0.5))


def test_a_set_is_read_as_often_as_is_told():
    """The first image is looked at alone only where the size of a block is to be found."""
    rows = []

    class Counted:
        def __len__(self):
            return 6

        def __getitem__(self, which):
            rows.append(which)
            return np.zeros((6, 1, 8, 8), dtype=np.uint8)[which]

    statistics(Counted(), block=3)
    assert rows == [slice(0, 3), slice(3, 6)] * 2


def test_classes_have_their_own_names():
    names = Pictures(["a", "b", "c"], None, "x", classes=[1_000_001, 1_000_002, 2.5]).class_names()
    assert names == ["2.5", "1000001", "1000002"]


def test_images_that_are_all_alike_have_no_exponent():
    with pytest.raises(sagd.InputError, match="all alike"):
        exponent(torch.zeros(8, 8, dtype=torch.float64))


def test_a_verdict_needs_the_error_at_zero():
    found = suggest(MOMENTS["mean"], MOMENTS["power"], DIFFUSION, sagd.Sampler("ddim", 3), alphas=[0.1])
    with pytest.raises(sagd.InputError, match=r"^alpha 0\.0 is none of the 1 that were tried"):
        verdict(found, found)

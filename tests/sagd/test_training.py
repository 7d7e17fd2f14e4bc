"""Training goes on after a kill to the same bits, and samples do not depend on what is drawn beside them."""

import errno
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import sagd
from sagd.errors import InputError
from sagd.formulations.base import Sampler
from sagd.formulations.diffusion import Diffusion
from sagd.networks import weights
from sagd.networks.unet import unet
from sagd.noise.corruption import Corruption
from sagd.noise.randomness import generator as stream
from sagd.runtime.files import read_tensors, write_tensors
from sagd.sampling import draw
from sagd.spaces.moments import statistics
from sagd.spaces.pixels import Pixels
from sagd.training import checkpoint as checkpoint_module
from sagd.training.batches import batch_indices, draw_batch
from sagd.training.loop import Interrupted, train
from sagd.training.recipe import OPTIMIZERS, Recipe

SCHEDULE = sagd.Schedule.linear()
DIFFUSION = Diffusion(SCHEDULE)
NOISE = sagd.power_law((8, 8), -0.3)
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
SOURCE = Pixels(IMAGES)
RECIPE = Recipe(steps=12, batch_size=8, lr=1e-3, warmup=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(make_unet, recipe=RECIPE, **options):
    return train(make_unet(), SOURCE, NOISE, DIFFUSION, recipe, seed=0, **options)


def assert_same(a, b):
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert torch.equal(a.losses, b.losses)


def test_loss_falls(make_unet):
    losses = run(make_unet, Recipe(steps=60, batch_size=8, lr=5e-3, warmup=5, betas=(0.9, 0.99))).losses
    assert losses[-15:].mean() < 0.8 * losses[:15].mean()


def test_a_compiled_network_trains_as_it_is(make_unet, monkeypatch):
    """With a compiler that changes nothing: kernels round in another way."""
    compiled = []
    make = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(1) or make(network, backend="eager"))
    monkeypatch.setenv("CXX", sys.executable)
    assert_same(run(make_unet, replace(RECIPE, compile=True)), run(make_unet))
    assert compiled == [1]
    monkeypatch.setenv("CXX", "no_such_compiler")
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        run(make_unet, replace(RECIPE, compile=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_and_resumed_run_ends_in_the_same_bits(make_unet, tmp_path, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer)
    whole = run(make_unet, recipe)
    file, steps = tmp_path / "run.safetensors", iter(range(100))
    with pytest.raises(Interrupted):
        run(make_unet, recipe, checkpoint=file, stop=lambda: next(steps) == 4)
    assert int(read_tensors(file)["step"]) == 5
    begun = []
    assert_same(run(make_unet, recipe, checkpoint=file, resumed=begun.append), whole)
    assert begun == [5]


def test_snapshots_are_the_averaged_weights_on_the_way(make_unet, tmp_path):
    """After step 4 those that a checkpoint of step 4 holds; and a run that was cut takes the rest as if it were not."""

    def taken(**options):
        found = {}
        keep = lambda step, kept: found.update({step: {k: w.clone() for k, w in kept.items()}})  # noqa: E731
        try:
            run(make_unet, snapshots=(4, 8), snapshot=keep, **options)
        except Interrupted:
            pass
        return found

    whole, steps = taken(), iter(range(100))
    assert list(whole) == [4, 8]
    cut = taken(checkpoint=tmp_path / "c", stop=lambda: next(steps) == 3)
    assert list(cut) == [4]
    saved = read_tensors(tmp_path / "c")
    assert all(torch.equal(saved[f"ema.{k}"], w) for k, w in whole[4].items())
    rest = taken(checkpoint=tmp_path / "c")
    assert list(rest) == [8]
    for step, kept in {**cut, **rest}.items():
        assert all(torch.equal(kept[k], w) for k, w in whole[step].items())


@pytest.mark.slow
def test_killed_process_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL in the middle of a real process, twice, at whatever step it is; then compare with a run left alone."""
    script = tmp_path / "run.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
import torch
from sagd import Schedule, power_law
from sagd.formulations.diffusion import Diffusion
from sagd.networks.unet import unet
from sagd.runtime.files import write_tensors
from sagd.spaces.pixels import Pixels
from sagd.training.loop import train
from sagd.training.recipe import OPTIMIZERS, Recipe

torch.set_num_threads(1)
images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
torch.manual_seed(0)
network = unet((8, 8), 1, [8, 8], 1, [False, False], 4)
folder = Path(sys.argv[1])
done = train(network, Pixels(images), power_law((8, 8), -0.3), Diffusion(Schedule.linear()),
             Recipe(30, 8, lr=1e-3, warmup=3), seed=0,
             checkpoint=folder / "checkpoint", checkpoint_seconds=0, report=lambda loss: print("step", flush=True),
             resumed=lambda step: print("resumed", flush=True))
write_tensors(folder / "weights", done.weights | {{"losses": done.losses}})
"""
    )

    def start(folder):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True)

    with start(tmp_path / "whole") as whole:
        whole.communicate()
    assert whole.returncode == 0

    resumed = []
    for steps in (7, 11, None):
        with start(tmp_path / "killed") as process:
            if steps is None:
                lines = process.communicate()[0].split()
            else:
                lines = [process.stdout.readline().strip() for _ in range(steps)]
                process.send_signal(signal.SIGKILL)
        assert (process.returncode == 0) if steps is None else (process.returncode == -signal.SIGKILL)
        resumed.append("resumed" in lines)
    assert resumed == [False, True, True]
    a, b = (read_tensors(tmp_path / name / "weights") for name in ("whole", "killed"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_checkpoint_may_be_named_by_text(make_unet, tmp_path):
    path = tmp_path / "run.safetensors"
    run(make_unet, replace(RECIPE, steps=2), checkpoint=str(path), checkpoint_seconds=0)
    assert path.exists()


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "uint16", "int64"])
def test_labels_of_every_whole_type_can_be_trained_on(kind):
    network = unet((8, 8), 1, [8, 8], 1, [False, False], 4, classes=3)
    labels = (torch.arange(40) % 3).numpy().astype(kind)
    train(network, Pixels(IMAGES, labels), NOISE, DIFFUSION, replace(RECIPE, steps=1), seed=0)
    assert Pixels(IMAGES, labels).classes == 3 and Pixels(IMAGES[:0], labels[:0]).classes == 0


def test_checkpoint_of_another_run_is_refused(make_unet, tmp_path):
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        run(make_unet, checkpoint=tmp_path / "c", stop=lambda: next(steps) == 2)
    with pytest.raises(sagd.InputError, match="another run"):
        run(make_unet, Recipe(steps=12, batch_size=8, lr=2e-3, warmup=3), checkpoint=tmp_path / "c")
    with pytest.raises(sagd.InputError, match="another run"):
        run(make_unet, corruption=Corruption(sagd.band_pass((8, 8), (0.4, 0.6))), checkpoint=tmp_path / "c")
    other = sagd.power_law((8, 8), -0.31)  # noise is told by its weights, whatever made them
    with pytest.raises(sagd.InputError, match="another run"):
        train(make_unet(), SOURCE, other, DIFFUSION, RECIPE, seed=0, checkpoint=tmp_path / "c")
    with pytest.raises(sagd.InputError, match="another run"):
        train(make_unet(), Pixels(255 - IMAGES), NOISE, DIFFUSION, RECIPE, seed=0, checkpoint=tmp_path / "c")
    same = sagd.Spectrum(NOISE.weight)
    steps = []
    train(make_unet(), SOURCE, same, DIFFUSION, RECIPE, seed=0, checkpoint=tmp_path / "c", resumed=steps.append)
    assert steps == [3]


@pytest.mark.parametrize("damage", ["cut", "flipped", "nothing"])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_begun_anew(make_unet, tmp_path, damage, capsys, monkeypatch):
    """It would stop the run for ever, or go on from other weights: safetensors has no sum of its own."""
    file, steps = tmp_path / "c", []
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    whole = run(make_unet)
    with pytest.raises(Interrupted):
        run(make_unet, checkpoint=file, stop=lambda: True)
    content = file.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    damaged = {"cut": content[:-9], "flipped": flipped, "nothing": b""}
    file.write_bytes(damaged[damage])
    found = run(make_unet, checkpoint=file, resumed=steps.append)
    assert steps == [] and all(torch.equal(found.weights[k], w) for k, w in whole.weights.items())
    said = capsys.readouterr().err.strip()
    aside = tmp_path / "scratch" / "damaged"
    assert "\n" not in said and str(file) in said and said.endswith(f"it is set aside in {aside}, and made again")
    assert (aside / f"{tmp_path.name}_c").read_bytes() == damaged[damage]


@pytest.mark.parametrize("what", ["text", "weights", "folder", "folder of files"])
def test_what_is_no_checkpoint_is_left_as_it_is_and_refused(make_unet, tmp_path, what, monkeypatch):
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    place = tmp_path / "mine"
    if what == "text":
        place.write_bytes(b"my only copy")
    elif what == "weights":
        write_tensors(place, {"weights": torch.ones(3), "step": torch.tensor(3)}, {"format": "pt"})
    else:
        place.mkdir()
        if what == "folder of files":
            (place / "a").write_bytes(b"1")
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")}
    with pytest.raises(sagd.InputError, match=r"^checkpoint is .*mine, which is ") as failure:
        run(make_unet, checkpoint=place)
    assert "\n" not in str(failure.value)
    assert {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")} == before


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(make_unet, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    steps = []
    with pytest.raises(sagd.InputError, match=r"^checkpoint is .*file/c, which cannot be written: .*file is no folder"):
        run(make_unet, checkpoint=tmp_path / "file" / "c", report=steps.append)
    assert steps == []


def test_damaged_checkpoints_of_one_name_are_all_kept(make_unet, tmp_path, monkeypatch):
    file = tmp_path / "c"
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path / "scratch"))
    with pytest.raises(Interrupted):
        run(make_unet, checkpoint=file, stop=lambda: True)
    whole, cut = file.read_bytes(), []
    for k in (1, 2, 3):
        file.write_bytes(whole[:-k])
        cut.append(whole[:-k])
        with pytest.raises(Interrupted):
            run(make_unet, checkpoint=file, stop=lambda: True)
    aside = tmp_path / "scratch" / "damaged"
    assert [(aside / f"{tmp_path.name}_c{end}").read_bytes() for end in ("", ".1", ".2")] == cut


def test_a_checkpoint_that_has_no_sum_yet_goes_on(make_unet, tmp_path):
    """sagd 0.1 wrote none."""
    file, steps = tmp_path / "c", []
    with pytest.raises(Interrupted):
        run(make_unet, checkpoint=file, stop=lambda: len(steps) == 0)
    with safe_open(file, "pt") as saved:
        tensors, described = {name: saved.get_tensor(name) for name in saved.keys()}, saved.metadata()["run"]
    write_tensors(file, tensors, {"run": described})
    run(make_unet, checkpoint=file, resumed=steps.append)
    assert len(steps) == 1


def test_a_checkpoint_that_this_machine_cannot_read_is_left_where_it_is(make_unet, tmp_path, monkeypatch):
    """It may be whole: too many open files, a disk that fails."""
    file = tmp_path / "c"
    with pytest.raises(Interrupted):
        run(make_unet, checkpoint=file, stop=lambda: True)

    def failing(path):
        raise sagd.InputError(f"cannot read {path}") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint_module, "read_tensors", failing)
    with pytest.raises(sagd.InputError, match="cannot read"):
        run(make_unet, checkpoint=file)
    assert file.exists()


def test_diverged_run_does_not_replace_a_good_checkpoint(make_unet, tmp_path):
    steps = iter(range(100))
    recipe = Recipe(steps=40, batch_size=8, lr=1e-3, warmup=3)
    with pytest.raises(Interrupted):
        run(make_unet, recipe, checkpoint=tmp_path / "c", stop=lambda: next(steps) == 2)
    good = (tmp_path / "c").read_bytes()

    def poisoned():
        network = make_unet()
        network.register_forward_hook(lambda *_: _[2] * float("nan"))
        return network

    with pytest.raises(sagd.InputError, match="not finite from step 3 on"):
        run(poisoned, recipe, checkpoint=tmp_path / "c", checkpoint_seconds=0)
    assert (tmp_path / "c").read_bytes() == good


def test_full_disk_keeps_what_was_there(tmp_path):
    """A limit on file size stands for the full disk: the write fails half way, and what was there stays."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from sagd.errors import InputError
from sagd.runtime.files import write_bytes
write_bytes("{tmp_path}/c", b"good")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes("{tmp_path}/c", b"x" * 5000)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"cannot write {tmp_path}/c" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / "c").read_bytes() == b"good"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_loss_that_is_not_finite_is_told(make_unet):
    with pytest.raises(sagd.InputError, match="learning rate is"):
        run(make_unet, Recipe(steps=40, batch_size=8, lr=1e30, warmup=0))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"precision": "fp16"}, "auto, fp32, bf16"), ({"decay": "constant"}, "cosine, linear"),
     ({"optimizer": "sgd"}, "adamw, muon"), ({"batch_size": 0}, "batch_size is 0; it must be a whole")],
)  # fmt: skip
def test_a_recipe_that_means_nothing_is_refused(changes, says):
    with pytest.raises(sagd.InputError, match=says):
        Recipe(**{"steps": 1, "batch_size": 8} | changes)


def test_batch_larger_than_the_data_is_refused(make_unet):
    with pytest.raises(sagd.InputError, match=r"batch_size is 41; the data set has 40"):
        run(make_unet, Recipe(steps=1, batch_size=41))


def test_each_epoch_sees_every_image_once():
    for epoch in (0, 1):
        seen = torch.cat([batch_indices(40, 8, seed=5, step=5 * epoch + k) for k in range(5)])
        assert sorted(seen.tolist()) == list(range(40))
    assert not torch.equal(batch_indices(40, 8, 5, 0), batch_indices(40, 8, 5, 5))


def test_timesteps_are_uniform_and_corruption_is_drawn_anew():
    t = torch.cat([draw_batch(SOURCE, DIFFUSION, NOISE, None, RECIPE, 0, step).t for step in range(2000)])
    counts = torch.histc(t.float(), 10, 0, 1000)
    assert t.min() >= 0
    assert t.max() <= 999
    assert (counts / len(t) - 0.1).abs().max() < 0.01
    band = sagd.band_pass((8, 8), (0.4, 0.6))
    draws = [draw_batch(SOURCE, DIFFUSION, NOISE, Corruption(band, 2.0), RECIPE, 0, step).x0 for step in (0, 5)]
    clean = draw_batch(SOURCE, DIFFUSION, NOISE, None, RECIPE, 0, 0).x0
    added = draws[0] - clean
    torch.testing.assert_close(added, band.project(added), atol=1e-5, rtol=0)
    assert 1.5 < added.std() < 2.5


@pytest.mark.parametrize("schedule", [SCHEDULE, sagd.Schedule.zero_terminal_snr()], ids=["linear", "zero_terminal"])
def test_log_normal_times_have_the_noise_levels_of_edm(schedule):
    """ln (sigma_t / sqrt(alpha_bar_t)) has the mean and the deviation of Karras et al., as far as steps reach."""
    t = Diffusion(schedule, "v", "log_normal").draw_times(40_000, generator=torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < len(schedule)
    levels = 0.5 * ((1 - schedule.alpha_bar) / schedule.alpha_bar).log()[t]
    assert levels.mean().item() == pytest.approx(-1.2, abs=0.05)
    assert levels.std().item() == pytest.approx(1.2, abs=0.05)
    with pytest.raises(InputError, match="times is 'often'"):
        Diffusion(schedule, "v", "often")


def test_streams_do_not_collide():
    seeds = {stream(0, "sample", k).initial_seed() for k in range(1000)} | {stream(1, "sample", 0).initial_seed()}
    assert len(seeds) == 1001


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("start", ["noise", "marginal"])
def test_a_sample_does_not_depend_on_the_batch_or_the_count(make_unet, start, eta):
    network = make_unet().eval().requires_grad_(False)
    data = statistics(IMAGES.numpy())

    def sample(n, batch_size):
        sampler = Sampler(steps=5, start=start, eta=eta, clip=True)
        return draw(network, DIFFUSION, NOISE, sampler, data, n=n, seed=0, batch_size=batch_size)

    reference = sample(8, 4)
    assert torch.equal(sample(6, 4), reference[:6])  # another count, in batches of one size: the same bits
    torch.testing.assert_close(sample(8, 3), reference, atol=1e-4, rtol=1e-4)  # another size: but for rounding
    assert not torch.allclose(reference[0], reference[1], atol=0.1)


def test_weights_are_read_by_diffusers_without_pickle(make_unet, tmp_path):
    from diffusers import UNet2DModel

    network = make_unet().eval()
    weights.save(tmp_path / "m", network)
    x, t = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([5, 900])
    for again in (weights.load(tmp_path / "m"), UNet2DModel.from_pretrained(tmp_path / "m", use_safetensors=True)):
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in again.state_dict().items())
        torch.testing.assert_close(weights.predictor(again)(x, t), network(x, t))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [weights.CONFIG, weights.WEIGHTS]


def test_killed_parent_takes_the_trainer_along(tmp_path):
    """A killed dvc must not leave a trainer running beside the next one."""
    if sys.platform != "linux":
        pytest.fail("the stages ask Linux's kernel; another system needs its own way")
    child = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r});"
        "from pipeline.run.console import _die_with_parent; _die_with_parent();"
        "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline, f"process {pid} outlives its parent"
        time.sleep(0.05)

"""Latents: written once, in shards, whatever is cut; read back normalised; decoded; and what a DiT makes of them."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sagd
from sagd.formulations.base import EMBEDDED, Sampler
from sagd.formulations.flow import Flow
from sagd.networks import weights
from sagd.networks.dit import dit
from sagd.noise.corruption import Corruption
from sagd.runtime.distributed import World
from sagd.runtime.files import write_tensors
from sagd.sampling import draw, draw_batches
from sagd.spaces import autoencoder as autoencoders
from sagd.spaces import latents
from sagd.spaces.autoencoder import Autoencoder
from sagd.spaces.latents import Latents, normalization
from sagd.spaces.pixels import Encoded, Pixels
from sagd.training.batches import draw_batch
from sagd.training.loop import train
from sagd.training.recipe import Recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(50) % 5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from a second thread, and wait for it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory):
    """One scratch folder for the module: random autoencoders are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGD_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        yield


@pytest.fixture(scope="module", params=autoencoders.KINDS)
def autoencoder(request):
    return Autoencoder(request.param, "random", size=8)


def encode(autoencoder, place, **options):
    options = {"source": "test", "per_shard": 16, "batch_size": 7} | options
    return latents.encode(IMAGES, LABELS, autoencoder, place, **options)


def direct(autoencoder, rows, flip=None):
    x = torch.from_numpy(IMAGES[rows]).float() / 127.5 - 1
    if flip is not None:
        x[flip] = x[flip].flip(-1)
    return autoencoder.encode(x)


def test_shards_hold_what_the_autoencoder_gives(autoencoder, tmp_path):
    manifest = encode(autoencoder, tmp_path, flips=True)
    assert [s["count"] for s in manifest["shards"]] == [16, 16, 16, 2]
    source = Latents(tmp_path)
    assert len(source) == 50
    assert source.labels.tolist() == LABELS.tolist()
    rows, flip = torch.tensor([3, 49, 17, 16]), torch.tensor([True, False, True, False])
    mean, std = normalization(tmp_path)
    wanted = (direct(autoencoder, rows, flip) - mean) / std
    torch.testing.assert_close(source.to_x0(source.read(rows, flip)), wanted, atol=1e-2, rtol=1e-2)
    everything = torch.cat([source.to_x0(source.read(torch.arange(50), torch.full((50,), f))) for f in (False, True)])
    assert everything.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(everything.var(0, correction=0), torch.ones(source.shape), atol=2e-2, rtol=0)


def test_statistics_do_not_depend_on_shards(autoencoder, tmp_path):
    for per_shard in (7, 50):
        encode(autoencoder, tmp_path / str(per_shard), per_shard=per_shard)
    for a, b in zip(*(normalization(tmp_path / n) for n in ("7", "50")), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    power = latents.statistics(tmp_path / "7")["power"]
    assert power.mean().item() == pytest.approx(1, abs=0.1)  # Parseval: unit variance of every element


def test_encoding_goes_on_at_the_shard_that_was_cut(autoencoder, tmp_path):
    encode(autoencoder, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("manifest.json", "normalization.safetensors", "shard_00002.json", "shard_00003.safetensors"):
        (tmp_path / "cut" / name).unlink()
    (tmp_path / "cut" / "shard_00003.json").unlink()
    (tmp_path / "cut" / "shard_00002.safetensors").write_bytes(b"half")
    before = (tmp_path / "cut" / "shard_00001.safetensors").stat().st_mtime_ns
    kept, done = [], []
    encode(autoencoder, tmp_path / "cut", resumed=kept.append, report=done.append)
    assert (kept, done) == ([32], [16, 2])
    assert (tmp_path / "cut" / "shard_00001.safetensors").stat().st_mtime_ns == before
    encode(autoencoder, tmp_path / "cut", resumed=kept.append, report=done.append)
    assert (kept, done) == ([32, 50], [16, 2])  # the second time all is there
    for file in (tmp_path / "whole").glob("*.*"):  # all but the lock, and the times in what is noted of a shard
        if file.suffix == ".json" and file.stem != "manifest":
            continue
        assert (tmp_path / "cut" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_refused_and_made_anew(autoencoder, tmp_path, damage, capsys):
    encode(autoencoder, tmp_path)
    shard = tmp_path / "shard_00001.safetensors"
    content = shard.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(flipped if damage == "flipped" else content[:middle])
    with pytest.raises(
        sagd.InputError, match=r"shard_00001\.safetensors is not as it was written; rerun the stage encode"
    ):
        Latents(tmp_path)
    done = []
    encode(autoencoder, tmp_path, report=done.append)
    assert done == [16] and shard.read_bytes() == content
    assert len(Latents(tmp_path)) == 50
    assert "shard_00001.safetensors is not as it was written; it is set aside" in capsys.readouterr().err


def test_a_damaged_note_of_a_shard_is_made_anew_with_it(autoencoder, tmp_path):
    encode(autoencoder, tmp_path)
    note, done = tmp_path / "shard_00001.json", []
    note.write_bytes(note.read_bytes().replace(b"sha256", b"sha257"))
    encode(autoencoder, tmp_path, report=done.append)
    assert done == [16] and b"sha256" in note.read_bytes()


def test_a_shard_that_was_copied_is_read_once_and_taken(autoencoder, tmp_path):
    """Another time of change is no damage: the sum tells."""
    encode(autoencoder, tmp_path)
    os.utime(tmp_path / "shard_00001.safetensors", (1, 1))
    assert len(Latents(tmp_path)) == 50


def test_latents_are_read_without_the_right_to_write(autoencoder, tmp_path, monkeypatch):
    encode(autoencoder, tmp_path)
    os.utime(tmp_path / "shard_00001.safetensors", (1, 1))

    def refuse(*_, **__):  # as Linux does on such a disk, to remove what is not there, too
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert len(Latents(tmp_path)) == 50


def test_a_full_disk_is_told_before_anything_is_encoded(autoencoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(sagd.InputError, match="or encode during training"):
        encode(autoencoder, tmp_path)
    assert "still to be written" in capsys.readouterr().err
    assert not list(tmp_path.glob("shard*"))


def test_the_manifest_says_what_was_encoded(autoencoder, tmp_path):
    from sagd.runtime.download import digest

    encode(autoencoder, tmp_path, dtype=torch.bfloat16)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["dtype"] == "bfloat16"
    assert manifest["autoencoder"] == autoencoder.sha256
    assert all(digest(tmp_path / s["name"]) == s["sha256"] for s in manifest["shards"])


def test_an_autoencoder_is_read_as_diffusers_writes_it(autoencoder, tmp_path):
    autoencoder.network.save_pretrained(tmp_path, safe_serialization=True)
    again = Autoencoder(autoencoder.kind, str(tmp_path))
    assert again.sha256 == autoencoder.sha256
    assert torch.equal(direct(again, [0, 1]), direct(autoencoder, [0, 1]))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(sagd.InputError, match="holds no Autoencoder"):
        Autoencoder(autoencoder.kind, str(tmp_path))


def test_an_autoencoder_of_the_other_kind_is_refused(autoencoder, tmp_path):
    autoencoder.network.save_pretrained(tmp_path, safe_serialization=True)
    other = {"rae": "vae", "vae": "rae"}[autoencoder.kind]
    with pytest.raises(sagd.InputError, match=r"holds no Autoencoder.*its config.json is of Autoencoder"):
        Autoencoder(other, str(tmp_path))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)], ids=["grey", "larger"])
def test_images_that_are_not_the_autoencoders_are_refused(shape, tmp_path):
    rae, images = Autoencoder("rae", "random", size=8), np.zeros((4, *shape), np.uint8)
    says = r"decodes latents to images of \(3, 8, 8\), the data are " + str(shape).replace("(", r"\(").replace(
        ")", r"\)"
    )
    with pytest.raises(sagd.InputError, match=says):
        latents.encode(images, None, rae, tmp_path, source="test")
    with pytest.raises(sagd.InputError, match=says):
        latents.probe(images, rae)
    assert not list(tmp_path.iterdir())


def test_weights_that_have_changed_since_are_refused(autoencoder, tmp_path):
    autoencoder.network.save_pretrained(tmp_path, safe_serialization=True)
    manifest = {"kind": autoencoder.kind, "autoencoder": str(tmp_path), "size": 8}
    manifest["autoencoder_sha256"] = autoencoder.sha256
    assert Autoencoder.recorded(manifest, "cpu").sha256 == autoencoder.sha256
    manifest["autoencoder_sha256"] = "0" * 64
    with pytest.raises(sagd.InputError, match="is not the autoencoder that encoded"):
        Autoencoder.recorded(manifest, "cpu")


def test_a_random_autoencoder_is_whole_or_absent(monkeypatch, tmp_path):
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path))
    (tmp_path / "random" / "vae_8").mkdir(parents=True)  # as a process left it that was killed
    first = Autoencoder("vae", "random", size=8)
    assert Autoencoder("vae", "random", size=8).sha256 == first.sha256
    assert [p.name for p in (tmp_path / "random").iterdir()] == ["vae_8"]


def test_encoding_in_parts_of_a_batch_is_encoding_it(autoencoder, tmp_path):
    encode(autoencoder, tmp_path)
    given, encoder = [], latents.encoder(autoencoder, tmp_path)
    source = Encoded(Pixels(IMAGES), lambda x: given.append(len(x)) or encoder(x), Latents(tmp_path).shape)
    noise = sagd.isotropic(source.shape[1:])
    a, b = (draw_batch(source, Flow(), noise, None, Recipe(1, 8, micro_batch_size=k), 0, 0) for k in (None, 3))
    torch.testing.assert_close(a.x0, b.x0, atol=1e-4, rtol=1e-4)
    assert given == [8, 3, 3, 2]


def test_latents_on_the_fly_are_those_that_are_stored(autoencoder, tmp_path):
    encode(autoencoder, tmp_path)
    stored, recipe = Latents(tmp_path), Recipe(1, 8)
    fresh = Encoded(Pixels(IMAGES, LABELS), latents.encoder(autoencoder, tmp_path), stored.shape)
    noise = sagd.power_law(stored.shape[1:], -0.04)
    a, b = (draw_batch(s, Flow(), noise, None, recipe, 0, 0, classes=5) for s in (stored, fresh))
    torch.testing.assert_close(a.x0, b.x0, atol=1e-2, rtol=1e-2)
    assert torch.equal(a.eps, b.eps)
    assert torch.equal(a.labels, b.labels)


def test_few_latents_stand_for_all_in_the_order_of_classes(autoencoder):
    """Dark images first, bright ones after: what is taken of them is of both."""
    images = np.repeat(np.linspace(0, 255, 60).astype(np.uint8), 3 * 8 * 8).reshape(60, 3, 8, 8)
    (whole, _), (few, data) = (latents.probe(images, autoencoder, batch_size=7, count=n) for n in (60, 20))
    spread = whole["variance"].sqrt() + 1e-3
    assert ((few["mean"] - whole["mean"]) / spread).abs().median() < 0.15
    assert data["power"].shape == few["mean"].shape


@pytest.mark.parametrize("filtered", [False, True])
def test_the_statistics_of_latents_on_the_fly_are_those_of_what_is_trained_on(autoencoder, tmp_path, filtered):
    """With noise in a band of the images, or without the band: batches of training have mean 0 and variance 1."""
    corruption = Corruption(sagd.band_pass((8, 8), (0.2, 1.0)), 2.0, filtered)
    normal, data = latents.probe(IMAGES, autoencoder, corruption=corruption)
    write_tensors(tmp_path / "normalization.safetensors", normal)
    source = Encoded(Pixels(IMAGES), latents.encoder(autoencoder, tmp_path), data["mean"].shape)
    noise, n = sagd.isotropic(source.shape[1:]), len(IMAGES)
    steps = range(1 if filtered else 40)  # each sees all images
    x0 = torch.cat([draw_batch(source, Flow(), noise, corruption, Recipe(40, n), 0, step).x0 for step in steps])
    power = torch.fft.fft2(x0.double(), norm="ortho").abs().square().mean(0)
    assert power.mean().item() == pytest.approx(data["power"].mean().item(), rel=1e-3 if filtered else 0.2)
    assert x0.mean(0).abs().mean() < (1e-3 if filtered else 0.2)
    clean, _ = latents.probe(IMAGES, autoencoder)
    assert (normal["variance"] / clean["variance"]).log().abs().mean() > 0.1  # it matters
    again, _ = latents.probe(IMAGES, autoencoder, batch_size=3, corruption=corruption)
    torch.testing.assert_close(again, normal, rtol=1e-3, atol=1e-5)  # the noise is the same


def test_a_dit_learns_latents_and_its_samples_are_decoded(autoencoder, tmp_path):
    encode(autoencoder, tmp_path)
    source = Latents(tmp_path)
    channels, *size = source.shape
    torch.manual_seed(0)
    network = dit(tuple(size), channels, 5, patch=1, widths=[32, 64], depths=[1, 1], heads=[2, 2])
    noise = sagd.power_law(tuple(size), -0.04)
    done = train(network, source, noise, Flow(shift=2.0), Recipe(80, 10, lr=3e-3, warmup=5, ema=0.9), seed=0)
    assert done.losses[-15:].mean() < 0.9 * done.losses[:15].mean()
    weights.save(tmp_path / "network", network, done.weights)
    again = weights.load(tmp_path / "network")
    data = latents.statistics(tmp_path)
    batches = draw_batches(
        again, Flow(shift=2.0), noise, Sampler("heun", 4), data, range(0, 7, 3),
        n=7, batch_size=3, seed=0, decode=latents.decoder(autoencoder, tmp_path),
    )  # fmt: skip
    images = torch.cat(list(batches))
    assert images.shape == (7, 3, 8, 8)
    assert images.isfinite().all()


@pytest.mark.slow
def test_dit_dh_s_takes_a_step():
    """RAE's DiT^DH-S at its true widths, but with fewer blocks: one forward and backward pass of one latent."""
    torch.manual_seed(0)
    network = dit((16, 16), 768, 1000, patch=1, widths=[384, 2048], depths=[2, 1], heads=[6, 16])
    spectrum, source = sagd.power_law((16, 16), -0.04), torch.Generator().manual_seed(0)
    x0 = torch.randn((1, 768, 16, 16), generator=source)
    eps = spectrum.sample(x0.shape, generator=source)
    loss = Flow().loss(weights.predictor(network, torch.tensor([7])), spectrum, x0, torch.tensor([0.4]), eps)
    loss.backward()
    # adaLN-Zero: nothing comes out at first, so the loss is that of predicting 0, and only the last layer learns.
    assert loss.item() == pytest.approx((eps - x0).square().mean().item(), rel=1e-5)
    assert network.out.weight.grad.abs().max() > 0


def test_a_dit_hears_time_and_label():
    torch.manual_seed(0)
    network = dit((4, 4), 2, 3, patch=2, widths=[16, 32], depths=[2, 1], heads=[2, 2]).eval()
    for p in network.parameters():
        if p.requires_grad and not p.abs().max() > 0:
            torch.nn.init.normal_(p, std=0.1)
    x = torch.randn((1, 2, 4, 4), generator=torch.Generator().manual_seed(0))

    def out(t, label):
        labels = None if label is None else torch.tensor([label])
        return network(x, torch.tensor([EMBEDDED * t]), labels)

    assert not torch.allclose(out(0.2, 0), out(0.7, 0), atol=1e-3)
    assert not torch.allclose(out(0.2, 0), out(0.2, 1), atol=1e-4)
    assert torch.equal(out(0.2, None), out(0.2, 3))


def test_labels_are_hidden_as_often_as_asked():
    source, recipe = Pixels(IMAGES, LABELS), Recipe(1, 50, label_dropout=0.3)
    noise = sagd.isotropic((8, 8))
    seen = torch.cat([draw_batch(source, Flow(), noise, None, recipe, 0, k, classes=5).labels for k in range(40)])
    assert (seen == 5).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_samples_have_equal_label_counts():
    network = dit((8, 8), 3, 5, patch=4, widths=[16, 32], depths=[1, 1], heads=[2, 2])
    seen = []
    network.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["class_labels"]), with_kwargs=True)
    data = {"mean": torch.zeros(3, 8, 8), "power": torch.ones(3, 8, 8)}
    draw(network, Flow(), sagd.isotropic((8, 8)), Sampler("euler", 1), data, n=20, batch_size=4, seed=0)
    assert torch.bincount(torch.cat(seen)).tolist() == [4] * 5


@pytest.mark.parametrize(
    ("labels", "says"), [(None, "the data set has none"), (np.arange(50), "labels up to 49")], ids=["none", "too many"]
)
def test_labels_that_do_not_fit_are_refused(labels, says):
    network = dit((8, 8), 3, 5, patch=2, widths=[16, 32], depths=[1, 1], heads=[2, 2])
    with pytest.raises(sagd.InputError, match=says):
        train(network, Pixels(IMAGES, labels), sagd.isotropic((8, 8)), Flow(), Recipe(1, 4), seed=0, world=World())

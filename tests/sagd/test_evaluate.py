"""`sagd evaluate` gives the peers' numbers, under honest names."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sagd.cli import main
from sagd.images import Images
from sagd.metrics.extractors import EXTRACTORS, extractor
from sagd.metrics.features import features
from sagd.metrics.frechet import Moments
from tests.networks import on_these_weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command line in this process; gives its answer."""

    def run(*arguments):
        main(["evaluate", *map(str, arguments), "--cache", str(tmp_path / "cache")])
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def random_inception(inception_folder, monkeypatch):
    for name in ("inception_2048", "inception_768"):
        of = on_these_weights(name, inception_folder / EXTRACTORS[name].weights.file)
        monkeypatch.setitem(EXTRACTORS._entries(), name, of)


def test_fid_and_kid_are_clean_fids(run, random_inception, two_folders, inception_folder, monkeypatch):
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(inception_folder), download=False)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda *_, **__: network)
    choice = {"mode": "clean", "device": "cpu", "num_workers": 0, "verbose": False}
    folders = tuple(map(str, two_folders))
    found = run(*folders, "--features", "inception_2048")
    assert found["fid_inception_2048"] == pytest.approx(fid.compute_fid(*folders, **choice), rel=1e-5)
    # clean-fid's subsets are all 14 of each: the same pairs.
    assert found["kid_inception_2048"] == pytest.approx(fid.compute_kid(*folders, **choice), rel=1e-4)


def test_fid_is_pytorch_fids(run, random_inception, two_folders, inception_folder, monkeypatch):
    from pytorch_fid import inception
    from pytorch_fid.fid_score import calculate_fid_given_paths

    file = inception_folder / EXTRACTORS["inception_768"].weights.file
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch.load(file, weights_only=True))
    theirs = calculate_fid_given_paths(list(map(str, two_folders)), 7, "cpu", 768, 0)
    found = run(*two_folders, "--features", "inception_768", "--metrics", "fid")
    assert found["fid_inception_768"] == pytest.approx(theirs, rel=1e-5)
    assert found["generated"] == {"path": str(two_folders[0]), "images": 14}
    assert any("14 samples" in text and "768 features" in text for text in found["caveats"])


def test_adms_reference_batches_give_the_moments(run, two_folders, tmp_path):
    """``mu`` and ``sigma`` make the Fréchet distance, ``arr_0`` the others."""
    choice = ("--features", "efficientnet_lite0", "--metrics")
    places = {"cache": tmp_path / "cache" / "features", "weights": tmp_path}
    whole = run(*two_folders, *choice, "fid,kid,prdc")
    images = Images(two_folders[1])
    moments = Moments.of(features(images, extractor("efficientnet_lite0"), **places))
    batch = {"mu": moments.mean, "sigma": moments.covariance}
    np.savez(tmp_path / "batch.npz", arr_0=images[0:14].transpose(0, 2, 3, 1), **batch)
    np.savez(tmp_path / "moments.npz", **batch)
    found = run(two_folders[0], tmp_path / "batch.npz", *choice, "fid,kid,prdc")
    assert found["reference"] == {"path": f"{tmp_path}/batch.npz", "images": 14, "moments": "given"}
    assert any("moments of the reference were given" in text for text in found["caveats"])
    for name, value in whole.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-6), name
    alone = run(two_folders[0], tmp_path / "moments.npz", *choice, "fid")
    assert alone["fd_efficientnet_lite0"] == pytest.approx(whole["fd_efficientnet_lite0"], rel=1e-6)
    assert alone["reference"]["images"] is None
    with pytest.raises(SystemExit, match=r"moments\.npz holds mu, sigma; name one array of images"):
        run(two_folders[0], tmp_path / "moments.npz", *choice, "kid")
    with pytest.raises(SystemExit, match="--kid-subsets is for the metric kid, which --metrics leaves out"):
        run(*two_folders, *choice, "fid", "--kid-subsets", "2,5")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{a}", "{b}", "--features", "inception"], "extractor is 'inception'; allowed: "),
        (["{a}", "{b}", "--metrics", "fid,is"], "metric is 'is'; allowed: fid, fid_infinity, kid, prdc"),
        (["{a}", "/nowhere"], "/nowhere is neither a folder nor a whole zip file"),
        (["{a}", "/nowhere.npz"], "cannot read /nowhere.npz"),
        (["{a}", "{b}", "--metrics", ""], "--metrics is empty; allowed: fid, fid_infinity, kid, prdc"),
        (
            ["{a}", "{b}", "--kid-subsets", "100,1000"],
            "100 subsets of 1000, from 14 and 14 images; allowed: 2 or more, of 3 to 14",
        ),
        (["{a}", "{b}", "--kid-subsets", "many"], "--kid-subsets is 'many'; it must be COUNT,SIZE"),
        (["{a}", "{b}", "--bootstrap", "1"], r"--bootstrap is 1; it must be 0 \(none\), or 2 or more"),
        (["{a}", "{b}", "--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["{a}", "{b}", "--metrics", "/nowhere/mine.py:d"], "metric is '/nowhere/mine.py:d'; there is no file"),
        (["{a}", "{b}", "--cache", "/dev/null"], "cannot write /dev/null/features/.*: Not a directory$"),
        (["{a}", "{b}", "--device", "cuda"], "CUDA is not available; use --device cpu"),
    ],
)
def test_bad_input_ends_in_one_line(two_folders, tmp_path, monkeypatch, arguments, says):
    monkeypatch.setenv("SAGD_SCRATCH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=f"^sagd evaluate: {says}") as exit:
        main(["evaluate", *(a.format(a=two_folders[0], b=two_folders[1]) for a in arguments)])
    assert "\n" not in str(exit.value)


def test_a_process_with_bad_input_fails_without_a_traceback():
    command = [sys.executable, "-m", "sagd", "evaluate", "a", "b", "--features", "inception"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("sagd evaluate: extractor is 'inception'; allowed: ")


def test_a_killed_command_is_taken_up(tmp_path):
    """SIGKILL to the real thing while it computes features: what was computed is used, and the answer is the same."""
    for name, count in (("a", 180), ("b", 6)):  # features are kept for 128 at a time
        np.save(tmp_path / f"{name}.npy", RNG.integers(0, 256, (count, 16, 16), dtype=np.uint8))
    command = [sys.executable, "-m", "sagd", "evaluate", "a.npy", "b.npy", "--metrics", "fid", "--bootstrap", "0"]

    def start(cache):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path / cache)}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    begun = start("killed")
    while not (parts := list((tmp_path / "killed" / "features").glob("*/*.sha256"))):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.01)
    begun.kill()
    begun.communicate()
    assert parts and not list((tmp_path / "killed" / "features").glob("*.npy"))
    answers = [json.loads(start(cache).communicate()[0]) for cache in ("killed", "whole")]
    assert answers[0] == answers[1]
    files = [sorted((tmp_path / cache / "features").glob("*.npy")) for cache in ("killed", "whole")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


def test_sets_that_are_the_same_and_repeats_are_told(run, two_folders, tmp_path):
    """Whatever the order, and however often: the numbers look like those of a perfect model."""
    images = Images(two_folders[0])[0:14]
    np.save(tmp_path / "turned.npy", images[::-1].transpose(0, 2, 3, 1))
    np.save(tmp_path / "one.npy", np.repeat(images[:1], 9, 0).transpose(0, 2, 3, 1))
    found = run(tmp_path / "turned.npy", two_folders[0], "--metrics", "fid,kid")
    assert 0 <= found["fd_efficientnet_lite0"] < 1e-6 and found["kd_efficientnet_lite0"] < 0
    assert any(text.startswith("generated and reference are the same 14 images") for text in found["caveats"])
    told = run(tmp_path / "one.npy", two_folders[1], "--metrics", "kid")["caveats"]
    assert told == ["8 of the 9 generated images repeat others of them"]


def test_a_metric_of_ones_own_stands_beside_the_others(run, two_folders, tmp_path):
    """Features go in, a number comes out, under the name of the function and of the network."""
    (tmp_path / "mine.py").write_text("def shift(generated, reference): return generated.mean() - reference.mean()")
    found = run(*two_folders, "--metrics", f"prdc,{tmp_path}/mine.py:shift")
    places = {"cache": tmp_path / "cache" / "features", "weights": tmp_path}
    a, b = (features(Images(f), extractor("efficientnet_lite0"), **places) for f in two_folders)
    assert found["shift_efficientnet_lite0"] == pytest.approx(a.mean() - b.mean(), rel=1e-6)
    assert "precision_efficientnet_lite0" in found and found["caveats"] == []

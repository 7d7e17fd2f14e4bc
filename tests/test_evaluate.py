"""The command line gives the peers' numbers, and those of the pipeline's stage, under honest names."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sagd import InputError
from sagd.evaluate import METRICS, main, measure
from sagd.extractors import EXTRACTORS, extractor, features
from sagd.images import Images
from sagd.metrics import Moments
from tests.networks import on_these_weights

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command line in this process; gives its answer."""

    def run(*arguments):
        main([*map(str, arguments), "--cache", str(tmp_path / "cache")])
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def random_inception(inception_folder, monkeypatch):
    for name in ("inception_2048", "inception_768"):
        of = on_these_weights(name, inception_folder / EXTRACTORS[name].weights.file)
        monkeypatch.setitem(EXTRACTORS, name, of)


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


def test_every_number_is_seeded():
    of, (a, b) = extractor("efficientnet_lite0"), RNG.random((2, 30, 8))
    draws = [measure(a, b, of, METRICS, seed=s, replicates=3, kid_subsets=(3, 20)) for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    drawn = {k for k in draws[0] if draws[0][k] != draws[2][k]}
    assert {k.replace("_efficientnet_lite0", "") for k in drawn} == {
        "fd_sample_se", "fd_of_halves", "fd_infinity", "fd_infinity_fit_se", "kd", "kd_subset_se", "kd_of_halves",
    }  # fmt: skip


def test_the_stage_and_the_command_line_give_the_same_answer(tmp_path, capsys):
    """A setting's samples through `pipeline.evaluate`, then seed by seed through the command line."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    prepared, drawn = tmp_path / "artifacts" / "prepare", tmp_path / "artifacts" / "sample"
    for folder in (prepared, drawn, tmp_path / "artifacts" / "train", tmp_path / "artifacts" / "corrupt"):
        folder.mkdir(parents=True)
    pictures = RNG.integers(0, 256, (70, 1, 16, 16), dtype=np.uint8)
    np.save(prepared / "train.npy", pictures[:40])
    np.save(prepared / "held_out.npy", pictures[40:60])
    names = [f"seed_{seed}{end}" for seed in (0, 1) for end in ("", "_step_3")]
    arrays = {name: RNG.integers(k, 200, (12, 1, 16, 16), dtype=np.uint8) for k, name in enumerate(names)}
    np.savez_compressed(drawn / "samples.npz", **arrays)
    run = {"checkpoints": [3, 6], "images_per_second": 1.0, "device": "none"}
    (tmp_path / "artifacts" / "train" / "run.json").write_text(json.dumps(run))
    (tmp_path / "artifacts" / "corrupt" / "corruption.json").write_text('{"spectrum": null, "gamma": 1.0}')
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path / "scratch")}
    command = [sys.executable, "-m", "pipeline.evaluate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    detail = json.loads((tmp_path / "reports" / "evaluate.seeds.json").read_text())
    summary = json.loads((tmp_path / "reports" / "evaluate.json").read_text())
    for seed in (0, 1):
        main(
            [
                f"{drawn}/samples.npz:seed_{seed}", f"{prepared}/held_out.npy", "--features", "efficientnet_lite0",
                "--metrics", "fid,kid,prdc", "--seed", str(seed), "--bootstrap", "50",
                "--cache", str(tmp_path / "scratch"),
            ]
        )  # fmt: skip
        found = json.loads(capsys.readouterr().out)
        same = [name for name in detail["per_seed"] if name in found]
        assert len(same) == 10  # fd and kd, each with its error and floor, and four of prdc
        for name in same:
            assert found[name] == pytest.approx(detail["per_seed"][name][seed], rel=1e-12), name
        assert found["caveats"] == detail["caveats"]
    name = "fd_efficientnet_lite0"
    per_seed = detail["per_seed"][name]
    assert summary[name] == pytest.approx(np.mean(per_seed))
    assert summary[f"{name}_se"] == pytest.approx(np.std(per_seed, ddof=1) / np.sqrt(2))
    assert summary[f"{name}_best"] <= summary[name]
    assert {f"{name}_chosen_on_half", f"{name}_last_on_half"} <= set(summary)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{a}", "{b}", "--features", "inception"], "features are 'inception'; allowed: "),
        (["{a}", "{b}", "--metrics", "fid,is"], "--metrics: is; allowed: fid, kid, prdc, fid_infinity"),
        (["{a}", "/nowhere"], "/nowhere is neither a folder nor a whole zip file"),
        (["{a}", "/nowhere.npz"], "cannot read /nowhere.npz"),
        (["{a}", "{b}", "--metrics", ""], "--metrics: none; allowed: fid, kid, prdc, fid_infinity"),
        (
            ["{a}", "{b}", "--kid-subsets", "100,1000"],
            "100 subsets of 1000, from 14 and 14 images; 2 or more, of 3 to 14",
        ),
        (["{a}", "{b}", "--kid-subsets", "many"], "--kid-subsets is 'many'; it must be COUNT,SIZE"),
        (["{a}", "{b}", "--bootstrap", "1"], r"--bootstrap is 0 \(none\) or 2 and more"),
    ],
)
def test_bad_input_ends_in_one_line(two_folders, tmp_path, arguments, says):
    filled = [a.format(a=two_folders[0], b=two_folders[1]) for a in arguments]
    command = [sys.executable, "-m", "sagd.evaluate", *filled]
    if "--features" not in command:
        command += ["--features", "efficientnet_lite0"]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.match(f"sagd.evaluate: {says}", done.stderr), done.stderr


def test_a_killed_command_is_taken_up(tmp_path):
    """SIGKILL to the real thing while it computes features: what was computed is used, and the answer is the same."""
    pictures = RNG.integers(0, 256, (2, 240, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pictures[0])
    np.save(tmp_path / "b.npy", pictures[1])
    command = [sys.executable, "-m", "sagd.evaluate", "a.npy", "b.npy", "--features", "efficientnet_lite0"]
    command += ["--metrics", "fid", "--bootstrap", "0"]

    def start(cache):
        environment = {"PATH": "", "PYTHONPATH": str(ROOT), "SAGD_SCRATCH": str(tmp_path / cache)}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    begun = start("killed")
    written = 0
    while written < 40 * 1280 * 4:
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.01)
        written = sum(f.stat().st_size for f in (tmp_path / "killed").rglob("*.part"))
    begun.kill()
    begun.communicate()
    assert list((tmp_path / "killed").rglob("*.part"))
    answers = [json.loads(start(cache).communicate()[0]) for cache in ("killed", "whole")]
    assert answers[0] == answers[1]
    files = [sorted((tmp_path / cache / "features").glob("*.npy")) for cache in ("killed", "whole")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


def test_measure_refuses_what_it_cannot_know():
    of = extractor("efficientnet_lite0")
    with pytest.raises(InputError, match="metrics are is; allowed"):
        measure(np.ones((9, 2)), np.ones((9, 2)), of, ["is"])
    with pytest.raises(InputError, match="3 images in a set; the distances need 6"):
        measure(np.ones((9, 2)), np.ones((3, 2)), of)
    with pytest.raises(InputError, match="holds moments alone"):
        measure(np.ones((9, 2)), None, of, ["kid"], moments=Moments.of(RNG.random((9, 2))))

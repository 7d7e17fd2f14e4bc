"""`sagd suggest` prints the oracle's curves, of images and of their statistics."""

import json

import numpy as np
import pytest
import torch

import sagd
from sagd.cli import main
from sagd.cli import suggest as command
from sagd.oracle.suggest import suggest
from sagd.runtime.files import write_tensors
from sagd.spaces.moments import statistics


@pytest.fixture
def dark():
    """Statistics of dark images with a falling spectrum, as digits have."""
    power = sagd.power_law((8, 8), -0.7).weight.square()[None] * 0.1
    return {"mean": torch.full((1, 8, 8), -0.8, dtype=torch.float64), "power": power}


def test_command_line_prints_the_curve_of_images_and_of_their_statistics(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "ALPHAS", (-0.1, 0.0, 0.1))
    images = np.random.default_rng(0).integers(0, 80, (20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "dark.npy", images)
    kept = str(tmp_path / "dark.safetensors")
    main(["suggest", str(tmp_path / "dark.npy"), "--statistics", kept])
    told = capsys.readouterr().out
    assert "1x8x8" in told and "within 1 %" in told and "alpha" in told.splitlines()[-2]
    assert told.splitlines()[-1] == command.MEASURED  # what trained networks made of such advice
    main(["suggest", kept, "--json"])
    curves = json.loads(capsys.readouterr().out)
    diffusion, sampler = sagd.Diffusion(sagd.Schedule.linear()), sagd.Sampler("ddim", 50)
    expected = suggest(**statistics(images[:, None]), diffusion=diffusion, sampler=sampler, alphas=(-0.1,))
    assert curves["noise"]["-0.1"] == pytest.approx(expected.curve[-0.1], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere"),
        (["bad.safetensors"], r"bad\.safetensors has .*; it must have mean and power"),
        (["good.safetensors", "--schedule", "zero_terminal_snr", "--spacing", "trailing"], "every start is right"),
        (["good.safetensors", "--steps", "0"], "steps is 0; it must be a whole number from 1 to 1000000"),
        (["good.safetensors", "--steps", "1001"], "allowed: 1 to 1000"),
        (["good.safetensors", "--size", "8"], "--size is for images"),
        (["alike.safetensors"], "all alike"),
        (["good.safetensors", "--statistics", "kept.txt"], r"must end in \.safetensors"),
        (["nan.safetensors"], r"nan\.safetensors: power is not finite"),
        (["below.safetensors"], r"below\.safetensors: power is negative"),
        (["complex64.safetensors"], r"complex64\.safetensors: power is complex64; it must be floating-point"),
        (["int64.safetensors"], r"int64\.safetensors: power is int64; it must be floating-point"),
        (["bool.safetensors"], r"bool\.safetensors: power is bool; it must be floating-point"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, dark, arguments, says):
    monkeypatch.chdir(tmp_path)
    write_tensors("bad.safetensors", {"mean": dark["mean"]})
    write_tensors("good.safetensors", dark)
    write_tensors("alike.safetensors", {"mean": dark["mean"], "power": 0 * dark["power"]})
    write_tensors("nan.safetensors", {"mean": dark["mean"], "power": dark["power"] * float("nan")})
    write_tensors("below.safetensors", {"mean": dark["mean"], "power": -dark["power"]})
    for dtype in (torch.complex64, torch.int64, torch.bool):
        write_tensors(f"{str(dtype)[6:]}.safetensors", {"mean": dark["mean"], "power": dark["power"].to(dtype)})
    with pytest.raises(SystemExit, match=f"^sagd suggest: .*{says}") as failure:
        main(["suggest", *arguments])
    assert "\n" not in str(failure.value)

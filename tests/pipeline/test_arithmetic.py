"""What the published tables and equations say by themselves."""

from pathlib import Path

import pandas as pd

from studies.claims import arithmetic

ROOT = Path(__file__).parent.parent.parent
FID = pd.read_csv(ROOT / "studies" / "paper" / "published" / "table_f1_fid.csv")


def test_the_endpoint_score_is_the_datas():
    assert "It holds:" in arithmetic.theorem()


def test_a_tiny_exponent_changes_next_to_nothing():
    told = arithmetic.tiny_weights(0.001, 256)
    # r from 1/256 to sqrt(1/2): (256 / sqrt 2)^0.001, by hand.
    assert f"{(256 / 2**0.5) ** 0.001:.4f} times the smallest" in told and "0.05 %" in told


def test_the_published_row_has_its_errors():
    told = arithmetic.published_tiny(FID)
    assert "1.45 ± 0.19 at +0.001 (+1.8 standard errors from it)" in told
    assert "1.0400 ± 0.0052 at -0.001 (-6.2 standard errors from it)" in told


def test_the_listing_boosts_the_mean():
    assert "3.73 at 32x32" in arithmetic.listed_boost()  # the listing's


def test_corruption_without_normalisation_is_weaker():
    assert "0.22 to 0.46 at 32x32" in arithmetic.bare_corruption()

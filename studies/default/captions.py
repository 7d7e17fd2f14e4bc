"""What the figures of the default study's page show, for those who see them (HTML) and for those who do not (text)."""

import pandas as pd

from studies.default.tables import COLUMNS, ROWS, Omission, Study, powers_in

Texts = tuple[str, str]  # caption, alternative text


def omission(study: Study, found: Omission) -> Texts:
    """Of the pictures of corrupted images and of each remedy's samples."""
    power = powers_in(found.band, found.curves)
    rows = "; ".join(label.replace("\n", " ") for label in found.strips)
    return (
        f"What networks learn from images with noise in {found.edges} in {found.units} units, {found.band[0]:.3f} to "
        f"{found.band[1]:.3f} cycles per pixel (top row): the first {ROWS * COLUMNS} samples of "
        "each setting's first seed, not selected. Isotropic noise learns the corruption; noise without the band leaves "
        "it out. Samples in one place begin with the same white noise.",
        f"Rows of images: {rows}. Power in the band over that of clean images: "
        + ", ".join(f"{name} {ratio:.2f}" for name, ratio in power.items()),
    )


def spectra(found: Omission) -> Texts:
    """Of the power spectra beside the corrupted band."""
    low, high = found.band
    return (
        "Radially averaged power of the samples and of clean held-out images. Grey: the corrupted band. What omits the "
        "band lies far below isotropic noise there. Samples are cut to the range of pixels when they are stored, which "
        "spreads a little of the power of noisy ones over all frequencies.",
        f"Power over radius, on a logarithmic axis, of {', '.join(found.curves)} and of the held-out images; the band "
        f"from {low:.3f} to {high:.3f} cycles per pixel is shaded",
    )


def clean(study: Study) -> Texts:
    """Of the pictures of clean images and of samples."""
    frame = study.frame[study.frame.data == "clean"]
    told = ", ".join(f"{name} {distance:.3f}" for name, distance in frame.distance.items())
    return (
        f"Training images, and the first {ROWS * COLUMNS} samples of each setting's first seed, not selected. Samples "
        "in one place begin with the same white noise, and the networks with the same weights: what differs is the "
        "noise's.",
        f"Rows of training images and of samples; {study.label.split('_')[0]}: {told}",
    )


def alpha(study: Study, rows: pd.DataFrame) -> Texts:
    """Of the distance over alpha."""
    values = ", ".join(f"{row.distance:.3f} at alpha {row.alpha:g}" for row in rows.itertuples())
    return (
        "Distance over the exponent of the noise: below 0 it has more power in low frequencies, above 0 in high ones. "
        "Bars: one standard error over the seeds, of each setting by itself; differences, which are paired, are known "
        "better (in the table below).",
        f"Distance over alpha: {values}; real images: {study.frame.real.mean():.4f}",
    )


def weights(study: Study) -> Texts:
    """Of the noises' weights."""
    return (
        "The weight w(f) of each noise, by which the amplitude of white noise at a frequency is multiplied. Where it "
        "is 0, nothing is learnt.",
        f"Weights over radius of {len(study.frame.noise.unique())} noises",
    )


def losses(study: Study) -> Texts:
    """Of the training losses."""
    return (
        "The training loss, mean over the seeds. The losses of different noises and data can't be compared: the easier "
        "a noise is to tell from an image, the lower its loss.",
        f"Training loss over steps of {', '.join(setting.title for setting in study.params.all_settings)}",
    )

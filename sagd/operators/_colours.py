"""Noises by the names of colours: power laws."""

from typing import Literal

from sagd.errors import one_of
from sagd.noise.grid import Size
from sagd.noise.spectrum import Normalize, Spectrum
from sagd.operators.power_law import power_law

# alpha of each: the power at a frequency goes as r^(2 alpha)
COLOURS = {"white": 0.0, "pink": -0.5, "brown": -1.0, "red": -1.0, "blue": 0.5, "violet": 1.0, "purple": 1.0}


def colour(
    name: str, size: Size, *, dc: Literal["lowest", "floor"] = "lowest", normalize: Normalize = "expected"
) -> Spectrum:
    """The power law that is called by a colour.

    The power at each frequency is 1 for white, 1/r for pink, 1/r^2 for brown (or red), r for blue, r^2 for violet (or
    purple). Others add up the rings of an image's grid, which have more frequencies further out: theirs is 1/r where
    the power at each frequency is 1/r^2, so their pink is brown here.

    Parameters
    ----------
    name
        white, pink, brown, red, blue, violet or purple.
    size
        (L,), (H, W) or (D, H, W).
    dc, normalize
        As for `sagd.power_law`.

    Raises
    ------
    InputError
        Another name.
    """
    one_of("colour", name, tuple(COLOURS))
    return power_law(size, COLOURS[name], dc=dc, normalize=normalize)

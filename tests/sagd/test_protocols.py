"""What goes as a noise or as a formulation has all that training and sampling call, by the same names.

mypy checks the types (`make lint`); these tests also hold for a class that nobody annotated.
"""

import inspect

import pytest

import sagd
from sagd.formulations.base import Formulation
from sagd.noise.base import Noise


def members(protocol):
    """Names that a protocol asks for."""
    return sorted(name for name in vars(protocol) if not name.startswith("_"))


def parameters(function):
    return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (sagd.Spectrum, Noise),
        (sagd.Varying, Noise),
        (sagd.Diffusion, Formulation),
        (sagd.Flow, Formulation),
        (sagd.EDM, Formulation),
    ],
)
def test_a_class_has_what_its_protocol_asks_for(kind, protocol):
    asked = members(protocol)
    assert len(asked) >= 7
    for name in asked:
        wanted, found = inspect.getattr_static(protocol, name), inspect.getattr_static(kind, name)
        assert isinstance(found, property) == isinstance(wanted, property), name
        if not isinstance(wanted, property):
            assert parameters(found) == parameters(wanted), name


def test_what_a_noise_needs_t_for_it_refuses_without():
    schedule = sagd.Schedule.linear(10)
    varying = sagd.Varying(sagd.power_law((4, 4), -0.5), sagd.power_law((4, 4), 0.5), schedule.alpha_bar)
    white = sagd.isotropic((4, 4)).weight
    assert varying.shape(white, 3).shape == (4, 4)
    with pytest.raises(sagd.InputError, match="needs t"):
        varying.shape(white)

"""A network's configuration, as its config.json holds it: what is written, and what is refused when it is read."""

import inspect

from sagd.errors import InputError, shortened

MOST = 100_000  # of channels, blocks, heads


def described(network: type, settings: dict, fixed: dict | None = None) -> dict:
    """The content of config.json: keys sorted, lists for tuples.

    Parameters
    ----------
    network
        The class.
    settings
        Values of its constructor's arguments; anything else in it is left out (so it may be ``locals()``).
    fixed
        Settings with only one allowed value, which the constructor does not take.
    """
    content = {key: settings[key] for key in inspect.signature(network).parameters} | (fixed or {})
    content["_class_name"] = network.__name__
    return {key: list(value) if isinstance(value, tuple) else value for key, value in sorted(content.items())}


def arguments(network: type, config: dict, fixed: dict | None = None) -> dict:
    """Arguments for the constructor of ``network``, from the content of a config.json.

    A key that is missing has its default; keys that begin with an underscore are notes of diffusers.

    Raises
    ------
    InputError
        If the class is another one, a key is unknown, or a key of ``fixed`` has another value.
    """
    fixed, name = fixed or {}, network.__name__
    if config.get("_class_name", name) != name:
        raise InputError(f"_class_name is {shortened(repr(config['_class_name']), 60)}; it must be {name!r}")
    known = inspect.signature(network).parameters
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in settings.items():
        if key not in known and key not in fixed:
            raise InputError(f"{key} is no setting of {name}; allowed are {', '.join(sorted({*known, *fixed}))}")
        if key in fixed and value != fixed[key]:
            said = shortened(repr(value), 60)
            raise InputError(f"{key} is {said}; {name} allows only {fixed[key]!r} here")
    return {key: value for key, value in settings.items() if key in known}


def check_sizes(size: tuple[int, int], **lists: list) -> None:
    """Refuse a size that is not (H, W), and what is no list."""
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
        raise InputError(f"size is {shortened(repr(size), 60)}; it must be (H, W), whole numbers above 0")
    for name, values in lists.items():
        if not isinstance(values, list | tuple):
            raise InputError(f"{name} is {shortened(repr(values), 60)}; it must be a list")


def check_counts(settings: dict, *keys: str) -> None:
    """Raise InputError unless each of these settings is a whole number above 0, or some of them in a list."""
    for key in keys:
        found = settings[key]
        counts = found if isinstance(found, list | tuple) else [found]
        if not counts or any(type(count) is not int or not 0 < count <= MOST for count in counts):
            raise InputError(f"{key} is {shortened(repr(found), 60)}; allowed are whole numbers from 1 to {MOST:,}")

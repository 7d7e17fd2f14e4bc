"""What a user's input can do wrong."""


class InputError(ValueError):
    """Bad input, told in one line: what, where, what is allowed. A front end prints it without a traceback."""

"""``python -m sagd``: the same as the command ``sagd``."""

from sagd.cli import main

main()

"""Print README's first block of Python: `make wheel` runs it where nothing but the wheel is installed."""

import re
from pathlib import Path


def first_block() -> str:
    """The code of README's first ```python block."""
    return re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)[1]


if __name__ == "__main__":
    print(first_block())

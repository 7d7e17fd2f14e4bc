"""A folder or zip file of images of your own."""

import os
from pathlib import Path

from sagd.data.pictures import Pictures, of_files
from sagd.data.source import Source
from sagd.errors import Missing


def _open(source: Source, path: str | None, size: int) -> Pictures:
    root = Path(path or "").expanduser()
    if not path or not os.path.exists(root):
        raise Missing(f"path is {path}; the data set folder needs the path of an existing folder or zip file")
    return of_files(root, f"folder: {root}")


folder = Source(open=_open)

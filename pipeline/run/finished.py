"""Work that is done already: a stage that DVC runs again, with nothing changed that it depends on, leaves its files.

DVC runs a stage anew when any file of a room changes. The key of the work (settings, weights, data, and the code that
computes it) says more exactly whether its result can be another one.
"""

from pathlib import Path

from sagd.runtime.download import digest
from sagd.runtime.files import read_json, write_json


def is_finished(place: Path, folder: Path) -> bool:
    """Whether the files that were noted at a place of the scratch folder are all in the folder, unchanged."""
    note = place / "finished.json"
    if not note.is_file():
        return False
    noted = read_json(note)
    return all((folder / name).is_file() and digest(folder / name) == sha256 for name, sha256 in noted.items())


def note_finished(place: Path, folder: Path) -> None:
    """Note the files of a folder, as those of the work whose place this is."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    write_json(place / "finished.json", {str(file.relative_to(folder)): digest(file) for file in files})

"""Bring history.json up to date: the commits that wrote contrasts.yaml, and which groups had been measured by then.

`make docs` runs it, where git and the whole history are at hand. The page reads the file, so it is the same everywhere.
"""

import subprocess
from pathlib import Path

from sagd.errors import InputError
from sagd.runtime.files import read_json, write_json

HERE = Path(__file__).parent
HISTORY = HERE / "history.json"
MEASURED = "reports/decide/measure/"


def git(*arguments: str) -> list[str]:
    """The lines that git prints, asked in this folder."""
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"history: git cannot be asked: {error}") from None
    return done.stdout.splitlines()


def main() -> None:
    known = list(read_json(HISTORY, commits=list)["commits"])
    # Not the commits that only move the file.
    commits = git("log", "--follow", "--diff-filter=AM", "--abbrev=7", "--format=%h %cs %s", "--", "contrasts.yaml")
    there = {entry["commit"] for entry in known}
    for commit, date, subject in (line.split(" ", 2) for line in reversed(commits)):
        if commit not in there:
            groups = git("ls-tree", "--name-only", commit, MEASURED)
            known.append(
                {"commit": commit, "date": date, "subject": subject, "measured": [Path(g).name for g in groups]}
            )
    write_json(HISTORY, {"commits": known})


if __name__ == "__main__":
    main()

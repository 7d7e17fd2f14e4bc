"""The tables of verdicts in README.md and docs/results.md, from what was measured: make docs."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline import params as parameters
from pipeline.pages import blocks
from sagd.errors import InputError
from sagd.runtime.files import write_bytes
from studies.claims.answers import in_words, told
from studies.claims.decided import Answer, File, Results, answers, overall, written

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"(<!-- verdicts: (\w+) -->\n).*?(<!-- end of verdicts -->)", re.S)


def claims(found: dict[str, dict[str, Answer]], file: File) -> str:
    """A row a question: the verdict, and what came out, in a sentence."""
    rows = []
    for name, question in file.questions.items():
        whose = f"paper, {question.claim}" if question.claim else question.whose.split(" (")[0]
        said = in_words(name, found[name])
        if not said:
            raise InputError(
                f"the sentence for {name} in studies/claims/sentences.py is for other verdicts; write a new one"
            )
        rows.append((question.title, whose, overall(found[name]), said))
    return _table(("the claim", "whose", "verdict", "what came out (intervals at 95 %)"), rows)


def contrasts(found: dict[str, dict[str, Answer]], file: File) -> str:
    """A row a primary contrast, in full, those that were run first."""
    primary = [a for its in found.values() for a in its.values() if a.contrast.primary]
    primary.sort(key=lambda a: a.decision is None)
    rows = [(blocks.sentence(a.contrast.says), a.verdict, told(a) if a.decision else "") for a in primary]
    return _table(("expected", "verdict", "measured (95 %)"), rows)


TABLES = {"claims": claims, "contrasts": contrasts}


def with_tables(text: str) -> str:
    """A page with its tables filled in; each stands between two comments, the first of which names it."""
    file = written()
    found = answers(Results(parameters.load()), file)
    return PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]](found, file)}{place[3]}", text)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        write_bytes(page, with_tables(page.read_text()).encode())

"""What the pages have in common: figures that are kept beside the page, tables, films."""

import base64
from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML

FIGURES = Path("reports", "figures")  # from the folder that a notebook runs in: the root, paper/ or theory/
STYLE = (
    "<style>.text td, .text th {text-align: left !important; vertical-align: top} "
    ".text td:last-child {overflow-wrap: anywhere}</style>"
)


def keep(figure, name: str, caption: str, alt: str, svg: bool = False) -> HTML:
    """Write a matplotlib figure to `FIGURES`, with the same bytes at every run, and show it.

    Parameters
    ----------
    caption, alt
        As for `picture`.
    svg
        Also as an SVG file, for print.
    """
    from matplotlib import pyplot

    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=110, metadata={"Software": None})
    if svg:
        with pyplot.rc_context({"svg.hashsalt": name}):
            figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
    return picture(FIGURES / f"{name}.png", caption, alt)


def picture(path: Path, caption: str, alt: str) -> HTML:
    """Show a PNG file, as part of the page.

    Parameters
    ----------
    caption
        What the figure shows and what to see in it, for those who see it; HTML.
    alt
        The same for those who do not; text.
    """
    coded = base64.b64encode(path.read_bytes()).decode()
    said = f'<img src="data:image/png;base64,{coded}" alt="{escape(alt, quote=True)}">'
    return HTML(f"<figure>{said}<figcaption>{caption}</figcaption></figure>")


def table(frame: pd.DataFrame, index: bool = False, text: bool = False) -> HTML:
    """Show a table; ``text``: everything is aligned to the left, as sentences are."""
    html = frame.to_html(border=0, index=index)
    return HTML(f'{STYLE}<div class="text">{html}</div>' if text else html)


def folded(title: str, said: str, frame: pd.DataFrame, unfolded: bool) -> HTML:
    """Show a table below a title and a few words, folded or not."""
    state = " open" if unfolded else ""
    content = table(frame, text=True).data
    return HTML(f"<details{state}><summary><b>{title}</b>: {said}</summary>{content}</details>")


def films(paths: list[Path]) -> HTML:
    """Show MP4 files side by side, as part of the page."""
    width = 96 // len(paths)
    coded = (base64.b64encode(path.read_bytes()).decode() for path in paths)
    options = f'width="{width}%" controls loop autoplay muted playsinline'
    return HTML("".join(f'<video {options} src="data:video/mp4;base64,{film}"></video>' for film in coded))


def sentence(said: str) -> str:
    """A sentence begins with a capital letter and ends with a full stop."""
    return f"{said[0].upper()}{said[1:]}." if said else ""

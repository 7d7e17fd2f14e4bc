"""What the pages have in common: figures that are kept beside the page, tables, films."""

import base64
from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML

FIGURES = Path("reports", "figures")  # from the folder that a notebook runs in: the root, or a study's


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
    png = (FIGURES / f"{name}.png").read_bytes()
    least = int.from_bytes(png[16:20]) // 2  # of the width; the words of a plot that shrinks more can't be read
    return _figure(png, caption, alt, f'style="min-width: {least}px"')


def picture(path: Path, caption: str, alt: str) -> HTML:
    """Show a PNG file of enlarged images, as part of the page.

    Parameters
    ----------
    caption
        What the figure shows and what to see in it, for those who see it; HTML.
    alt
        The same for those who do not; text.
    """
    return _figure(path.read_bytes(), caption, alt, 'class="pixels"')


def _figure(png: bytes, caption: str, alt: str, look: str) -> HTML:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    shown = f'<div><img {look} src="{source}" alt="{escape(alt)}"></div>'
    return HTML(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")


def table(frame: pd.DataFrame, index: bool = False, text: bool = False) -> HTML:
    """Show a table; ``text``: everything is aligned to the left, as sentences are."""
    if index and frame.index.name:  # it stands above the index, in the row of the other titles
        frame = frame.rename_axis(index=None, columns=frame.index.name)
    cells = frame.to_html(border=0, index=index).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return HTML(f'<div class="table{" left" if text else ""}">{cells}</div>')


def folded(title: str, said: str, frame: pd.DataFrame, unfolded: bool) -> HTML:
    """Show a table below a title and a few words, folded or not."""
    state = " open" if unfolded else ""
    content = table(frame, text=True).data
    return HTML(f"<details{state}><summary><b>{escape(title)}</b>: {escape(said)}</summary>{content}</details>")


def films(paths: list[Path]) -> HTML:
    """Show MP4 files side by side, as part of the page."""
    coded = (base64.b64encode(path.read_bytes()).decode() for path in paths)
    shown = (f'<video controls loop autoplay muted playsinline src="data:video/mp4;base64,{c}"></video>' for c in coded)
    return HTML(f'<div class="films">{"".join(shown)}</div>')


def sentence(said: str) -> str:
    """A sentence begins with a capital letter and ends with a full stop."""
    return f"{said[0].upper()}{said[1:]}." if said else ""

"""The pages in a real browser, without a network: on a phone and on a desk, in light and in dark."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from pipeline import report
from pipeline.pages import blocks

ROOT = Path(__file__).parents[2]
PAGES = [
    "reports/index.html", *(f"studies/{name}/reports/{name}.html" for name in ("paper", "claims", "theory")),
    "reports/explore.html",
]  # fmt: skip
WINDOWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
INSIDE = ("file:", "data:", "blob:", "about:")

# What the checks are made of, in JavaScript.
TOOLS = """
const all = (selector) => [...document.querySelectorAll(selector)];
const start = (text) => text.trim().replace(/\\s+/g, " ").slice(0, 60);
const twice = (list) => list.filter((item, k) => item && list.indexOf(item) < k);
const name = (element) => `<${element.localName}> ${start(element.textContent || element.alt || "")}`;
const caption = (image) => image.closest("figure")?.querySelector("figcaption")?.textContent.trim();
const texts = all("body *").filter((e) =>
  [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()) && e.getClientRects().length);
const hides = (how) => ["hidden", "clip"].includes(how);
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = channels(color).map((c) => c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {  // the first colour behind it
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(0, 0, 0)" : "rgb(255, 255, 255)";
};
const contrast = (element) => {  // WCAG 2
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
"""
# Each lists where the page is so.
CHECKS = {
    "no language": "document.documentElement.lang ? [] : ['html']",
    "no title": "document.title ? [] : ['head']",
    "not one h1": "all('h1').length === 1 ? [] : all('h1').map(name).concat('h1')",
    "no viewport": "document.querySelector('meta[name=viewport]') ? [] : ['head']",
    "wider than the window": "document.documentElement.scrollWidth <= innerWidth ? [] : all('body *').filter((e) => "
    "e.getBoundingClientRect().right > innerWidth).map(name)",
    "no alternative text": "all('img').filter((i) => !i.alt.trim()).map(name)",
    "no picture": "all('img').filter((i) => !i.naturalWidth).map(name)",
    "no caption": "all('img').filter((i) => !caption(i)).map(name)",
    "alternative text twice": "twice(all('img').map((i) => i.alt.trim()))",
    "caption twice": "twice(all('img').map(caption))",
    "cut": "all('body *').filter((e) => e.textContent.trim() && ("
    "hides(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth || "
    "hides(getComputedStyle(e).overflowY) && e.scrollHeight > e.clientHeight)).map(name)",
    "hard to read": "texts.filter((e) => contrast(e) < 4.5).map(name)",
}


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.fail("Chromium is missing: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=chromium) as browser:
            yield browser


def problems(browser, path, width, scheme):
    """What is wrong with a page in a window: (kind, where)."""
    found = []
    with browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True, device_scale_factor=2
    ) as context:
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith(INSIDE) or found.append(("request", r.url)))
        page.on("console", lambda m: m.type == "error" and found.append(("error", m.text)))
        page.on("pageerror", lambda e: found.append(("error", str(e))))
        page.goto(path.as_uri())
        page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")
        checks = ", ".join(f"{json.dumps(kind)}: {check}" for kind, check in CHECKS.items())
        for kind, places in page.evaluate(f"() => {{ {TOOLS} return {{{checks}}}; }}").items():
            found += [(kind, where) for where in places]
    return found


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_read(browser, path, width, scheme):
    assert problems(browser, ROOT / path, width, scheme) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The HTML of a small page with all that pages have."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("a", "b"):
        Image.new("L", (1200, 300)).save(folder / f"{name}.png")
    wide = pd.DataFrame([["some words and <b>"] * 20], index=pd.Index(["x"], name="y")).add_prefix("a long title ")
    shown = [
        blocks.picture(folder / "a.png", "Black.", 'a "black" picture'),
        blocks.picture(folder / "b.png", "Black, too.", "another black picture"),
        blocks.table(wide, index=True),
        blocks.folded("<i>", "<script>fetch('http://outside.invalid')</script>", wide, unfolded=False),
    ]
    outputs = [nbformat.v4.new_output("display_data", {"text/html": one.data}) for one in shown]
    cells = [
        nbformat.v4.new_markdown_cell("# <script>alert('a')</script>\n\n[a](javascript:alert(1)) `b` <img src=x>"),
        nbformat.v4.new_code_cell("secret = 1", outputs=outputs),
    ]
    return report.html(nbformat.v4.new_notebook(cells=cells), "<title>")


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_a_small_page_has_no_problems(browser, small, tmp_path, width, scheme):
    """Also what is not meant as HTML: it is shown as text."""
    (tmp_path / "page.html").write_text(small)
    assert problems(browser, tmp_path / "page.html", width, scheme) == []
    assert "secret" not in small and "<script" not in small and "&lt;script&gt;alert" in small


BAD = {
    "request": ("</main>", '<link rel="stylesheet" href="http://outside.invalid/a.css"></main>'),
    "error": ("</main>", "<script>nothing.here()</script></main>"),
    "no language": (' lang="en"', ""),
    "no title": (r"<title>.*?</title>", ""),
    "not one h1": ("</main>", "<h1>Another</h1></main>"),
    "no viewport": (r'<meta name="viewport"[^>]*>', ""),
    "wider than the window": ('class="table', 'class="'),
    "no alternative text": ('alt="another', 'alt="" title="another'),
    "no picture": ("base64,....", "base64,"),
    "no caption": (r"<figcaption>Black\.</figcaption>", ""),
    "alternative text twice": ('alt="another black picture"', "alt='a \"black\" picture'"),
    "caption twice": (r"Black\.", "Black, too."),
    "cut": ("</main>", '<p style="overflow: hidden; white-space: nowrap; width: 3rem">This is cut off.</p></main>'),
    "hard to read": ("--quiet: #[0-9a-f]+", "--quiet: #808080"),
}


@pytest.mark.parametrize("kind", ["request", "error", *CHECKS])
def test_each_check_can_fail(browser, small, tmp_path, kind):
    old, new = BAD[kind]
    unsafe = re.sub(r"<meta http-equiv[^>]*>", "", small)  # it would keep out what a check is to find
    bad, count = re.subn(old, new, unsafe)
    assert count, f"{old} is not in the page"
    (tmp_path / "page.html").write_text(bad)
    assert kind in {found for found, _ in problems(browser, tmp_path / "page.html", 390, "light")}

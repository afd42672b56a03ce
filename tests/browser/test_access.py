"""Whoever cannot see the page, cannot use a mouse, or prefers the dark, gets the same page."""

import re

import pytest

LOOKED_AT = {
    "exclude": [
        ["svg[role=img] > *"],  # each is one image with a name and a description
        ["details.data tbody tr:nth-child(n+4)"],  # the fourth row of numbers is as the third,
        ["details.claim:nth-of-type(n+4)"],  # and the fourth card of a section
    ]
}
COLOURS = {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]}
EVERYTHING = {"resultTypes": ["violations"]}
CASES = [
    ("index.html", "light", EVERYTHING),
    ("compare.html", "light", EVERYTHING),
    ("steps.html", "light", EVERYTHING),
    ("measured/report.html", "light", EVERYTHING),
    ("hostile/report.html", "light", EVERYTHING),
    ("crashed/report.html", "light", EVERYTHING),
    ("broken/report.html", "light", EVERYTHING),
    # Only colours differ in the dark.
    ("index.html", "dark", COLOURS),
    ("compare.html", "dark", COLOURS),
    ("steps.html", "dark", COLOURS),
    ("measured/report.html", "dark", COLOURS),
    ("broken/report.html", "dark", COLOURS),
]


@pytest.mark.parametrize(("name", "scheme", "rules"), CASES, ids=[f"{name}-{scheme}" for name, scheme, _ in CASES])
def test_axe_finds_no_violation(visit, name, scheme, rules):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(name, color_scheme=scheme, unfold=True)
    found = Axe().run(page, context=LOOKED_AT, options=rules).response
    assert not [(v["id"], v["impact"], v["nodes"][0]["html"][:300]) for v in found["violations"]]
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}, "axe did not look"


@pytest.mark.parametrize(
    "name", ["index.html", "compare.html", "steps.html", "measured/report.html", "crashed/report.html"]
)
def test_a_screen_reader_finds_landmarks_one_first_heading_and_names_for_everything(visit, name):
    page = visit(name, unfold=True)
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark
    assert page.get_by_role("heading", level=1).count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.tagName[1]))")
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), levels
    for role in ("img", "region", "table", "button", "checkbox", "link"):
        every = page.get_by_role(role)
        named = page.get_by_role(role, name=re.compile(r"\w"))
        assert every.count() == named.count(), role


@pytest.mark.parametrize(("name", "column"), [("index.html", "Claims"), ("measured/report.html", "Verdict")])
def test_a_table_keeps_its_roles_where_it_is_laid_out_as_a_list(visit, name, column):
    page = visit(name, width=360)
    table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name=column, exact=True)).first
    assert table.get_by_role("columnheader", name=column, exact=True).count() == 1
    rows = table.locator("tbody tr").count()
    assert table.get_by_role("row").count() == rows + 1 and table.get_by_role("cell").count() > rows


FOCUS = """() => {
    const at = document.activeElement, box = at.getBoundingClientRect(), style = getComputedStyle(at);
    // What is taller than the window, as a long table is, cannot be there from its top: its middle is.
    const inside = box.height > innerHeight ? innerHeight / 2 : box.top + Math.min(box.height, 20) / 2;
    const [x, y] = [box.left + Math.min(box.width, 40) / 2, inside];
    const seen = document.elementFromPoint(x, y);
    return { stop: stops.indexOf(at), tag: at.tagName, text: at.textContent.trim().slice(0, 40),
        shown: at.contains(seen) || seen?.contains(at),  // in the window, and nothing lies over it
        ring: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth) };
}"""
STOPS = """() => {
    window.stops = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')].filter(
    (at) => at.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true })); }"""


def test_the_tab_key_reaches_everything_in_order_and_shows_where_it_is(visit):
    page = visit("measured/report.html", width=768)
    page.evaluate(STOPS)
    count = page.evaluate("stops.length")
    assert count > 30
    for stop in range(count):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUS)
        assert found["stop"] == stop, found
        assert found["shown"] and found["ring"] >= 2, found


def test_the_skip_link_is_the_first_stop_and_leads_past_the_contents(visit):
    page = visit("measured/report.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_fold_opens_by_keyboard(visit):
    page = visit("measured/report.html", java_script_enabled=False)
    fold = page.locator("#integrity details")
    fold.locator("summary").focus()
    assert not fold.locator("table").is_visible()
    page.keyboard.press("Enter")
    assert fold.locator("table").is_visible()


def test_the_dark_is_dark_and_colours_forced_by_the_system_leave_words_and_icons(visit):
    brightness = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    assert min(visit("index.html", color_scheme="light").evaluate(brightness)) > 240
    assert max(visit("index.html", color_scheme="dark").evaluate(brightness)) < 40
    page = visit("index.html", forced_colors="active")
    badge = page.locator("td .badge").first
    assert badge.inner_text() and badge.locator("svg").bounding_box()["width"] > 8

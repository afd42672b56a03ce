"""Filtering, sorting, choosing and saving, by mouse and by keyboard, at a desk and on a telephone."""

import csv
from xml.etree import ElementTree

import pytest

from analyses.registry import ROWS
from checks.claims import CLAIMS
from checks.report.axis import MISSED as STORED_ONLY

MODEL_ROWS = [gate for gate in CLAIMS if gate.row == "model"]
NAMES = [row.name for row in ROWS]


def ids(page) -> list[str]:
    """The claims that the table of claims shows, in its order."""
    return page.locator("table.matrix tr[data-verdict]:visible .id").all_inner_texts()


def verdicts(page) -> list[str]:
    return [text.strip() for text in page.locator("table.matrix tr[data-verdict]:visible .word").all_inner_texts()]


def test_the_overview_has_a_line_for_every_claim_in_the_order_of_the_gates(visit):
    page = visit("measured/report.html")
    found = [name for name in ids(page) if not name.endswith(".stored")]
    order = [gate.id for section in NAMES for gate in MODEL_ROWS if gate.analysis == section]
    assert found == order


def test_the_list_of_models_sorts(visit):
    page = visit("index.html")
    names = page.locator("table.models tbody th")
    before = names.all_inner_texts()
    page.locator("table.models").get_by_role("button", name="Model").click()
    assert names.all_inner_texts() == sorted(before, key=str.lower) != before


def test_a_filter_hides_lines_and_says_how_many_are_left(visit):
    page = visit("measured/report.html")
    status, boxes = page.locator(".filter output"), page.get_by_role("checkbox").all()
    lines = len(ids(page))
    shown = {word: verdicts(page).count(word) for word in set(verdicts(page))}
    assert status.inner_text() == f"{lines} of {lines} shown" and len(boxes) == len(set(shown) - {STORED_ONLY})
    alone = shown.get(STORED_ONLY, 0)  # a line without a verdict stays
    for box in boxes:
        if box.get_attribute("value") != "undecided":
            box.uncheck()
    assert verdicts(page).count("undecided") == shown["undecided"] == len(ids(page)) - alone
    page.get_by_role("checkbox", name="undecided").uncheck()
    assert len(ids(page)) == alone
    for box in boxes:
        box.check()
    assert len(ids(page)) == lines


def test_a_filter_finds_claims_by_their_words_and_ids(visit):
    page = visit("measured/report.html")
    search = page.get_by_role("searchbox")
    search.fill("Temperature")
    texts = page.locator("table.matrix tr[data-verdict]:visible .claim").all_inner_texts()
    assert texts and all("temperature" in text.lower() for text in texts)
    search.fill("NR5")
    assert ids(page) == ["NR5"]
    search.fill("no such claim")
    assert ids(page) == [] and page.locator(".filter output").inner_text().startswith("0 of ")


def test_a_filter_is_set_by_keyboard(visit):
    page = visit("measured/report.html")
    before = ids(page)
    page.get_by_role("checkbox", name="undecided").focus()
    page.keyboard.press("Space")
    assert 0 < len(ids(page)) < len(before)


def lit(page) -> list[str]:
    return page.locator("#network .range").evaluate_all("(all) => all.map((at) => at.dataset.now)")


@pytest.mark.parametrize("way", ["mouse", "keyboard", "touch"])
def test_a_chosen_layer_is_lit_in_every_figure_with_its_numbers(visit, way):
    page = visit("measured/report.html", width=1200, has_touch=way == "touch")
    if way == "keyboard":
        page.get_by_role("slider", name="Layer").focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
    else:
        svg = page.locator("#network .track svg").first
        svg.scroll_into_view_if_needed()
        box = svg.bounding_box()
        count = int(page.locator("#network .tracks").get_attribute("data-count"))
        at = box["x"] + box["width"] * 2.5 / count, box["y"] + box["height"] / 2
        (page.touchscreen.tap if way == "touch" else page.mouse.move)(*at)
    assert page.locator("#network output").inner_text() == "layer 2"
    drawings = page.locator("svg[data-at]")
    assert drawings.count() > 20 and page.locator("svg[data-at] > .lit").count() == drawings.count()
    # Its numbers are those of the row of that layer in the table behind the figure.
    table = page.locator("#numbers-network tbody tr").nth(2).locator("td").all_text_contents()
    assert lit(page) == [text.strip() for text in table]


def test_choosing_a_head_marks_it_in_every_figure_that_has_heads(visit):
    page = visit("measured/report.html", width=1200)
    mark = page.locator("#head_geometry-scatter [data-l] > *").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    chosen = page.locator(".chosen")
    # Marks may lie on each other: the one on top was chosen.
    places = chosen.evaluate_all(
        "(all) => all.map((at) => [at.parentElement.dataset.l, [...at.parentElement.children].indexOf(at)])"
    )
    layer, head = places[0]
    assert len(places) >= 2 and places == [[layer, head]] * len(places)
    assert page.locator("#attention_stats-entropy .pin").count() == 2
    assert f"layer {layer}, head {head}: " in page.locator("#network output").inner_text()


def test_a_family_alone_is_shown_in_every_figure_that_has_families(visit):
    page = visit("measured/report.html", unfold=True)
    picks = page.get_by_label("Family")
    assert picks.count() >= 2
    picks.first.select_option("q_proj")
    shown = page.locator("[data-family]:visible").evaluate_all("(all) => all.map((at) => at.dataset.family)")
    assert set(shown) == {"q_proj"} and len(shown) >= 2 and picks.last.input_value() == "q_proj"
    picks.last.select_option("all")
    assert page.locator("[data-family]:visible").count() > len(shown)


@pytest.mark.parametrize("figure", ["network", "head_geometry-scatter", "attention_stats-entropy"])
def test_a_figure_is_saved_as_drawing_picture_and_numbers(visit, figure, tmp_path):
    page = visit("measured/report.html", accept_downloads=True)
    found = {}
    for kind in ("SVG", "PNG", "CSV"):
        with page.expect_download() as download:
            page.locator(f"#{figure}").get_by_role("button", name=kind).click()
        download.value.save_as(tmp_path / kind)
        assert download.value.suggested_filename == f"{figure}.{kind.lower()}"
        found[kind] = (tmp_path / kind).read_bytes()
    drawing = ElementTree.fromstring(found["SVG"])
    words = "".join(drawing.itertext())
    assert drawing.tag.endswith("svg") and "layer" in words
    assert found["PNG"].startswith(b"\x89PNG") and len(found["PNG"]) > 10_000
    rows = list(csv.reader(found["CSV"].decode().split("\n\n")[0].splitlines()))
    table = page.locator(f"#numbers-{figure} table").first
    cells = table.locator("tbody tr").first.locator("th, td").all_text_contents()
    assert len({len(row) for row in rows}) == 1 and len(rows) == table.locator("tr").count()
    assert [cell.replace("−", "-") for cell in cells] == rows[1]


def test_a_row_over_several_models_is_shown_for_each_of_its_verdicts(visit):
    page = visit("index.html")
    for box in page.locator("fieldset [type=checkbox][value]").all():
        box.uncheck()
    page.get_by_role("checkbox", name="does not hold").check()
    rows = page.locator("table.signs-of tr[data-verdict]:visible").all()
    assert rows
    for row in rows:
        assert row.get_by_role("link", name="does not hold").count()


def test_on_a_telephone_the_claims_filter_and_every_control_is_large_enough(visit):
    page = visit("measured/report.html", width=360, has_touch=True)
    before = len(ids(page))
    page.get_by_role("checkbox", name="undecided").tap()
    assert 0 < len(ids(page)) < before
    for control in (*page.locator(".filter label").all(), *page.locator("button.save:visible").all()):
        assert control.bounding_box()["height"] >= 24  # WCAG 2.2: least size of a target


@pytest.mark.parametrize("width", [360, 768])
def test_the_contents_show_where_one_reads(visit, width):
    page = visit("measured/report.html", width=width)
    page.locator("#delta_svd-h").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('delta_svd').scrollIntoView()")
    page.wait_for_timeout(300)
    box = page.locator("nav a[href='#delta_svd']").bounding_box()
    assert 0 <= box["x"] and box["x"] + box["width"] <= width

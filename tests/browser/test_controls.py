"""Sorting and filtering, by mouse and by keyboard, at a desk and on a telephone."""

import pytest

from checks.claims import CLAIMS
from tests.browser.site import MODELS

MODEL_ROWS = [gate for gate in CLAIMS if gate.row == "model"]
ASKED, SECTIONS = len(MODEL_ROWS), len({gate.analysis for gate in MODEL_ROWS})


def ids(page) -> list[str]:
    """The claims that the table of claims shows, in its order."""
    return page.locator("table.matrix tr[data-verdict]:visible .id").all_inner_texts()


def verdicts(page, column: int) -> list[str]:
    cells = page.locator(f"table.matrix tr[data-verdict]:visible > :nth-child({column + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def header(page, name: str):
    return page.locator("table.matrix thead").get_by_role("button", name=name)


def headings(page) -> int:
    return page.locator("table.matrix th[scope=rowgroup]:visible").count()


def order(page) -> list[int]:
    """The place of each row's verdict among all verdicts, worst first."""
    return page.locator("td[data-label=Verdict]").evaluate_all("(all) => all.map((cell) => Number(cell.dataset.value))")


def test_a_click_sorts_worst_first_a_second_turns_it_and_a_third_brings_the_groups_back(visit):
    page = visit("measured/report.html")
    before, groups = ids(page), headings(page)
    assert len(before) == ASKED and groups == SECTIONS
    button, column = header(page, "Verdict"), page.get_by_role("columnheader", name="Verdict").first
    button.click()
    ranks = order(page)
    assert ranks == sorted(ranks) and len(set(ranks)) > 2
    assert column.get_attribute("aria-sort") == "ascending" and headings(page) == 0
    assert sorted(ids(page)) == sorted(before) != ids(page)
    button.click()
    ranks = order(page)
    assert ranks == sorted(ranks, reverse=True) and column.get_attribute("aria-sort") == "descending"
    button.click()
    assert (ids(page), headings(page), column.get_attribute("aria-sort")) == (before, groups, "none")


def test_sorting_by_another_column_forgets_the_first(visit):
    page = visit("measured/report.html")
    header(page, "Verdict").click()
    header(page, "Claim").click()
    assert ids(page) == sorted(ids(page)) and ids(page)[0] == "AN1"
    assert page.locator("table.matrix th[aria-sort=ascending]").count() == 1


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_table_is_sorted_by_keyboard(visit, key):
    page = visit("measured/report.html")
    header(page, "Claim").focus()
    page.keyboard.press(key)
    assert ids(page)[0] == "AN1"
    assert page.evaluate("document.activeElement.textContent") == "Claim"  # and one can go on from there


def test_the_index_sorts_by_a_models_verdicts_and_what_was_not_asked_comes_last_both_ways(visit):
    page = visit("index.html")
    column = 1 + MODELS.index("crashed")
    for _ in range(2):
        header(page, "Sort by crashed").click()
        found = verdicts(page, column)
        assert "not asked" not in found[0] and found[-1] == "not asked"


def test_the_list_of_models_sorts(visit):
    page = visit("index.html")
    names = page.locator("table.models tbody th")
    before = names.all_inner_texts()
    page.locator("table.models").get_by_role("button", name="Model").click()
    assert names.all_inner_texts() == sorted(before, key=str.lower) != before


def test_a_filter_hides_rows_and_empty_groups_and_says_how_many_are_left(visit):
    page = visit("measured/report.html")
    shown = {word: verdicts(page, 6).count(word) for word in set(verdicts(page, 6))}
    assert sum(shown.values()) == ASKED and page.get_by_role("status").inner_text() == f"{ASKED} of {ASKED} shown"
    boxes = page.get_by_role("checkbox").all()
    assert len(boxes) == len(shown)
    kept = "undecided"
    for box in boxes:
        if box.get_attribute("value") != kept:
            box.uncheck()
    assert verdicts(page, 6) == [kept] * shown[kept]
    assert page.get_by_role("status").inner_text() == f"{shown[kept]} of {ASKED} shown"
    page.get_by_role("checkbox", name=kept).uncheck()
    assert ids(page) == [] and headings(page) == 0
    for box in boxes:
        box.check()
    assert len(ids(page)) == ASKED and headings(page) == SECTIONS


def test_a_filter_is_set_by_keyboard_and_stays_when_the_table_is_sorted(visit):
    page = visit("measured/report.html")
    page.get_by_role("checkbox", name="undecided").focus()
    page.keyboard.press("Space")
    left = ids(page)
    assert 0 < len(left) < ASKED
    header(page, "Claim").press("Enter")
    assert ids(page) == sorted(left)
    for _ in range(2):
        header(page, "Claim").press("Enter")
    assert ids(page) == left


def test_a_row_over_several_models_is_shown_for_each_of_its_verdicts(visit):
    page = visit("index.html")
    page.get_by_role("checkbox").first.wait_for()
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    page.get_by_role("checkbox", name="does not hold").check()
    for row in page.locator("table.matrix tr[data-verdict]:visible").all():
        assert "does not hold" in row.inner_text()


def test_on_a_telephone_the_table_is_a_list_that_sorts_and_filters(visit):
    page = visit("measured/report.html", width=360, has_touch=True)
    header(page, "Claim").tap()
    assert ids(page)[0] == "AN1"
    page.get_by_role("checkbox", name="undecided").tap()
    assert 0 < len(ids(page)) < ASKED
    for control in (*page.locator("table.matrix button").all(), *page.locator(".filter label").all()):
        assert control.bounding_box()["height"] >= 24  # WCAG 2.2: least size of a target

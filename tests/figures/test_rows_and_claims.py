"""Aligned rows, the axis of all claims and drawings for a paper: places, inverted, are the numbers of the records."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.figures.export import WIDTHS, layout, stretched
from checks.figures.geometry import Figure
from checks.figures.rows import HEIGHT, INSET, WIDTH, Track, aligned
from checks.report import axis
from checks.report.drawings import numbers, svg
from checks.sections.section import table
from tests.figures.test_figures import coordinates
from tests.page import finding, outcome, stored

values = st.none() | st.floats(-1e6, 1e6).map(lambda v: round(v, 4))
PLACE = 0.06  # half of the last digit of a height
ACROSS = 0.51  # places of layers are whole, of a thousand


def inverted(row, y: float) -> float:
    """The number at a height of a row's box."""
    up = 1 - (y - INSET) / (HEIGHT - 2 * INSET)
    if row.log:
        return 10 ** (math.log10(row.low) + up * math.log10(row.high / row.low))
    return row.low + up * (row.high - row.low)


@given(st.lists(values, min_size=1, max_size=60), st.booleans(), st.booleans())
def test_every_point_of_a_row_lies_at_its_layer_and_its_number(track, paired, log):
    track = [abs(v) + 1 if log and v is not None else v for v in track]
    count = len(track) + paired
    (row,) = aligned([Track(name="x", values=track, paired=paired, log=log)], count).rows
    spots = [line for line in row.lines if "spots" in line.tone]
    known = [(i, v) for i, v in enumerate(track) if v is not None]
    assert len(spots) == bool(known)
    if not spots:
        return
    for (i, value), (x, y) in zip(known, coordinates(spots[0].d.replace("h0", "")), strict=True):
        assert x == pytest.approx(WIDTH * (i + (1.0 if paired else 0.5)) / count, abs=ACROSS)
        slack = PLACE / (HEIGHT - 2 * INSET)
        seen = inverted(row, y)
        if log:
            assert abs(math.log(seen / value)) <= slack * math.log(row.high / row.low) + 1e-9
        else:
            assert seen == pytest.approx(value, abs=slack * (row.high - row.low))


def test_rows_that_share_a_domain_can_be_compared_and_chance_has_its_place():
    first, second = aligned(
        [Track(name="a", values=[0.0, 1.0], chance=0.5), Track(name="b", values=[2.0, 4.0])], 2, shared=True
    ).rows
    assert (first.low, first.high) == (second.low, second.high) == (0.0, 4.0)
    (dashed,) = [line for line in first.lines if "dash" in line.tone]
    for _, y in coordinates(dashed.d):
        # 0.15 units more where a level is drawn through fewer points.
        assert inverted(first, y) == pytest.approx(0.5, abs=4 * (PLACE + 0.15) / (HEIGHT - 2 * INSET))
    assert "chance 0.5" in first.desc and first.range == "0 to 1.0"


numbers_ = st.floats(-100, 100).map(lambda v: round(v, 3))


@given(observed=numbers_, limit=numbers_, comparator=st.sampled_from(["<=", "<", ">=", ">"]))
def test_a_claims_dot_lies_right_of_the_limit_exactly_where_it_meets_it_and_at_its_distance(
    observed, limit, comparator
):
    given = finding(observed, limit, comparator)
    at = axis.place(observed, given)
    meets = observed <= limit if comparator.startswith("<") else observed >= limit
    assert (at >= 50) == meets or abs(at - 50) < 0.01  # places have two decimals
    far = (at - 50) / 50 * axis.REACH
    expected = (limit - observed if comparator.startswith("<") else observed - limit) / (abs(limit) or 1)
    assert far == pytest.approx(max(-axis.REACH, min(axis.REACH, expected)), abs=0.01 * axis.REACH / 50)


def test_a_line_shows_what_decided_the_controls_and_the_published_number_with_its_range():
    runs = [{"name": "twin", "observed": [0.1, 0.25]}]
    claim = outcome(
        "X", "does not hold",
        findings=[finding(0.05, 0.1, status="pass"), finding(0.3, 0.2, status="fail", interval=[0.28, 0.32])],
        controls={"control": {"answer": "informative", "runs": runs}, "noise": None},
    )  # fmt: skip
    row = stored("X.stored", findings=[finding(0.5, 1.0)]) | {"orbits": [{"low": 0.25, "high": 2.0}]}
    (line,) = axis.lines([claim], [row])

    def back(place: float) -> float:
        return (place - 50) / 50 * axis.REACH

    drawing = line["drawing"]
    assert back(drawing["dot"]) == pytest.approx(-0.5, abs=1e-3)  # 0.3 is half of the limit 0.2 beyond it
    assert [back(end) for end in drawing["interval"]] == pytest.approx([-0.6, -0.4], abs=1e-3)
    assert [back(at) for at in drawing["controls"]] == pytest.approx([-0.25], abs=1e-3)
    assert back(drawing["published"]) == pytest.approx(0.5, abs=1e-3)
    assert [back(end) for end in drawing["orbit"]] == pytest.approx([-1.0, 0.75], abs=1e-3)
    assert line["desc"].startswith("0.300, limit ≤ 0.2")
    assert [sign["answer"] for sign in line["signs"]] == ["no", "informative", "not\u00a0run", "not asked"]


def test_a_claim_with_a_stored_row_alone_has_a_line_without_a_dot():
    (line,) = axis.lines([], [stored("NR2.stored", findings=[finding(0.01, 0.05)]) | {"orbits": [None]}])
    assert line["word"] == axis.MISSED and line["drawing"]["dot"] == "" and line["drawing"]["published"] > 50


@pytest.mark.parametrize("millimetres", WIDTHS)
def test_a_drawing_for_a_paper_is_whole_and_its_lines_are_those_of_the_page(millimetres):
    track = Track(name="a long name of a row", group="group", values=[1.0, None, 3.0, 2.0], chance=1.5)
    rows = aligned([track], 4)
    columns = {"a": [1.0, -2.0, None, 0.5]}
    figure = Figure(id="f", caption="<c>", rows=rows, tables=(table("t", "layer", list("0123"), columns),))
    text = svg(figure, millimetres)
    drawing = ElementTree.fromstring(text)
    assert drawing.get("width") == f"{millimetres}mm" and "var(" not in text and text == svg(figure, millimetres)
    found = layout(figure, millimetres)
    paths = [re.sub(r"h0", "", line.d) for line in rows.rows[0].lines]
    wide = [re.sub(r"h0", "", line.d) for line in found["rows"][0]["row"].lines]
    left, right = coordinates(stretched("M0 0", 0, 1))[0][0], found["width"]
    for old, new in zip(paths, wide, strict=True):
        for (_, y), (x, other) in zip(coordinates(old), coordinates(new), strict=True):
            assert y == pytest.approx(other, abs=PLACE) and left <= x <= right
    lines = numbers(figure).splitlines()
    assert lines[0] == "# t" and lines[1] == "layer,a" and lines[3].startswith("1,-2")

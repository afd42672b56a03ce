"""Geometry of figures: everything inside its box, ticks in order, a gap where a number is missing."""

import itertools
import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checks.figures import axes, heatmaps
from checks.figures.bars import Series, dots, stacked
from checks.figures.geometry import LINE, Text
from checks.figures.heatmaps import Matrix, heatmap
from checks.figures.labels import outside, spread, thin
from checks.figures.numbers import apart, column, number, stated
from checks.figures.paths import SEEN, bends, polyline
from checks.figures.plots import Plot
from checks.figures.strips import strip
from checks.sections.head_grams import folded
from tests.page import finding

numbers = st.floats(-1e12, 1e12).map(lambda v: round(v, 6))
values = st.none() | numbers
tracks = st.lists(values, min_size=1, max_size=40)
sizes = st.floats(1e-9, 1e9)

# Coordinates are rounded to a tenth of a unit, so one may lie that far outside.
ROUNDING = 0.1


def coordinates(path: str) -> list[tuple[float, float]]:
    """Absolute points of a path with the commands that figures use: M m L H V l h v z."""
    points, at = [], (0.0, 0.0)
    for command, body in re.findall(r"([MmLHVlhvz])([^MmLHVlhvz]*)", path):
        given = [float(v) for v in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", body)]
        match command:
            case "M" | "L":
                at = (given[0], given[1])
            case "m":
                at = (at[0] + given[0], at[1] + given[1])
            case "l":
                for x, y in zip(given[::2], given[1::2], strict=True):
                    at = (at[0] + x, at[1] + y)
                    points.append(at)
                continue
            case "H":
                at = (given[0], at[1])
            case "V":
                at = (at[0], given[0])
            case "h":
                at = (at[0] + given[0], at[1])
            case "v":
                at = (at[0], at[1] + given[0])
        points.append(at)
    return points


def corners(lattice) -> list[tuple[float, float]]:
    """Corners of every run of cells of a heatmap in the coordinates of its panel."""
    return [
        (lattice.left + lattice.width * x, lattice.middle + lattice.height * (y + side * lattice.thick / 2))
        for group in lattice.classes
        for x, y in coordinates(group.d)
        for side in (-1, 1)
    ]


def cells(lattice) -> dict[tuple[int, int], str]:
    """(row, column) of every cell that is drawn → its tone."""
    return {
        (int(row), int(column) + k): group.tone
        for group in lattice.classes
        for column, row, count in re.findall(r"M(\d+) (\d+)h(\d+)", group.d)
        for k in range(int(count))
    }


def every_point(panel) -> list[tuple[float, float]]:
    paths = [p.d for p in (*panel.areas, *panel.lines, *panel.keys)] + [panel.grid]
    return [
        *(point for path in paths for point in coordinates(path)),
        *(corners(panel.cells) if panel.cells else ()),
        *((m.x, m.y) for group in panel.marks for m in group.marks if m),
        *((t.x, t.y) for t in (*panel.x_ticks, *panel.y_ticks, *panel.words)),
    ]


def assert_inside(panel) -> None:
    for x, y in every_point(panel):
        assert -ROUNDING <= x <= panel.width + ROUNDING, f"x = {x} outside 0 to {panel.width}"
        assert -ROUNDING <= y <= panel.height + ROUNDING, f"y = {y} outside 0 to {panel.height}"


def test_numbers_are_written_with_three_digits_and_thousands_grouped():
    assert [number(v) for v in (0.098765, 24, -3e-12, 12345, 0.99996, -0.99996, 0.0, 1e-3, 123456.7)] == [
        "0.0988", "24", "−3.00 × 10⁻¹²", "12,345", "1.00", "−1.00", "0", "0.00100", "1.23 × 10⁵",
    ]  # fmt: skip


@given(observed=numbers, threshold=numbers)
def test_an_observed_number_never_reads_like_a_limit_from_which_it_differs(observed, threshold):
    assume(observed != threshold)
    seen, limit = apart(observed, threshold)
    assert seen != limit
    assert limit == stated(threshold)


def test_digits_are_added_until_observed_and_limit_differ():
    assert apart(0.10004, 0.1) == ("0.10004", "0.1")
    assert apart(0.1 + 1e-15, 0.1)[0] != apart(0.1, 0.1)[0]


def test_a_column_keeps_its_decimals_and_leaves_a_dash_for_what_is_missing():
    assert column([0.5, 12.25, None]) == ["0.50", "12.25", "–"]


@given(low=numbers, span=sizes, count=st.integers(2, 9))
def test_linear_ticks_rise_and_lie_inside_the_domain(low, span, count):
    high = low + span
    assume(span > 1e-6 * max(abs(low), abs(high)))  # closer than that, float64 has no round numbers between
    values = [t.value for t in axes.linear_ticks(low, high, count)]
    assert values == sorted(set(values)) and all(low <= v <= high for v in values)
    assert 2 <= len(values) <= 2 * count + 1


@given(low=sizes, factor=st.floats(1.01, 1e15))
def test_log_ticks_rise_and_lie_inside_the_domain(low, factor):
    values = [t.value for t in axes.log_ticks(low, low * factor)]
    assert values == sorted(set(values)) and all(low <= v <= low * factor for v in values)
    assert len(values) <= 9


@given(low=numbers, span=sizes)
def test_tick_labels_of_one_axis_are_all_different(low, span):
    assume(span > 1e-6 * max(abs(low), abs(low + span)))
    labels = [t.label for t in axes.linear_ticks(low, low + span)]
    assert len(set(labels)) == len(labels)


@given(st.integers(1, 200))
def test_layers_are_ticked_at_whole_numbers_only(count):
    ticks = axes.layers(count).ticks
    assert ticks and all(t.label == str(int(t.value)) and 0 <= t.value < count for t in ticks)


@given(track=tracks, low=tracks)
def test_everything_in_a_line_chart_lies_inside_its_view_box(track, low):
    xs = range(len(track))
    lows = [low[i % len(low)] for i in xs]
    plot = Plot(x=axes.layers(len(track)), y=axes.linear([*track, *lows], label="y"), room=6)
    plot.band(xs, lows, track, "chance")
    plot.line(xs, track, "s0", label="track")
    plot.points(xs, track, "s0", tips=[""] * len(track))
    plot.level(0.0, "limit", label="limit")
    assert_inside(plot.panel("t", "d"))


@given(track=st.lists(st.none() | sizes, min_size=1, max_size=40))
def test_everything_in_a_log_chart_lies_inside_its_view_box(track):
    plot = Plot(x=axes.layers(len(track)), y=axes.logarithmic(track, label="y"))
    plot.line(range(len(track)), track, "s0")
    panel = plot.panel("t", "d")
    assert_inside(panel)
    assert sum(v is not None for v in track) == sum(len(coordinates(p.d.replace("h0", ""))) for p in panel.lines)


@given(
    matrix=st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=12)
    ),
    lower=st.booleans(),
)
def test_every_cell_of_a_heatmap_lies_inside_its_view_box(matrix, lower):
    known = [v for row in matrix for v in row if v is not None]
    classes = heatmaps.sequential(min(known, default=0.0), max(known, default=1.0))
    shown = Matrix(values=matrix, rows="layer", columns="head", lower=lower, borders=[1])
    panel = heatmap(shown, classes, title="t", measure="m", desc="d")
    assert_inside(panel)
    expected = {
        (i, j): classes.tone(v)
        for i, row in enumerate(matrix)
        for j, v in enumerate(row)
        if v is not None and (j < i or not lower)
    }
    assert cells(panel.cells) == expected
    # Beside it stand the numbers, three digits of each, in their places.
    written = [row.split(" ") for row in panel.cells.values.replace("−", "-").split(";")]
    assert {(i, j): v for i, row in enumerate(written) for j, v in enumerate(row) if v} == {
        (i, j): f"{matrix[i][j]:.3g}" for i, j in expected
    }


@given(low=numbers, span=sizes, value=st.floats(0, 1))
def test_a_heatmap_has_nine_to_sixteen_classes_that_cover_its_values(low, span, value):
    assume(span > 1e-6 * abs(low))
    classes = heatmaps.sequential(low, low + span)
    assert 9 <= len(classes.tones) <= 16 and len(set(classes.tones)) == len(classes.tones)
    slack = 1e-6 * span  # rounding of k·step
    assert classes.edges[0] <= low + slack and classes.edges[-1] >= low + span - slack
    assert list(classes.edges) == sorted(classes.edges)
    at = classes.tones.index(classes.tone(low + value * span))
    assert classes.edges[at] <= low + value * span + slack and low + value * span <= classes.edges[at + 1] + slack


def mapped(rows: int, columns: int):
    return heatmap(
        Matrix(values=[[float(i)] * columns for i in range(rows)], rows="head", columns="layer"),
        heatmaps.sequential(0, rows),
        title="t",
        measure="m",
        desc="d",
    )


def test_a_large_heatmap_is_averaged_over_blocks_and_says_so(monkeypatch):
    small, steps = heatmaps.shrink([[float(i)] * 100 for i in range(100)])
    assert len(small) * len(small[0]) <= heatmaps.CELLS
    assert steps == (2, 2) and small[0][0] == pytest.approx(0.5, abs=0.0)
    monkeypatch.setattr(heatmaps, "CELLS", 100)
    panel = mapped(20, 20)
    assert "blocks of 2 × 2" in panel.measure and panel.cells.values.startswith("0.5 0.5")


def test_a_heatmap_of_too_many_cells_to_point_at_draws_all_of_them_and_leaves_their_numbers_out():
    few, many = (mapped(rows, 50).cells for rows in (30, 31))
    assert len(cells(few)) == 1500 and few.values.count(" ") == 30 * 49
    assert len(cells(many)) == 1550 and many.values == ""


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 150)), min_size=2, max_size=30, unique_by=lambda p: round(p[0]))
)
def test_a_line_of_fewer_points_is_nowhere_further_from_the_whole_than_can_be_seen(points):
    points = sorted(points)
    kept = bends(points)
    assert kept[0] == points[0] and kept[-1] == points[-1] and set(kept) <= set(points)
    for (ax, ay), (bx, by) in itertools.pairwise(kept):
        for x, y in points:
            if ax <= x <= bx:
                assert abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) <= SEEN * math.hypot(bx - ax, by - ay) + 1e-6


@given(
    shares=st.dictionaries(
        st.text("abc", min_size=1, max_size=9),
        st.lists(st.none() | st.floats(0, 1), min_size=2, max_size=2),
        min_size=1,
        max_size=9,
    )
)
def test_bars_and_dots_lie_inside_their_view_boxes(shares):
    series = {"p": Series(name="p", tone="s0"), "q": Series(name="q", tone="s1")}
    rows = {name: dict(zip("pq", parts, strict=True)) for name, parts in shares.items()}
    x = axes.fixed(0, 1, label="share")
    common = dict(x=x, title="t", measure="m", desc="d")
    assert_inside(stacked(rows, series, beside=dict.fromkeys(rows, "99 %"), **common))
    intervals = {name: {k: (v, (-3.0, 3.0)) for k, v in parts.items()} for name, parts in rows.items()}
    assert_inside(dots(intervals, series, levels=(0.0, 5.0), **common))


@given(
    observed=numbers,
    threshold=numbers,
    ends=st.none() | st.tuples(sizes, sizes),
    comparator=st.sampled_from(["<=", "<", ">=", ">"]),
)
def test_a_strip_is_drawn_to_scale_inside_its_width(observed, threshold, ends, comparator):
    interval = ends and (observed - ends[0], observed + ends[1])
    others = [("twin", observed + end) for end in ends or ()]
    drawn = strip(finding(observed, threshold, comparator, interval=interval), controls=others, noise=ends and ends[0])
    spots = [
        *drawn.controls,
        *(drawn.noise or ()),
        drawn.limit,
        drawn.dot,
        *(drawn.interval or ()),
        drawn.pass_from,
        drawn.pass_from + drawn.pass_width,
    ]
    assert all(-1e-9 <= spot <= 100.01 for spot in [*spots, *(t.x for t in drawn.ticks)])  # percent, two decimals
    passes = observed <= threshold if comparator.startswith("<") else observed >= threshold
    inside = drawn.pass_from - 0.01 <= drawn.dot <= drawn.pass_from + drawn.pass_width + 0.01
    assert inside or not passes


def test_a_finding_without_a_number_has_no_strip():
    assert strip(finding(None)) is None and strip(finding(0.1, None)) is None


def test_a_missing_value_leaves_a_gap_and_a_lone_point_a_dot():
    assert polyline([(0, 0), (1, 1), None, (3, 3), None, (5, 5), (6, 6)]) == "M0 0l1 1M3 3h0M5 5l1 1"
    plot = Plot(x=axes.layers(3), y=axes.fixed(0, 1, label="y"))
    plot.line(range(3), [0.1, math.nan, 0.3], "s0")
    plot.points(range(3), [0.1, math.nan, 0.3], "s0", tips=["", "", ""])
    assert plot.lines[0].d.count("M") == 2 and len(plot.marks[0].marks) == 2


def test_a_value_on_the_axis_end_is_drawn_and_one_beyond_is_not():
    axis = axes.fixed(0, 1, label="y")
    assert (axis.at(0), axis.at(1), axis.at(1.5), axis.at(None), axis.at(math.inf)) == (0, 1, None, None, None)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12))
def test_spread_labels_keep_their_order_and_their_distance(positions):
    placed = spread(positions, LINE, 0, 200)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gaps = [placed[b] - placed[a] for a, b in zip(order, order[1:], strict=False)]
    assert all(gap >= LINE - 1e-9 for gap in gaps)
    assert all(-1e-9 <= y <= 200 + 1e-9 for y in placed)


@given(x=st.floats(0, 1), y=st.floats(0, 1), text=st.text("abc ", min_size=1, max_size=20))
def test_a_label_beside_any_point_on_the_axes_lies_inside_its_panel(x, y, text):
    plot = Plot(x=axes.fixed(0, 1, label="x"), y=axes.fixed(0, 1, label="y"))
    plot.beside(x, y, text)
    panel = plot.panel("t", "d")
    assert text in [word.text for word in panel.words]
    assert not outside(panel.words, panel.width) and not panel.unplaced


def test_a_direct_label_off_its_axis_is_named_with_the_label_and_the_axis():
    plot = Plot(x=axes.layers(3), y=axes.fixed(0, 1, label="share"), room=10)
    plot.level(1.5, "s1", label="chance")
    plot.line(range(3), [None, None, 2.0], "s0", label="measured")
    plot.beside(1, -0.5, "observed")
    plot.level(0.5, "s1", label="median")
    plot.level(7.0, "s1")  # without a label nothing is lost
    assert plot.panel("t", "d").unplaced == (
        "“chance”: 1.5 is outside “share” (0 to 1)",
        "“measured”: no point of its line lies on “layer” (-0.5 to 2.5) and “share” (0 to 1)",
        "“observed”: (1, -0.5) is outside “layer” (-0.5 to 2.5) and “share” (0 to 1)",
    )


def test_direct_labels_wider_than_their_room_or_more_than_the_height_holds_are_named():
    def lost(room: float, count: int) -> list[str]:
        plot = Plot(x=axes.layers(3), y=axes.fixed(0, 1, label="share"), room=room, height=148)
        for i in range(count):
            plot.level(0.5, "s1", label=f"label {i}")
        return [reason.split("”")[0] for reason in plot.panel("t", "d").unplaced]

    # 148 px less the margins of 8 and 40 and 4 px for the height of a letter hold 96/14 + 1, so 7 lines.
    assert lost(7, 7) == [] and lost(7, 8) == ["“label 7"]
    assert lost(3, 1) == ["“label 0"]


def test_tick_labels_that_would_touch_are_dropped():
    kept = thin([Text(x=10.0 * i, y=0, text="1000", anchor="middle") for i in range(10)])
    assert [t.x for t in kept] == [0, 40, 80]


def test_the_mixed_range_on_the_page_is_the_one_that_was_measured():
    from analyses.head_grams import MIXED

    assert folded.MIXED == MIXED


@given(st.lists(numbers, max_size=200))
def test_control_values_are_drawn_by_rank_with_their_extremes_and_counted(values):
    drawn = strip(finding(0.0, 1.0), controls=[("twin", v) for v in values])
    assert len(drawn.controls) == min(len(values), 24)
    assert list(drawn.controls) == sorted(drawn.controls)
    if len(values) > 1:
        assert drawn.controls_words.endswith(
            f": {len(values)} control values, {number(min(values))} to {number(max(values))}."
        )
    elif values:
        assert drawn.controls_words == f"Hollow: the control, {number(values[0])}."

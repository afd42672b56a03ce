"""One claim over many models as a drawing: every number at its place, from one condition, or one sentence why not."""

import re

import pytest

from analyses.errors import InputError
from checks.figures.family import SHAPES, axis_of, figure, place
from checks.report.drawings import numbers, svg
from checks.tables.across import COLUMNS, across, family
from checks.tables.tables import Table


def table(*rows: dict) -> Table:
    plain = dict.fromkeys(COLUMNS) | {"id": "X1", "quantity": "what is asked", "comparator": ">=", "threshold": 0.5}
    plain |= {"unit": "", "verdict": "holds"}
    return Table(name="X1", columns=COLUMNS, rows=[tuple((plain | row)[c] for c in COLUMNS) for row in rows])


SIZES = (10**8, 10**9, 10**10)
GROWING = [
    {"model": f"m{i}", "parameters": n, "observed": 0.2 + 0.3 * i, "low": 0.1 + 0.3 * i, "high": 0.25 + 0.3 * i}
    for i, n in enumerate(SIZES)
]


def marks(drawn) -> list[tuple[float, float]]:
    return sorted((mark.x, mark.y) for group in drawn.panels[0].marks for mark in group.marks)


def test_models_stand_at_their_sizes_on_a_log_axis_and_at_their_numbers():
    drawn = figure(table(*GROWING))
    (x0, y0), (x1, y1), (x2, y2) = marks(drawn)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)  # to a tenth
    assert drawn.panels[0].title == "X1 against parameters"


def test_an_interval_is_a_line_through_its_number_from_end_to_end():
    drawn = figure(table(*GROWING))
    lines = [[float(v) for v in re.findall(r"-?[\d.]+", path.d)] for path in drawn.panels[0].lines if path.tone == "s0"]
    assert len(lines) == 3
    for (x, y), (x0, y0, dx, dy) in zip(marks(drawn), sorted(lines), strict=True):  # a path's second point is relative
        assert (x0, dx) == (pytest.approx(x, abs=0.1), 0)
        assert (y0 - y) / -dy == pytest.approx(0.1 / 0.15, abs=0.01)  # up is less, and 0.1 of 0.15 lie below the number
    assert sum(path.tone == "limit dash" for path in drawn.panels[0].lines) == 1


def test_steps_are_the_axis_where_every_model_has_one_and_they_differ():
    training = [row | {"step": 1000 * i} for i, row in enumerate(GROWING)]
    assert figure(table(*training)).panels[0].title == "X1 against step"
    assert figure(table(*training), against="parameters").panels[0].title == "X1 against parameters"
    assert figure(table(*[row | {"step": 5} for row in GROWING])).panels[0].title == "X1 against parameters"
    assert figure(table(GROWING[0], *training[1:])).panels[0].title == "X1 against parameters"


def test_step_0_has_a_place_before_the_first_step_of_a_log_axis():
    axis = axis_of([0, 10, 10_000], "step")
    assert axis.kind == "log" and axis.at(place(0, axis)) == 0 < axis.at(place(10, axis))
    assert axis_of([0, 400, 4000], "step").kind == "linear"


def test_every_verdict_of_a_claim_with_a_number_has_a_sign_of_its_own():
    from checks.claims.verdicts import VERDICTS

    assert set(SHAPES) == set(VERDICTS) - {"not applicable"} and len(set(SHAPES.values())) == len(SHAPES)
    rows = [{**GROWING[0], "verdict": verdict, "parameters": 10 ** (i + 1)} for i, verdict in enumerate(SHAPES)]
    drawn = figure(table(*rows))
    assert {group.shape for group in drawn.panels[0].marks} == set(SHAPES.values())
    assert len(marks(drawn)) == len(SHAPES)


def test_numbers_stand_beside_the_drawing_and_a_model_without_one_is_left_out():
    drawn = figure(table(*GROWING, {"model": "bare", "parameters": 5}))
    assert numbers(drawn).splitlines()[1] == "model,parameters,X1,from,to,verdict"
    assert [row[0] for row in drawn.tables[0].rows] == ["m0", "m1", "m2"]


def test_a_models_name_cannot_put_markup_into_the_drawing():
    text = svg(figure(table(*[row | {"model": "<script>"} for row in GROWING])), 180)
    assert "<script>" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("rows", "against", "told"),
    [
        (GROWING[:1], None, "1 of 1 results have a number for X1; a family needs two"),
        (GROWING, "step", "m0 has no step"),
        (GROWING, "loss", "against 'loss'; expected one of parameters, step"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(rows, against, told):
    with pytest.raises(InputError, match=told):
        figure(table(*rows), against=against)


def result(model: str, statuses: str, *, claims: int = 2) -> tuple[dict, dict]:
    """A result whose claim X1 has a condition for each sign: p(ass), f(ail)."""
    findings = [
        {"status": {"p": "pass", "f": "fail"}[sign], "observed": float(i), "interval": None, "quantity": f"q{i}",
         "comparator": ">=", "threshold": 0.5, "unit": ""}
        for i, sign in enumerate(statuses)
    ]  # fmt: skip
    claim = {"id": "X1", "verdict": "holds", "p": None, "findings": findings}
    return {"architecture": {"parameters": 7}}, {"model": model, "claims": [claim], "stored": [], "claim_set": claims}


def test_a_family_is_of_the_one_condition_that_decides_in_most_results():
    results = [result("a", "pf"), result("b", "pf"), result("c", "fp")]
    assert family("X1", results).column("quantity") == ["q1"] * 3
    assert across("X1", results).column("quantity") == ["q1", "q1", "q0"]


def test_results_judged_by_several_sets_of_claims_are_not_put_side_by_side():
    for table_of in (across, family):
        with pytest.raises(InputError, match="a was judged by claim set 2, b by 1; judge all by one: `fathom report"):
            table_of("X1", [result("a", "p"), result("b", "p", claims=1)])

"""Claims over training: which steps, which numbers, and which checkpoints are the same under two names."""

import json
import shutil

import pytest

from analyses import records
from checks import cli
from checks.figures.rows import HEIGHT
from checks.sweep import plan, planning, request, steps, steps_drawn
from tests.figures.test_figures import coordinates
from tests.page import outcome
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Three steps of a training, the last of which serves the second once more."""
    base = tmp_path_factory.mktemp("training")
    for k, step in enumerate((0, 10)):
        tiny_checkpoint(base / f"step{step}", layers=3, seed=k, tokenizer=False)
    shutil.copytree(base / "step10", base / "step1000")
    out = base / "out"
    words = [base / f"step{step}" for step in (1000, 0, 10)]
    command = ["run", *words, "--only", "null_residual", "--device", "cpu", "--out", out, "--quiet"]
    assert cli.main([str(word) for word in command]) == 0
    options = request._defaults() | {"device": "cpu", "only": ("null_residual",)}
    wanted = [request.Wanted(pattern=str(word), options=options) for word in words]
    return planning.make(wanted, out, threads=1, local=True, command="fathom sweep")


def test_the_page_shows_steps_in_order_with_a_link_from_every_verdict(swept):
    page = steps.write(swept).read_text()
    assert page.index(">0</a>") < page.index(">10</a>") < page.index(">1,000</a>")
    for step in (0, 10, 1000):
        assert f'href="step{step}/report.html#claim-NR5"' in page
    assert "Not measured, or not applicable at any step: " in page and "DS1" in page


def test_steps_that_hold_the_same_tensors_are_named(swept):
    assert "step10 and step1000 hold the same tensors" in steps.write(swept).read_text()
    assert steps.facts(swept)["step10"] == {"step": 10, "content": "as step1000"}


def test_a_number_is_drawn_over_the_steps_with_its_limit_and_stands_in_a_table(swept):
    found = [steps._step(swept.out, element) for element in swept.elements]
    figure = steps_drawn.figure("f", "a training", sorted(found, key=lambda step: step.step), ["NR5"])
    assert len(figure.panels) == 1 and any("limit dash" in line.tone for line in figure.panels[0].lines)
    assert sum(len(marks.marks) for marks in figure.panels[0].marks) == 3
    judged = records.read_json(swept.out / "step10" / "gates.json")
    (observed,) = (claim["findings"][0]["observed"] for claim in judged["claims"] if claim["id"] == "NR5")
    assert figure.tables[0].rows[1] == ("10", steps.number(observed))


def test_every_row_has_its_number_over_the_steps_beside_its_limit(swept):
    """The places of the small track, inverted, are the numbers of the gates."""
    found = sorted((steps._step(swept.out, element) for element in swept.elements), key=lambda step: step.step)
    drawn = steps_drawn.spark(found, "NR5")
    findings = [step.claims["NR5"]["findings"][0] for step in found]
    values, limit = [finding["observed"] for finding in findings], findings[0]["threshold"]
    low, high = min(*values, limit), max(*values, limit)
    room = 0.05 * (high - low)  # of an axis
    heights = [y for _, y in coordinates(drawn["lines"][2].d.replace("h0", ""))]
    for value, height in zip(values, heights, strict=True):
        seen = high + room - height / HEIGHT * (high - low + 2 * room)
        # A place is written to a tenth of a unit, and of 40 units.
        assert seen == pytest.approx(value, abs=0.06 / HEIGHT * (high - low + 2 * room))
    assert "limit" in drawn["desc"] and steps.number(limit) in drawn["desc"]


def test_a_page_over_training_warns_where_no_controls_were_run():
    claims = {"NR5": outcome("NR5", analysis="null_residual")}
    run = [steps_drawn.Step(step=n, name=f"step{n}", href="", content=None, claims=claims) for n in (0, 10)]
    assert steps.summarise({"a training": run})["caution"].startswith("No controls have been run on these claims")


def test_the_page_is_a_pure_function_of_the_records(swept):
    assert steps.write(swept).read_bytes() == steps.write(swept).read_bytes()
    assert str(swept.out) not in steps.write(swept).read_text()


def test_one_checkpoint_is_no_training(swept):
    alone = plan.Plan(out=swept.out, elements=swept.elements[:1], command="")
    assert steps.write(alone) is None


def test_steps_over_decades_stand_on_a_log_axis_and_step_0_at_its_start():
    axis = steps_drawn.over([0, 1, 2, 1000])
    assert axis.kind == "log" and axis.at(steps_drawn.place(0, axis)) == 0
    assert 0 < axis.at(1) < axis.at(2) < axis.at(1000) <= 1
    assert steps_drawn.over([0, 400, 4000]).kind == "linear"


def test_a_name_that_is_no_name_cannot_break_the_page(swept, tmp_path):
    gates = json.loads((swept.out / "step0" / "gates.json").read_text())
    for claim in gates["claims"]:
        for finding in claim["findings"]:
            finding["quantity"] = "<script>alert(1)</script>"
    for name in ("step0", "step10"):
        records.write_json(tmp_path / name / "gates.json", gates)
    elements = tuple(element for element in swept.elements if element.source.slug != "step1000")
    page = steps.write(plan.Plan(out=tmp_path, elements=elements, command="")).read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page

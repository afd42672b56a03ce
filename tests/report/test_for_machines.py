"""What CI systems and scripts read: gates.json by its schema, JUnit XML, and the Markdown summary."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analyses.records import plain
from checks.claims import CLAIMS, INTEGRITY
from checks.claims.compare import Status
from checks.claims.judge import exit_code, judge
from checks.claims.verdicts import FROM_STATUS, VERDICTS
from checks.report import cases as outcomes
from checks.report.cases import Case, cases
from checks.report.junit import FORBIDDEN, junit
from checks.report.markdown import summary
from tests.page import finding, gates, outcome, stored

SCHEMA = json.loads((Path(__file__).parents[2] / "checks" / "claims" / "gates.schema.json").read_text(encoding="utf-8"))
HOSTILE = '<script>alert("1")</script>&amp; | `a` **b** [c](http://d) @e\n# f \x00\x1b]\ud800 www.g.h'
STATUSES = Status.__args__
Evidence = {"answer": "stable", "detail": "the number moves by 0 at most", "runs": [], "bands": [0.0, None]}


def valid(judged: dict) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(judged)))


def judged_by(status: str, **given) -> dict:
    """One identity and one claim, both of this status; `given` is changed in both."""
    claim = outcome("NR1", FROM_STATUS[status], status=status, **given)
    of_claims = ("verdict", "verdict_reason", "raw", "p_adjusted", "controls")
    identity = {k: v for k, v in claim.items() if k not in of_claims}
    integrity = identity | {"kind": "integrity", "id": "null_residual.resid"}
    return gates([claim], [integrity], stored=[stored("NR1.stored")])


def counted(xml: bytes) -> dict[str, int]:
    root = ET.fromstring(xml)
    names = ("testcase", "failure", "error", "skipped")
    found = {name: len(root.findall(f".//{name}")) for name in names}
    stated = [int(root.get(name)) for name in ("tests", "failures", "errors", "skipped")]
    assert stated == list(found.values())
    assert stated == [sum(int(s.get(n)) for s in root) for n in ("tests", "failures", "errors", "skipped")]
    return found


# --- the schema ---------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema_and_its_words_are_ours():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["status"]["enum"] == list(STATUSES)
    assert SCHEMA["$defs"]["verdict"]["enum"] == list(VERDICTS)


@pytest.mark.parametrize(
    "record", [{"skipped": "no tokenizer"}, {"error": "ValueError: boom"}], ids=["skipped", "crashed"]
)
def test_gates_of_a_model_whose_analyses_gave_nothing_are_valid(record):
    found = {name: record | {"model": "m"} for gate in (*CLAIMS, *INTEGRITY) for name in gate.reads}
    valid(plain(judge(found)))


@pytest.mark.parametrize("status", STATUSES)
def test_gates_of_every_status_are_valid_with_and_without_controls(status):
    for controls in (None, {}, {"control": Evidence, "noise": Evidence}):
        judged = judged_by(status)
        judged["claims"][0]["controls"] = controls
        valid(judged)


def test_the_schema_refuses_what_no_gate_can_say():
    bad = judged_by("pass")
    bad["claims"][0]["findings"] = [finding(None, 0.1, status="pass")]
    with pytest.raises(jsonschema.ValidationError, match="None is not of type 'number'"):
        valid(bad)
    for change in (
        lambda j: j["claims"][0].update(verdict="maybe"),
        lambda j: j["claims"][0].update(kind="integrity"),
        lambda j: j["claims"][0].update(undocumented=1),
        lambda j: j["integrity"][0].update(verdict="holds"),
        lambda j: j["integrity"][0]["findings"][0].pop("margin"),
        lambda j: j.pop("model"),
    ):
        judged = judged_by("fail")
        valid(judged)
        change(judged)
        with pytest.raises(jsonschema.ValidationError):
            valid(judged)


# --- cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("strict", [True, False])
def test_a_machine_sees_red_exactly_where_the_exit_code_does(status, strict):
    judged = judged_by(status)
    if not strict:
        judged["claims"] = []
    red = {case.status for case in cases(judged)} & {"fail", "error"}
    assert bool(red) == (exit_code(judged, strict=strict) in (1, 2))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_passed_gate_is_green_only_if_the_claim_holds(verdict):
    [case] = cases(gates([outcome("NR1", verdict, status="pass")]))
    assert (case.status == "pass") == (verdict == "holds") and case.word == verdict


def test_a_message_names_every_number_with_its_limit_and_the_reason():
    two = [finding(0.10004, 0.1), finding(0.2, 0.3, ">", quantity="p"), finding(None, None)]
    [case] = cases(gates([outcome("NR1", "undecided", findings=two, verdict_reason="moves by 2e-05")]))
    assert case.message == ("largest median |cos|: 0.10004, must be ≤ 0.1; p: 0.200, must be > 0.3; moves by 2 × 10⁻⁵")


# --- JUnit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "identity", "claim"),
    [
        ("pass", None, None),
        ("fail", "failure", "failure"),
        ("inconclusive", "failure", "skipped"),
        ("skip", "skipped", "skipped"),
        ("error", "error", "error"),
    ],
)
def test_a_failed_gate_is_a_failure_and_every_other_status_has_its_element(status, identity, claim):
    root = ET.fromstring(junit("m", cases(judged_by(status, verdict_reason="why", reason="why"))))
    for suite, wanted in zip(root, (identity, claim), strict=True):
        [child] = suite[0]
        assert child.tag == (wanted or "system-out")
        assert "why" in (child.get("message") or child.text)
    counted(junit("m", cases(judged_by(status))))


@pytest.mark.parametrize("meets", ["yes", "no", "undecided", "not asked"])
def test_a_number_in_stored_coordinates_is_never_green_nor_red(meets):
    case = cases(gates([], stored=[stored("NR1.stored", meets)]))[0]
    assert case.status == "skip" and case.word == "coordinate-dependent" and meets in case.message


def test_there_is_a_suite_for_the_identities_and_one_for_each_analysis():
    claims = [outcome("NR1", analysis="null_residual"), outcome("NR2", "does not hold", analysis="null_residual")]
    claims.append(outcome("DS1", "error", analysis="delta_svd", status="error"))
    xml = junit("org/model.v1", cases(gates(claims, judged_by("pass")["integrity"])))
    root = ET.fromstring(xml)
    assert [suite.get("name") for suite in root] == ["integrity", "null_residual", "delta_svd"]
    assert counted(xml) == {"testcase": 4, "failure": 1, "error": 1, "skipped": 0}
    assert root.find(".//testcase").get("classname") == "org/model_v1.integrity"


def test_no_case_at_all_is_an_empty_document():
    assert counted(junit("m", [])) == {"testcase": 0, "failure": 0, "error": 0, "skipped": 0}


@given(text=st.text() | st.just(HOSTILE), status=st.sampled_from(list(outcomes.Status.__args__)))
def test_any_text_survives_xml_but_for_what_xml_cannot_write(text, status):
    [[element]] = ET.fromstring(junit(text, [Case(suite=text, name=text, status=status, message=text)]))
    # XML reads a carriage return in text as a line feed; in an attribute it is escaped.
    assert element.get("name") == FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


# --- Markdown -----------------------------------------------------------------------------------------------------


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_the_summary_opens_with_what_failed_and_folds_the_rest_away():
    found = [Case(suite="s", name=status, status=status, message="why") for status in ("pass", "skip", "error", "fail")]
    page = rendered(summary("Fathom:", "m", found, "One sentence."))
    assert "<h2>Fathom: <code>m</code></h2>" in page and "<p>One sentence.</p>" in page
    assert "1 error, ❌ 1 failed, ⚪ 1 skipped, ✅ 1 passed" in page
    shown, _, folded = page.partition("<details>")
    assert "<td>error</td>" in shown and "<td>fail</td>" in shown and "<td>pass</td>" not in shown
    assert "<td>pass</td>" in folded and "2 others" in folded
    assert page.count("<table>") == 2


def test_a_summary_of_nothing_says_so():
    assert "Nothing was evaluated." in summary("Fathom:", "m", [])


@given(text=st.text(st.sampled_from("ab \n|`*_[](){}<>&#~!$\\^-+=:/.@w1\"'") | st.characters()) | st.just(HOSTILE))
def test_no_text_becomes_markup_in_the_summary(text):
    case = Case(suite=text, name=text, status="fail", message=text, word=text)
    page = rendered(summary("Fathom:", text, [case], text))
    tags = {"h2", "code", "p", "table", "thead", "tbody", "tr", "th", "td"}

    class Reader(HTMLParser):
        cells, inside, texts = 0, False, ()

        def handle_starttag(self, tag, attributes):
            assert tag in tags and not attributes, (tag, attributes)
            self.cells += tag == "td"

        def handle_data(self, data):
            self.texts += (data,)

    reader = Reader()
    reader.feed(page)
    assert reader.cells == 3
    # Runs of white space are one space in HTML; markdown-it writes U+0000 as U+FFFD; half a character is a ?.
    wanted = " ".join(text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}").split())
    assert wanted in " ".join("".join(reader.texts).split()) or not wanted


def test_an_address_or_a_mention_is_not_linked():
    text = summary("Fathom:", "m", [Case(suite="s", name="http://x.y www.x.y @z a@b.c", status="fail")])
    assert "http://x" not in text and "www.x" not in text and "@z" not in text and "@b" not in text

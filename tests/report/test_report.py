"""The page from outcomes and records: complete, honest about what is missing, safe, and the same every time."""

import base64
import hashlib
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

from analyses import registry
from analyses.errors import InputError
from checks.claims import CLAIMS
from checks.claims.judge import current_records
from checks.figures.geometry import Figure
from checks.figures.labels import outside
from checks.report import rendering, words
from checks.report.index import render_index
from checks.report.page import render_model
from checks.report.rendering import environment
from checks.sections.sentences import SENTENCES, findings
from checks.verify.embedded import SCHEME
from tests.figures.test_figures import coordinates
from tests.page import attention_record, finding, gates, manifest, outcome, write_folder

TEMPLATES = Path(__file__).parents[2] / "templates"
HOSTILE = '<script>alert("1")</script>&<b>'


class Page(HTMLParser):
    """Text, ids, links, headings and tags of a page; fails on a tag that is closed out of order."""

    VOID = ("meta", "link", "br", "img", "input", "hr")
    OPTIONAL = {"td": {"td", "th"}, "th": {"td", "th"}, "tr": {"td", "th", "tr"}, "tbody": {"td", "th", "tr"}}
    """Elements that the start of another ends, where their own end tag may be left out."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.headings: list[int] = []
        self.feed(source)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.end_implied(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.targets += [given[key] for key in ("href", "src", "xlink:href") if key in given]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def end_implied(self, tag):
        while self.open and self.open[-1] in self.OPTIONAL.get(tag, ()):
            self.open.pop()

    def handle_endtag(self, tag):
        if self.open[-1:] != [tag]:
            self.end_implied(tag)
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


EVERY_VERDICT = [outcome(f"C{i}", verdict) for i, verdict in enumerate(words.VERDICTS)]


@pytest.fixture
def folder(tmp_path) -> Path:
    judged = gates(EVERY_VERDICT, [outcome("attention_stats.sum", findings=[finding(1e-9, 1e-5)])])
    return write_folder(tmp_path / "m", judged, manifest(), attention_stats=attention_record())


def test_the_answer_counts_every_verdict_once():
    assert words.answer([word for word in words.VERDICTS if word != "coordinate-dependent"]) == (
        "1 of 6 claims holds; 1 does not; 1 says nothing, because its control shows the same; 1 is undecided; "
        "1 does not apply to this model; 1 could not be evaluated, because its analysis failed."
    )
    assert words.answer(["does not hold"] * 2) == "0 of 2 claims hold; 2 do not."
    assert words.answer([]) == "No claim was evaluated."


def test_a_margin_says_its_side_and_the_limit_at_which_the_answer_changes():
    assert words.margin(finding(0.07, 0.1, interval=[0.05, 0.08])) == (
        "0.0300 inside the limit; the answer changes at a limit of 0.0800, 20 % away."
    )
    assert words.margin(finding(0.7, 0.8, ">=", status="fail", interval=[0.6, 0.75], where="q_proj")) == (
        "0.100 outside the limit (in q_proj); the answer changes at a limit of 0.750, 6.3 % away."
    )
    # The interval is held against another bound, so only the number itself can meet a moved limit.
    assert "at a limit of −0.600, 20 % away" in words.margin(
        finding(-0.6, -0.5, interval=[-0.9, -0.1], interval_bound=0.0)
    )
    assert words.margin(finding(0.07, 0.1), 0.003).startswith("0.0300 inside the limit; rounding moves it by 0.0030; ")
    assert words.margin(finding(0.4, 0.0, ">")) == "0.400 inside the limit."
    assert words.margin(finding(0.1, 0.1)) == "Exactly at the limit."
    assert words.margin(finding(None)) == ""


def test_what_was_counted_stands_beside_what_is_needed():
    findings = [finding(n={"pairs": 23, "side": 64}), finding(n={"pairs": 20})]
    assert words.counted(findings, {"pairs": 4}) == "20 pairs (needs 4); side 64"
    assert words.counted([finding(n={})], {"layers": 12}) == "0 layers (needs 12)"


def test_every_claim_stands_in_the_matrix_and_on_a_card(folder):
    page = Page(render_model(folder))
    for claim in EVERY_VERDICT:
        sentence = claim["claim"][0].upper() + claim["claim"][1:]
        assert claim["claim"] in page.text and page.text.count(sentence) == 1, claim["id"]
        assert f"claim-{claim['id']}" in page.ids and f"#claim-{claim['id']}" in page.targets
        assert claim["verdict"] in page.text


def test_a_section_says_the_command_that_measures_it_again(tmp_path):
    command = "fathom run a/b@abc --dtype bfloat16 --only attention_stats,delta_svd --seed 3"
    described = manifest("a/b", command=command, source={"commit": "of the software, not of the model"})
    folder = write_folder(tmp_path, gates([outcome("A")]), described, attention_stats=attention_record())
    text = Page(render_model(folder)).text
    assert "fathom run a/b@abc --dtype bfloat16 --seed 3 --only attention_stats" in text


def test_claims_stand_in_the_order_of_the_gates_in_overview_and_section(folder):
    """A sentence that says “that descriptor” may then lean on the one before."""
    source = render_model(folder)
    for anchor in ('href="#claim-{}"', 'id="claim-{}"'):
        places = [source.index(anchor.format(claim["id"])) for claim in EVERY_VERDICT]
        assert places == sorted(places)


def test_the_page_is_well_formed_and_its_inner_links_lead_somewhere(folder):
    page = Page(render_model(folder))
    assert len(set(page.ids)) == len(page.ids)
    assert {t[1:] for t in page.targets if t.startswith("#")} <= set(page.ids)
    named = [i for _, a in page.tags for k in ("aria-labelledby", "aria-describedby") for i in a.get(k, "").split()]
    assert named and set(named) <= set(page.ids)


def test_headings_are_in_order_and_landmarks_are_there(folder):
    page = Page(render_model(folder))
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    tags = [tag for tag, _ in page.tags]
    assert all(landmark in tags for landmark in ("header", "nav", "main", "footer"))
    assert ("a", {"class": "skip", "href": "#main"}) in page.tags
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    drawings = [a for tag, a in page.tags if tag == "svg" and "role" in a]
    assert drawings and all(a["role"] == "img" for a in drawings)
    # Each is named by the title that it begins with.
    named = re.findall(r'<svg role="img"[^>]*><title>[^<]+</title>', render_model(folder))
    assert len(named) == len(drawings)


def test_the_page_is_one_file_without_a_script_or_an_address(folder):
    source = render_model(folder)
    page = Page(source)
    assert not [t for t in page.targets if not t.startswith(("#", SCHEME))]
    assert source.count("<script") == 1 and "url(" not in source and "@import" not in source


def test_the_one_script_is_small_and_the_only_one_that_may_run(folder):
    source = render_model(folder)
    script = re.search("<script>(.*)</script>", source, re.DOTALL)[1]
    assert len(script.encode()) <= 6_000
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', source)[1])
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    # Nothing from a record may reach the script, and the script reaches for nothing.
    assert script == rendering.script("report.html")
    assert not re.search(r"innerHTML|outerHTML|eval|Function|fetch|XMLHttp|import|cookie|Storage|https?:", script)


def test_the_same_records_make_the_same_bytes(folder):
    first = render_model(folder)
    environment.cache_clear()
    assert render_model(folder) == first


def test_no_number_reads_nan_or_none_or_inf(tmp_path):
    record = attention_record()
    record["dynamic"][1]["mean_logit_std_per_head"] = [None, None]
    record["dynamic"][1]["entropy_fraction_per_head"] = [None, 0.5]
    record["absent"] = {"dynamic.*": "no query sees two keys"}
    claims = [outcome("A", "not applicable", findings=[finding(None, None, status="skip", reason="no heads")])]
    page = Page(render_model(write_folder(tmp_path, gates(claims), manifest(), attention_stats=record)))
    assert not re.search(r"\b(nan|None|none|null|inf|infinity|undefined)\b", page.text)
    assert not re.search(r"\b(nan|None|inf)\b", " ".join(a.get("d", "") for _, a in page.tags))


def test_a_missing_value_leaves_its_cell_out_and_a_dash_in_the_table(tmp_path):
    record = attention_record()
    whole = render_model(write_folder(tmp_path / "a", gates([]), manifest(), attention_stats=record))
    record["dynamic"][1]["entropy_fraction_per_head"] = [None, 0.5]
    record["absent"] = {"dynamic.*": "no query sees two keys"}
    gap = render_model(write_folder(tmp_path / "b", gates([]), manifest(), attention_stats=record))
    rows = [re.search(r'data-cells="([^"]*)"', source)[1].split(";")[0].split(" ") for source in (whole, gap)]
    assert rows[0][1] == "0.15" and rows[1][1] == "" and rows[0][::2] == rows[1][::2]
    assert "<td>–<" in gap and "<td>–<" not in whole


def test_a_hostile_name_is_text_wherever_it_appears(tmp_path):
    judged = gates([outcome("A")], model=HOSTILE)
    described = manifest(HOSTILE, files={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE})
    folder = write_folder(
        tmp_path / "m", judged, described, attention_stats=attention_record(model=HOSTILE, notes=[HOSTILE])
    )
    for source in (render_model(folder), render_index([folder], tmp_path)):
        assert source.count("<script") == 1 and "<b>" not in source
        assert html.escape(HOSTILE, quote=False) in source.replace("&#34;", '"')
        Page(source)


def test_no_template_marks_a_string_safe_or_computes():
    for template in sorted(TEMPLATES.iterdir()):
        tags = re.findall(r"\{\{.*?\}\}|\{%.*?%\}", template.read_text(encoding="utf-8"), re.S)
        assert not [t for t in tags if "safe" in t or "autoescape" in t], template.name
        bare = [re.sub(r'"[^"]*"', "", t).strip("{}%-") for t in tags]  # without literals and whitespace control
        assert not [t for t in bare if re.search(r"[*/+<>]|\s-\s|\d\.\d", t)], template.name


def test_a_key_that_a_template_needs_and_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="architecture"):
        rendering.render("report.html", {"model": "m", "anchors": []})


@pytest.mark.parametrize("section", registry.sections(), ids=lambda section: section.name)
def test_a_template_that_cites_a_number_which_no_record_has_fails(section):
    """Without any of its numbers no section can be written, so none of them stands in the template itself."""
    cited = re.findall(r"s\.facts\.(\w+)", (TEMPLATES / f"{section.name}.html").read_text(encoding="utf-8"))
    assert cited
    summary = {"name": section.name, "facts": {}}
    with pytest.raises(jinja2.UndefinedError, match="|".join(cited)):
        environment().get_template(f"{section.name}.html").render(s=summary)


def test_a_record_without_a_key_that_a_figure_needs_is_an_error(tmp_path):
    record = attention_record()
    del record["temperature"]
    with pytest.raises(InputError, match="temperature: expected .*, it is missing"):
        render_model(write_folder(tmp_path, gates([]), manifest(), attention_stats=record))


def test_a_crashed_analysis_says_so_and_the_rest_is_there(folder):
    write_folder(
        folder, gates(EVERY_VERDICT), manifest(), head_grams={"analysis": "head_grams", "error": "ValueError: boom"}
    )
    page = Page(render_model(folder))
    assert "This analysis failed" in page.text and "ValueError: boom" in page.text
    assert "What does each head attend to" in page.text and "Entropy of attention" in page.text


def test_a_skipped_analysis_gives_its_reason_and_a_missing_one_says_that_it_was_not_run(folder):
    write_folder(folder, gates([]), manifest(), delta_svd={"analysis": "delta_svd", "skipped": "no tokenizer"})
    text = Page(render_model(folder)).text
    assert "Not measured : no tokenizer" in text and "this analysis was not run" in text


def test_attention_without_a_forward_pass_shows_the_reason(tmp_path):
    record = attention_record(dynamic=None, temperature=None, calibration=None, queries=None)
    record["absent"] = dict.fromkeys(("dynamic", "temperature", "calibration", "queries"), "no tokenizer")
    text = Page(render_model(write_folder(tmp_path, gates([]), manifest(), attention_stats=record))).text
    assert "Attention itself is not: no tokenizer." in text


def test_a_page_on_which_every_claim_is_skipped_renders(tmp_path):
    skipped = [
        outcome(f"C{i}", "not applicable", reason="not measured", verdict_reason="not measured",
                findings=[finding(None, None, status="skip", reason="not measured", n={})])
        for i in range(3)
    ]  # fmt: skip
    text = Page(render_model(write_folder(tmp_path, gates(skipped), manifest()))).text
    assert "0 of 3 claims hold; 3 do not apply to this model." in text


def test_controls_that_were_not_run_are_called_that_and_warned_of_in_the_masthead(folder):
    source = render_model(folder)
    text = Page(source).text
    assert words.CAUTION in text
    # Two signs of each claim in the overview, and one line on its card.
    assert source.count("<title>control: not\u00a0run</title>") == len(EVERY_VERDICT)
    assert source.count("<title>rounding: not\u00a0run</title>") == len(EVERY_VERDICT)
    assert text.count("Controls not run") == len(EVERY_VERDICT)


def test_controls_that_were_run_are_shown_and_need_no_warning(tmp_path):
    controls = {name: {"answer": "yes", "detail": f"detail of {name}"} for name in words.CONTROLS}
    page = Page(render_model(write_folder(tmp_path, gates([outcome("A", controls=controls)]), manifest())))
    assert "Until they are" not in page.text and "not run" not in page.text.replace("was not run", "")
    assert all(f"detail of {name}" in page.text for name in words.CONTROLS)
    run = {"name": "shuffled", "seed": 0, "status": "fail", "observed": [0.5], "where": None}
    drawn = outcome(
        "A", controls=controls | {"control": controls["control"] | {"runs": [run, run | {"observed": [None]}]},
                                  "noise": controls["noise"] | {"bands": [0.01]}}
    )  # fmt: skip
    source = render_model(write_folder(tmp_path, gates([drawn]), manifest()))
    (strip,) = re.findall(r'<div class="strip.*?</div>', source, re.S)
    assert strip.count('class="noise"') == 1 and strip.count("<circle cx=") == 1  # beside the dot
    assert "Hollow: the control, 0.500." in strip and "rounding moves it by 0.010" in source
    some = outcome("A", controls=controls | {"noise": None})
    text = Page(render_model(write_folder(tmp_path, gates([some]), manifest()))).text
    assert words.PARTLY in text


def test_a_broken_identity_comes_before_everything_else(tmp_path):
    broken = outcome("x.sum", "does not hold", claim="rows sum to one", findings=[finding(0.1, 1e-5, status="fail")])
    source = render_model(write_folder(tmp_path, gates([outcome("A")], [broken]), manifest()))
    assert source.index("The numbers below cannot be trusted") < source.index("All claims</h2>")
    assert "Rows sum to one" in Page(source).text


def test_integrity_names_the_identity_closest_to_its_tolerance():
    outcomes = [
        outcome("a", findings=[finding(1e-12, 1e-9, quantity="first")]),
        outcome("b", findings=[finding(4e-6, 1e-5, quantity="second")]),
        outcome("c", status="skip"),
    ]
    assert words.integrity(outcomes) == (
        "2 of 2 identities hold; the worst violation is 4.0 × 10⁻⁶ of the 1.0 × 10⁻⁵ allowed (second); 1 was not asked."
    )


def test_an_observed_number_is_written_until_it_differs_from_its_limit(tmp_path):
    claims = [outcome("A", "does not hold", findings=[finding(0.1000004, 0.1, status="fail")])]
    text = Page(render_model(write_folder(tmp_path, gates(claims), manifest()))).text
    # On the axis of all claims, and in the line above the card.
    assert render_model(tmp_path).count("0.1000004, limit ≤ 0.1") == 2 and "0.1000004, limit ≤ 0.1" in text


def test_each_erratum_is_told_once_with_its_claims(folder):
    claims = [outcome(f"C{i}", errata="the old number is another matrix's") for i in range(3)]
    text = Page(render_model(write_folder(folder, gates(claims), manifest()))).text
    assert text.count("The old number is another matrix's.") == 1 and "(C0, C1, C2)" in text


def test_the_index_lists_claims_by_models_with_relative_links(tmp_path):
    one = write_folder(tmp_path / "one", gates([outcome("A"), outcome("B")], model="one"), manifest("one"))
    two = write_folder(tmp_path / "two", gates([outcome("A", "does not hold")], model="two"), manifest("two"))
    page = Page(render_index([one, two], tmp_path))
    assert "2 claims, 2 models" in page.text and "not asked" in page.text
    assert {"one/report.html#claim-A", "one/report.html#claim-B", "two/report.html#claim-A"} <= set(page.targets)
    assert not [t for t in page.targets if t.startswith(("/", "http"))]
    assert words.CAUTION in page.text


def test_a_folder_without_gates_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="gates.json"):
        render_model(tmp_path)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio of WCAG 2, 1 to 21."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def palettes() -> list[dict[str, str]]:
    """Light and dark colours of the style sheet."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    return [found for block in blocks if (found := dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)))]


TEXT = ("ink", "soft", "accent", "holds", "fails", "undecided", "coordinate", "uninformative", "na", "error")


def test_text_and_verdicts_contrast_with_both_backgrounds():
    light, dark = palettes()
    for palette in (light, dark):
        for name in TEXT:
            for ground in ("page", "raised"):
                # WCAG 2 AA for text.
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
        for i in range(8):
            # WCAG 2 AA for graphics.
            assert contrast(palette[f"s{i}"], palette["page"]) >= 3, f"s{i}"


def test_the_sequential_scale_moves_steadily_from_the_page_to_its_opposite():
    for palette in palettes():
        ramp = [luminance(palette[f"q{i}"]) for i in range(16)]
        assert ramp == sorted(ramp) or ramp == sorted(ramp, reverse=True)
        dark = luminance(palette["page"]) < 0.1  # on which the palest tone must still be seen
        assert (1.5 if dark else 1) <= contrast(palette["q0"], palette["page"]) < 1.7 < 7 < contrast(palette["q15"], palette["page"])


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory) -> Path:
    """Folder of a real run on a tiny model, whose six layers are enough for every section to draw all its figures."""
    from checks.cli import main
    from tests.tiny import tiny_checkpoint

    out = tmp_path_factory.mktemp("build")
    model = tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", layers=6)
    assert main(["run", str(model), "--out", str(out), "--device", "cpu", "--quiet"]) in (0, 1)
    return out / "tiny"


@pytest.fixture(scope="module")
def measured(measured_folder) -> str:
    return (measured_folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(measured_folder) -> dict[str, dict[str, Figure]]:
    """Section → name in the template → figure."""
    found = current_records(measured_folder)
    return {section.name: section.figures(found[section.name]) for section in registry.sections()}


FIGURES = (
    "null_residual-grams",
    "null_residual-invariant",
    "null_residual-cosine",
    "null_residual-matched",
    "null_residual-rank",
    "null_residual-scales",
    "null_residual-modes",
    "schedule_fit-main",
    "schedule_fit-families",
    "schedule_fit-weights",
    "head_grams-folded",
    "head_grams-similarity",
    "head_grams-curvature",
    "head_grams-overlap",
    "attention_stats-entropy",
    "attention_stats-spread",
    "head_geometry-scatter",
    "head_geometry-parts",
    "delta_svd-depth",
    "delta_svd-directions",
    "delta_svd-phases",
    "delta_svd-annealing",
    "delta_svd-scree",
    "residual_stream-ways",
    "weight_spectra-exponents",
)


def test_every_section_draws_its_figures_from_real_records(measured):
    page = Page(measured)
    assert [name for name in FIGURES if name not in page.ids] == []
    assert not re.search(r"\b(nan|NaN|None|inf|Infinity)\b", page.text)
    assert "This analysis failed" not in page.text


def test_every_figure_that_a_section_draws_has_its_place_in_the_template(drawn, measured):
    placed = [name for name in re.findall(r'<figure id="([^"]+)"', measured) if name != "network"]
    figures = [figure.id for section in drawn.values() for figure in section.values()]
    assert sorted(FIGURES) == sorted(figures)
    assert [name for name in figures if placed.count(name) != 1] == [], "drawn, but not once on the page"


@pytest.mark.parametrize("section", registry.sections(), ids=lambda section: section.name)
def test_every_figure_is_drawn_under_its_own_name(section, drawn):
    figures = drawn[section.name]
    assert {name: figure.id for name, figure in figures.items()} == {name: f"{section.name}-{name}" for name in figures}


@pytest.mark.parametrize("gate", [gate for gate in CLAIMS if gate.row == "model"], ids=lambda gate: gate.id)
def test_every_claim_about_the_model_has_its_short_sentence(gate):
    """Otherwise masthead and overview fall back on the gate's own, which is too long for a line."""
    found = SENTENCES[gate.id]
    assert len(found.short) <= 50 and not found.short.endswith(".")
    assert all(text.endswith(".") and text[0].isupper() for text in (found.holds, found.fails))


def test_a_masthead_names_findings_of_either_kind_from_several_sections():
    claims = [outcome(id, verdict, analysis=analysis) for id, verdict, analysis in (
        ("NR3", "holds", "null_residual"), ("NR4", "holds", "null_residual"), ("DS3", "holds", "delta_svd"),
        ("SF3", "does not hold", "schedule_fit"), ("DS1", "undecided", "delta_svd"),
    )]  # fmt: skip
    assert findings(claims, "holds") == [SENTENCES["DS3"].holds, SENTENCES["NR3"].holds, SENTENCES["NR4"].holds]
    assert findings(claims, "does not hold") == [SENTENCES["SF3"].fails]


def test_every_word_in_a_drawing_has_its_place_and_fits_its_panel(drawn):
    lost = [
        f"{figure.id}, {panel.title}: {reason}"
        for section in drawn.values()
        for figure in section.values()
        for upper in figure.panels
        for panel in (upper, *upper.below)
        for reason in (
            *panel.unplaced,
            *outside((*panel.words, *panel.x_ticks, *panel.y_ticks), panel.width),
        )
    ]
    assert lost == []


def test_everything_drawn_from_real_records_lies_inside_its_view_box(measured):
    sizes = re.findall(r'<svg role="img" viewBox="0 0 ([\d.]+) ([\d.]+)"', measured)
    bodies = re.findall(r'<svg role="img" viewBox=.*?</svg>', measured, re.S)
    assert len(bodies) == len(sizes) > 80
    for (width, height), body in zip(sizes, bodies, strict=True):
        for path in re.findall(r' d="([^"]+)"', body):
            for x, y in coordinates(path):
                # Coordinates are rounded to a tenth of a unit.
                assert -0.1 <= x <= float(width) + 0.1 and -0.1 <= y <= float(height) + 0.1, path
        for x, y in re.findall(r' x="([^"]+)" y="([^"]+)"', body):
            assert 0 <= float(x) <= float(width) and 0 <= float(y) <= float(height)


def test_every_drawing_names_itself_and_says_what_is_found(measured):
    found = re.findall(r'<svg role="img" viewBox[^>]*><title>(.*?)</title>(?:<desc>(.*?)</desc>)?', measured)
    assert len(found) == measured.count('<svg role="img" viewBox')
    # A row of a figure says both in one sentence.
    assert all(title and (desc or " from " in title or "no number" in title) for title, desc in found)


PAGES = ("checks.report.page", "checks.report.index", "checks.report.comparison", "checks.verify.embedded")


@pytest.mark.parametrize("module", PAGES)
def test_no_page_needs_the_library_that_measures(module):
    code = f"import sys, {module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

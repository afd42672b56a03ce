"""What is drawn, measured where it is drawn: labels that lie apart and inside, and places that give back the numbers.

Places are read in pixels of the window, and turned into numbers by the labels of the axes alone.
"""

import json
import re

import numpy as np
import pytest

from checks.figures.numbers import number

LABELS = """() => {
    const seen = (at) => { const box = at.getBoundingClientRect(); return box.width && box.height ? box : null; };
    const found = [];
    const boxes = document.querySelectorAll('.panel svg[role=img], .strip svg, .ticks');
    for (const drawing of boxes) {
        const frame = seen(drawing.closest('.panel, .strip, .track, th') ?? drawing);
        if (!frame) continue;
        const words = [...drawing.querySelectorAll('text, :scope > span')].filter(seen).map((at) => [at, seen(at)]);
        words.forEach(([at, a], k) => {
            const said = `${drawing.closest('figure, article, table')?.id}: ${at.textContent}`;
            // A hanging pixel is no letter: boxes of text are as tall as its tallest glyph.
            if (a.left < frame.left - 8 || a.right > frame.right + 8
                || a.top < frame.top - 2 || a.bottom > frame.bottom + 2)
                found.push(`${said} leaves its box`);
            for (const [other, b] of words.slice(k + 1))
                if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3.5)
                    found.push(`${said} lies on ${other.textContent}`);
        });
    }
    return [found, boxes.length];
}"""
DRAWN_ONCE = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
SMALLEST = """() => Math.min(...[...document.querySelectorAll('.panel svg text')]
    .filter((at) => at.getClientRects().length)
    .map((at) => parseFloat(getComputedStyle(at).fontSize) * at.ownerSVGElement.getScreenCTM().a))"""


@pytest.mark.parametrize("name", ["measured/report.html", "wide/report.html", "deep/report.html", "compare.html"])
def test_no_label_lies_on_another_or_leaves_its_box_and_each_has_twelve_pixels(visit, name):
    page = visit(name, unfold=True)
    for width in (320, 360, 768, 1200, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(DRAWN_ONCE)
        found, drawings = page.evaluate(LABELS)
        assert drawings > 5 and found == [], width
        assert page.evaluate(SMALLEST) >= 11.9, width  # 12 px, where a panel may be a pixel narrower than its drawing


def read(site, name: str) -> dict:
    return json.loads((site / "measured" / f"{name}.json").read_text())


def value(label: str) -> float:
    """The number that a label of an axis says."""
    mantissa, _, power = label.replace("−", "-").replace(",", "").partition(" × 10")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    return float(mantissa) * 10 ** int(power.translate(digits) or 0) if power else float(mantissa)


def axis(ticks: list[tuple[str, float]]) -> tuple[float, float]:
    """(number at pixel 0, numbers per pixel) of a linear axis, by the labels of its ticks."""
    labels, places = [value(label) for label, _ in ticks], [place for _, place in ticks]
    slope, start = np.polyfit(places, labels, 1)
    assert np.allclose(np.polyval([slope, start], places), labels, atol=abs(slope))  # a label stands within a pixel
    return start, slope


DRAWN = """([figure, k]) => {
    const svg = document.querySelectorAll(`#${figure} .panel svg[role=img]`)[k];
    const middle = (at) => { const box = at.getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2]; };
    const ticks = (css, n) => [...svg.querySelectorAll(`${css} text`)].map((at) => [at.textContent, middle(at)[n]]);
    const pixels = (at, d) => {
        const to = at.getScreenCTM(), found = [];
        let last = [0, 0];
        for (const [, go, x, y, run] of d.matchAll(/([Mm])(-?[\\d.]+) ?(-?[\\d.]+)h([\\d.]+)/g)) {
            last = go === 'M' ? [+x, +y] : [last[0] + +x, last[1] + +y];
            for (let n = 0; n < Math.max(1, +run); n++)
                found.push([to.a * (last[0] + n + (+run ? 0.5 : 0)) + to.e, to.d * last[1] + to.f]);
        }
        return found;
    };
    const tone = (at, name) => getComputedStyle(at)[name];
    return {
        across: ticks('g.middle', 0), up: ticks('g.end', 1),
        heads: [...svg.querySelectorAll('[data-l]')].flatMap((row) => [...row.children].map((at) => middle(at))),
        dots: [...svg.querySelectorAll('path.dots')].flatMap((at) => pixels(at, at.getAttribute('d'))),
        cells: [...svg.querySelectorAll('.cell')].flatMap((at) =>
            pixels(at, at.getAttribute('d')).map((place) => [...place, tone(at, 'stroke')])),
        key: [...svg.querySelectorAll('.key')].map((at) => [tone(at, 'fill'), at.getBoundingClientRect().left,
            at.getBoundingClientRect().right]),
        words: [...svg.querySelectorAll('text')].map((at) => [at.textContent, ...middle(at)]),
    };
}"""


def places(drawn: dict, which: str) -> np.ndarray:
    """Numbers of every mark by the two axes, (mark, 2), and what one pixel is on each."""
    (x0, dx), (y0, dy) = axis(drawn["across"]), axis(drawn["up"])
    seen = np.array(drawn[which])
    return np.stack([x0 + dx * seen[:, 0], y0 + dy * seen[:, 1]], 1), np.abs([dx, dy])


def test_marks_of_the_scatter_lie_where_the_records_numbers_are(visit, site):
    record = read(site, "head_geometry")
    version = "gained" if record["tables"]["gained"]["entropy"] else "exact"
    best = record["tables"][version]["entropy"]["best"]
    page = visit("measured/report.html", width=1200)
    seen, pixel = places(page.evaluate(DRAWN, ["head_geometry-scatter", 0]), "heads")
    truth = np.stack([np.ravel(record["descriptors"][version][best]), np.ravel(record["outcomes"]["entropy"])], 1)
    assert seen.shape == truth.shape and len(seen) == 32
    # Half a pixel for the place of a label's middle, a tenth of a unit for the mark's.
    assert (np.abs(seen - truth) <= 1.2 * pixel).all()


def test_points_of_a_track_lie_where_the_records_numbers_are(visit, site):
    page = visit("measured/report.html", width=1200)
    panels = page.locator("#schedule_fit-main .panel")
    title = panels.locator(".panel-title").all_inner_texts()
    record = read(site, "schedule_fit")
    tracks = {
        "Norm of the input gain": record["families"]["input_ln"]["track"],
        "Measured temperature": record["temperature"]["measured"]["track"],
    }
    compared = 0
    for k, name in enumerate(title):
        if name in tracks:
            seen, pixel = places(page.evaluate(DRAWN, ["schedule_fit-main", k]), "dots")
            truth = np.stack([np.arange(8), tracks[name]], 1)
            assert (np.abs(seen - truth) <= 1.2 * pixel).all(), name
            compared += 1
    assert compared


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_has_the_colour_that_the_legend_gives_to_its_number(visit, site, scheme):
    page = visit("measured/report.html", width=1200, color_scheme=scheme)
    drawn = page.evaluate(DRAWN, ["attention_stats-entropy", 0])
    truth = np.array([layer["entropy_fraction_per_head"] for layer in read(site, "attention_stats")["dynamic"]])
    # Numbers beneath the legend are those of the edges between its colours.
    top = max(y for _, _, y in drawn["words"])
    x0, slope = axis([(text, x) for text, x, y in drawn["words"] if y > top - 4])
    edges = {tone: (x0 + slope * left, x0 + slope * right) for tone, left, right in drawn["key"]}
    (l0, per_layer), (h0, per_head) = axis(drawn["across"]), axis(drawn["up"])
    found = {}
    for x, y, tone in drawn["cells"]:
        found[round(l0 + per_layer * x), round(h0 + per_head * y)] = edges[tone]
    assert set(found) == {(layer, head) for layer in range(8) for head in range(4)} and len(edges) >= 9
    for (layer, head), (low, high) in found.items():
        slack = abs(slope)  # a pixel of the legend
        assert low - slack <= truth[layer, head] <= high + slack, (layer, head)


def test_a_cell_that_is_pointed_at_says_its_number(visit, site):
    page = visit("measured/report.html", width=1200)
    svg = page.locator("#attention_stats-entropy .panel svg[role=img]").first
    svg.scroll_into_view_if_needed()
    drawn = page.evaluate(DRAWN, ["attention_stats-entropy", 0])
    truth = read(site, "attention_stats")["dynamic"][2]["entropy_fraction_per_head"][3]
    (l0, per_layer), (h0, per_head) = axis(drawn["across"]), axis(drawn["up"])
    page.mouse.move((2 - l0) / per_layer, (3 - h0) / per_head)
    said = page.locator("#attention_stats-entropy .readout").inner_text()
    assert re.fullmatch(r"layer 2, head 3: 0\.\d+", said)
    assert value(said.rpartition(" ")[2]) == pytest.approx(truth, abs=5e-4)  # three digits


def test_dots_of_claims_and_strips_lie_at_the_number_beside_them(visit):
    page = visit("measured/report.html", width=1200, unfold=True)
    strips = page.evaluate("""() => [...document.querySelectorAll('.strip svg')].map((svg) => {
        const middle = (at) => { const box = at.getBoundingClientRect(); return box.left + box.width / 2; };
        return { dot: middle(svg.querySelector('.dot')), limit: middle(svg.querySelector('.limit-line')),
            seen: svg.querySelector('.seen').textContent, lim: svg.querySelector('.lim').textContent,
            ticks: [...svg.querySelectorAll('text.middle:not(.seen, .lim)')]
                .map((at) => [at.textContent, middle(at)]) };
    })""")
    compared = 0
    for strip in strips:
        if len(strip["ticks"]) >= 2:
            start, slope = axis(strip["ticks"])
            for place, said in ((strip["dot"], strip["seen"]), (strip["limit"], strip["lim"].split(" ")[-1])):
                told = value(re.match(r"[−\d.,]+(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?", said)[0])
                assert start + slope * place == pytest.approx(told, abs=1.5 * abs(slope)), number(told)
            compared += 1
    assert compared >= 5

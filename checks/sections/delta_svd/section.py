"""Text of `delta_svd`: what each layer writes into the residual stream."""

from checks.figures.numbers import number
from checks.sections.delta_svd.writes import by_layer, figures
from checks.sections.section import Comparison, Record, Section, median


def facts(record: Record) -> dict[str, str]:
    first = record["layers"][0]
    return {
        "tokens": number(record["tokens"]),
        "hidden": number(record["hidden"]),
        "published": number(median(by_layer(record, "top1_frac"))),
        "centred": number(median(by_layer(record, "top1_frac", "centred"))),
        "outliers": number(len(first["outlier_dims"])),
    }


def published(record: Record) -> list[Comparison]:
    last, old = record["layers"][-1], record["published_last"]
    tests = record["phase_test"], record["phase_test_centred"]
    multiple = [p for p in record["phases"].values() if p and p["capture_left_out_centred"]]
    rows = []
    if any(old[key] != last[key] for key in ("cos_delta_h_mean", "rel_step_mean", "top1_frac")):  # a final norm
        rows.append(
            Comparison(
                quantity="The last layer’s write",
                published=(
                    f"taken after the final norm: cos(δ, h) {number(old['cos_delta_h_mean'])}, relative step "
                    f"{number(old['rel_step_mean'])}, top-1 share {number(old['top1_frac'])}"
                ),
                corrected=(
                    f"taken before it: cos(δ, h) {number(last['cos_delta_h_mean'])}, relative step "
                    f"{number(last['rel_step_mean'])}, top-1 share {number(last['top1_frac'])}"
                ),
            )
        )
    rows.append(
        Comparison(
            quantity="Share of a write in its first direction",
            published=(
                f"{number(median(by_layer(record, 'top1_frac')))} in the median layer, of which the mean write "
                f"alone has {number(median(by_layer(record, 'mean_share')))}"
            ),
            corrected=f"{number(median(by_layer(record, 'top1_frac', 'centred')))} with the mean write removed",
        )
    )
    if multiple:
        rows.append(
            Comparison(
                quantity="Capture by a phase’s shared basis",
                published=(
                    f"{number(median([v for p in multiple for v in p['capture']]))}, with the layer in its "
                    f"own basis (chance about {number(median([p['capture_chance'] for p in multiple]))})"
                ),
                corrected=(
                    f"{number(median([v for p in multiple for v in p['capture_left_out_centred']]))}, with "
                    "the layer left out (chance "
                    f"{number(median([p['capture_left_out_chance'] for p in multiple]))})"
                ),
            )
        )
    if tests[1]["p"] is not None:
        rows.append(
            Comparison(
                quantity="Phases share a subspace",
                published="mean |cos| inside against across, whatever the distance",
                corrected=(
                    f"difference at equal distance {number(tests[1]['difference'])}, p {number(tests[1]['p'])} "
                    f"(with the mean left in: {number(tests[0]['difference'])}, p {number(tests[0]['p'])})"
                ),
            )
        )
    return rows


SECTION = Section(
    name="delta_svd",
    question="What does a layer write into the residual stream?",
    short="Writes",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "Every number belongs to the calibration text; directions that this text does not call for are not seen.",
        "A direction of the residual stream has no meaning of its own: rotating the stream with every weight "
        "that reads or writes it leaves the model alone, "
        "and moves which feature dimensions count as outliers.",
    ),
)

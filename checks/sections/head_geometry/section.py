"""Text of `head_geometry`: correlation of a head's spectrum with its attention entropy."""

from checks.figures.geometry import Figure
from checks.figures.numbers import number
from checks.sections.head_geometry.parts import parts
from checks.sections.head_geometry.scatter import NAMES, OUTCOME, VERSIONS, scatter, version_of
from checks.sections.section import Comparison, Record, Section


def figures(record: Record) -> dict[str, Figure]:
    version = version_of(record)
    return {"scatter": scatter(record, version), "parts": parts(record, version)} if version else {}


def facts(record: Record) -> dict[str, str]:
    version = version_of(record)
    if version is None:
        return {"absent": record["absent"].get(f"tables.exact.{OUTCOME}", "the spectra or the attention are missing")}
    association = record["tables"][version][OUTCOME]
    r = association["descriptors"][association["best"]]["r"]
    return {
        "absent": "",
        "version": VERSIONS[version],
        "heads": number(association["heads"]),
        "best": f"{NAMES[association['best']]} ({association['best']})",
        "pooled": number(r["pooled"]),
        "within": number(r["within"]),
        "p": number(association["best_shift_p"]),
    }


def published(record: Record) -> list[Comparison]:
    old, new = (record["tables"][version][OUTCOME] for version in ("published", "exact"))
    if not old or not new:
        return []
    gained = record["tables"]["gained"][OUTCOME]
    rows = [
        Comparison(
            quantity="Best single predictor of entropy",
            published=_best(old) + ", from the spectrum of W_k W_qᵀ",
            corrected=_best(new) + ", from that of g",
        ),
        Comparison(
            quantity="The same with the gains folded in",
            published="not asked; under q/k norms the stored scale of W_q is free",
            corrected=_best(gained) if gained else "undefined for this model",
        ),
    ]
    before, after = old["regressions"]["published"], new["regressions"]["corrected"]
    if before and after:
        inflation = (
            f"largest variance inflation {number(max(before['vif']))}" if before["vif"] else "predictors collinear"
        )
        rows.append(
            Comparison(
                quantity="Regression of entropy on the descriptors",
                published=f"R² {number(before['r2'])} in the sample; {inflation}, since anisotropy is d over rank_eff",
                corrected=(
                    f"R² {number(after['r2_out_of_sample'])} on layers left out ({number(after['r2'])} in the "
                    "sample), without anisotropy"
                ),
            )
        )
    return rows


def _best(association: Record) -> str:
    r = association["descriptors"][association["best"]]["r"]
    return f"{association['best']}: r {number(r['pooled'])} pooled, {number(r['within'])} within layers"


SECTION = Section(
    name="head_geometry",
    question="Does a head’s spectrum predict its attention entropy?",
    short="Entropy",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "A correlation over heads is no mechanism: a larger g spreads the logits and lowers the entropy by "
        "arithmetic alone.",
        "Entropy is taken on one text; the spectrum knows nothing of it.",
    ),
)

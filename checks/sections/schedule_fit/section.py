"""Text of `schedule_fit`: schedules of gains and temperatures over depth."""

from checks.figures.numbers import number
from checks.sections.schedule_fit.evidence import FORMS, TEMPERATURES, best_published, fitted_tracks, r2
from checks.sections.schedule_fit.tracks import figures
from checks.sections.section import Comparison, Record, Section


def facts(record: Record) -> dict[str, str]:
    tracks = fitted_tracks(record["families"])
    constant = [name for name, track in tracks.items() if track["best_form"] == "constant"]
    return {
        "layers": number(record["num_layers"]),
        "tracks": number(len(tracks)),
        "constant": number(len(constant)),
        "no_temperature": record["absent"].get("temperature.measured.*", "")
        if record["temperature"]["measured"]["status"] == "absent"
        else "",
    }


def published(record: Record) -> list[Comparison]:
    rows = []
    tracks = {"Norm of input_ln": record["families"].get("input_ln")} | {
        TEMPERATURES[n].capitalize(): t for n, t in record["temperature"].items()
    }
    for name, track in tracks.items():
        if not track or track["status"] != "fitted":
            continue
        old, best = best_published(track), track["best_form"]
        form = track["corrected"][best]
        weight = f", weight {number(form['weight'])}" if form["weight"] is not None else ""
        rows.append(
            Comparison(
                quantity=f"{name}: form",
                published=f"{FORMS[old].name}, R² {r2(track['fits'][old]['r2'])}, with no penalty for parameters",
                corrected=f"{FORMS[best].name}, R² {r2(form['r2_log'])} on the log scale{weight}",
            )
        )
    pieces = [(n, t["two_piece"]) for n, t in fitted_tracks(record["families"]).items() if t["two_piece"]]
    won = sum(best_published(t) == "two_piece" for t in fitted_tracks(record["families"]).values())
    if pieces:
        kept = sum(p["p"] <= 0.05 for _, p in pieces)
        rows.append(
            Comparison(
                quantity="Two pieces rather than one",
                published=f"{won} of {len(pieces)} tracks, on segments of two layers and more",
                corrected=(
                    f"{kept} of {len(pieces)} tracks, on segments of four and more, against noise and random walks"
                ),
            )
        )
    rows.append(
        Comparison(
            quantity="Attention temperature",
            published="γ₀/γ_ℓ from the input gain, which the projections can absorb without any change of the model",
            corrected="one over the mean standard deviation of the layer’s logits, measured",
        )
    )
    return rows


SECTION = Section(
    name="schedule_fit",
    question="Does a gain follow a schedule over depth?",
    short="Schedules",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "A form that fits is a description of this track, not a law that produced it; a random walk often has "
        "a smooth form too.",
        "Norms of gains and projections can be traded against each other without changing the model, so a "
        "schedule of one alone may be one of bookkeeping.",
    ),
)

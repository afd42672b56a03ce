"""Figures and text of `residual_stream`: how states grow, concentrate, turn and resemble one another over depth."""

from collections.abc import Mapping, Sequence

from checks.figures import axes
from checks.figures.axes import Axis
from checks.figures.geometry import QUARTER, Figure, Key, Panel, Value
from checks.figures.numbers import number
from checks.figures.plots import Plot
from checks.sections.section import Comparison, Record, Section, layer_names, median, table

WAYS = {"all": "all tokens", "without_first": "without position 0", "without_massive": "without massive tokens"}
TONES = {"all": "s0", "without_first": "s1", "without_massive": "s2"}
MASSIVE = 100.0  # |x| beyond which published criteria call an activation massive


def figures(record: Record) -> dict[str, Figure]:
    panels = (
        _panel(record, "massive_ratio", "Longest state", "max‖h‖ / median‖h‖ (log axis)", logarithmic=True),
        _panel(record, "norm", "Length of states", "median ‖h‖ (log axis)", logarithmic=True),
        _panel(record, "entropy", "Entropy of a prompt’s states", "share of its largest value", ends=(0.0, 1.0)),
        _panel(record, "cosine", "Cosine of two random tokens", "mean over pairs", ends=(-0.1, 1.0)),
        _panel(record, "step", "Size of writes", "median ‖δ‖ / ‖h‖ (log axis)", logarithmic=True),
        _panel(record, "linearity", "Linear part of writes", "held-out R² of δ from h", include=(0.0, 1.0)),
        _panel(record, "distance", f"Angle across {record['block']} layers", "mean angle / π", include=(0.0,)),
    )
    names = layer_names(record["num_layers"] + 1)
    return {
        "ways": Figure(
            id="residual_stream-ways",
            caption=(
                "The same seven numbers with all tokens, without the first of each prompt, and without those whose "
                "state is ten times as long as the median. Where the lines lie on each other, a few tokens are not the "
                "reason."
            ),
            panels=tuple(panel for panel in panels if panel),
            keys=tuple(Key(name=name, tone=TONES[way]) for way, name in WAYS.items()),
            tables=tuple(_table(record, names, way) for way in WAYS),
            size="quarter",
        )
    }


def _panel(
    record: Record,
    key: str,
    title: str,
    label: str,
    *,
    logarithmic: bool = False,
    ends: tuple[float, float] | None = None,
    include: tuple[float, ...] = (),
) -> Panel | None:
    tracks: Mapping[str, Sequence[Value]] = {way: record["ways"][way][key] for way in WAYS}
    known = [value for track in tracks.values() for value in track if value is not None]
    if not known:
        return None
    y = _axis(known, label, logarithmic, ends, include)
    count = len(tracks["all"])
    plot = Plot(x=axes.layers(count, count=3), y=y, width=QUARTER, height=130)
    for way in reversed(WAYS):
        plot.line(range(count), tracks[way], TONES[way], dash=way != "all")
    plot.points(range(count), tracks["all"], TONES["all"])
    found = [value for value in tracks["all"] if value is not None]
    ends_of = f"from {number(found[0])} to {number(found[-1])}" if found else "not defined"
    return plot.panel(title, f"{title}, all tokens: {ends_of}.")


def _axis(
    known: Sequence[float], label: str, logarithmic: bool, ends: tuple[float, float] | None, include: tuple[float, ...]
) -> Axis:
    if logarithmic:
        return axes.logarithmic(known, label=label)
    if ends and min(known) >= ends[0]:
        return axes.fixed(*ends, label=label)
    return axes.linear(known, label=label, include=include)


def _table(record: Record, names: Sequence[str], way: str):
    own = record["ways"][way]
    columns = {
        "tokens": own["tokens"],
        "max‖h‖/median": own["massive_ratio"],
        "median ‖h‖": own["norm"],
        "entropy": own["entropy"],
        "cosine": own["cosine"],
        "cosine, centred": own["cosine_centred"],
        "‖δ‖/‖h‖": own["step"],
        "R² of δ": own["linearity"],
        "angle/π": own["distance"],
    }
    rows = len(own["tokens"])
    padded = {name: [*values, *[None] * (rows - len(values))] for name, values in columns.items()}
    return table(f"States and writes, {WAYS[way]}", "layer", names[:rows], padded)


def facts(record: Record) -> dict[str, str]:
    every = record["ways"]["all"]
    largest = record["metrics"]["massive_ratio"]
    forms = record["ways"]["without_first"]["forms"]
    return {
        "tokens": number(record["tokens"]),
        "prompts": number(record["prompts"]),
        "largest": number(largest["value"]),
        "massive": number(max(every["tokens"][0] - n for n in record["ways"]["without_massive"]["tokens"])),
        "best_form": FORMS.get(max(forms, key=forms.__getitem__), "") if forms else "",
        "weight": number(max(forms.values())) if forms else "",
        "block": number(record["block"]),
        "growth": number(record["metrics"]["norm_growth_without_first"]["value"]),
    }


FORMS = {"constant": "a constant", "exponential": "a·e^{bℓ}", "linear": "a + bℓ", "root": "√(a + bℓ)"}


def published(record: Record) -> list[Comparison]:
    own, formula = record["ways"]["all"], record["published"]
    over = sum(value > MASSIVE for value in formula["largest"] if value is not None)
    rows = [
        Comparison(
            quantity="Linearity of a layer",
            published=(
                f"h′ from h, in sample: {number(median(formula['linearity']))} in the median layer, of which a "
                f"multiple "
                f"of h alone, the identity, scores {number(median(formula['identity']))}"
            ),
            corrected=(
                f"δ from h, on prompts not seen: {number(median(own['linearity']))}; with the rows of δ in another "
                f"order {number(median(formula['permuted']))}"
            ),
        ),
        Comparison(
            quantity="Massive activations",
            published=(
                f"|x| > 100 in {over} of {len(formula['largest'])} states; with the stream times 2⁷ in "
                f"{sum(128 * v > MASSIVE for v in formula['largest'] if v is not None)}, times 2⁻⁷ in "
                f"{sum(v / 128 > MASSIVE for v in formula['largest'] if v is not None)}, and the model’s function is "
                "the same"
            ),
            corrected=f"max‖h‖/median‖h‖, which no scale moves: {number(record['metrics']['massive_ratio']['value'])}",
        ),
        Comparison(
            quantity="Angular distance of layers",
            published=(
                f"of the last token of each prompt, least {number(_least(formula['distance_of_ends']))}, by the arc "
                "cosine, which is no number where rounding carries a cosine beyond 1"
            ),
            corrected=f"over all tokens, by chords: least {number(_least(own['distance']))}",
        ),
    ]
    if own["cosine_centred"]:
        rows.append(
            Comparison(
                quantity="Anisotropy",
                published=(
                    f"mean cosine {number(median(own['cosine']))} in the median state"
                    + (", without the mean over features" if formula["centred_features"] else "")
                ),
                corrected=f"{number(median(own['cosine_centred']))} with the mean state removed",
            )
        )
    return rows


def _least(values: Sequence[Value]) -> Value:
    return min((value for value in values if value is not None), default=None)


SECTION = Section(
    name="residual_stream",
    question="How do the states of the residual stream grow, concentrate and turn over depth?",
    short="Stream",
    figures=figures,
    facts=facts,
    published=published,
    limits=(
        "Every number belongs to the calibration text: its prompts are short, and position 0 is one token of few.",
        "Association over layers says nothing of cause: a reading that “holds” is one that the layers do not "
        "contradict.",
    ),
)

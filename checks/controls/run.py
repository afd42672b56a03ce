"""What each verdict is worth: the same gates on models that ought to answer otherwise, or the same.

Every row about the model gets its class's control (`by_class`) and the band of numerical rounding (`stability`). That
its number is the same under every exact change of coordinates is an identity, measured here and judged with the other
identities; how far such changes move the published numbers of the stored rows is their orbit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.progress import Tick, silent
from analyses.records import SCHEMA_VERSION
from analyses.weights.checkpoint import Checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.controls.by_class import controlled, most_steps
from checks.controls.stability import REPEATS, rounding
from checks.controls.steps import Steps, counts
from checks.controls.subject import Evidence, Records, Subject
from checks.maps.identities import CHANGES, invariance_identities, limits
from checks.maps.orbit import measurements, orbit
from checks.maps.remeasured import needs_pass
from checks.own.gates import PART, gates, with_own
from checks.own.statement import Statement

NOT_NEEDED = Evidence(
    answer="not needed",
    detail="no control turns what is undecided, and an absence that fails is what its control would plant",
)

PARTS = ("class", "coordinates", "noise")


def controls(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    found: Records,
    *,
    parts: Sequence[str] = PARTS,
    own: Sequence[Statement] = (),
    say: Callable[[str], None] = lambda line: None,
    tick: Tick = silent,
) -> dict[str, Any]:
    """The content of `controls.json`.

    Keys: `claims`, claim id → {control, noise}, each an Evidence or None; `invariance`, map → how far each statistic of
    a model row moved under it; `orbits`, path of a stored number → the range that exact maps reach.

    Parameters
    ----------
    found : the records of the model itself, made with the same text and settings.
    parts : which of PARTS to run.
    own : claims that are not built in.
    tick : told how many measurements are done, of how many at most.
    """
    asked = [*CLAIMS, *gates(own, "")]
    judged = with_own(found, own)
    outcomes = {gate.id: evaluate(gate, judged) for gate in asked if all(name in found for name in gate.reads)}
    outcomes = {claim: o for claim, o in outcomes.items() if o.status in ("pass", "fail", "inconclusive")}
    rows = {claim: o for claim, o in outcomes.items() if o.row == "model"}
    subject = Subject(checkpoint, text, settings, judged, rows, say, asked, own)
    paths = {row: _paths(outcomes[id] for id in outcomes if outcomes[id].row == row) for row in ("model", "stored")}
    steps = Steps(_stages(subject, parts, paths), tick)
    subject = replace(subject, steps=steps)
    control, band, same, reached = {}, {}, {}, {}
    if "class" in parts:
        control = dict.fromkeys(rows, NOT_NEEDED) | controlled(subject)
    if "noise" in parts:
        with steps.stage():
            band = rounding(subject)
    if "coordinates" in parts:
        told = dict(say=say, step=steps.step)
        with steps.stage():
            differences = invariance_identities(checkpoint, text, settings, found, paths["model"], **told)
            same = _by_map(checkpoint, differences)
        with steps.stage():
            reached = orbit(checkpoint, text, settings, found, paths["stored"], **told)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.name,
        "claims": {claim: {"control": control.get(claim), "noise": band.get(claim)} for claim in rows},
        "invariance": same,
        "orbits": reached,
    }


def _stages(subject: Subject, parts: Sequence[str], paths: Mapping[str, Sequence[str]]) -> list[int]:
    """Counts of each stage at most, in the order of `controls`."""
    stages = most_steps(subject) if "class" in parts else []
    stages += [REPEATS] if "noise" in parts else []
    if "coordinates" not in parts:
        return stages
    of_map = counts(any(map(needs_pass, paths["model"])))
    return [*stages, of_map * (1 + len(CHANGES)), sum(map(counts, measurements(paths["stored"])))]


def _by_map(checkpoint: Checkpoint, differences: Mapping[str, Mapping[str, float | None]]) -> dict[str, list[dict]]:
    """Map → its comparisons: `path`, `difference` (relative; None where a number came or went) and `tolerance`."""
    allowed = limits(checkpoint, list(differences))
    found: dict[str, list[dict]] = {}
    for path, by_map in differences.items():
        for name, value in by_map.items():
            found.setdefault(name, []).append({"path": path, "difference": value, "tolerance": allowed[path][name]})
    return found


def _paths(outcomes: Any) -> list[str]:
    """Paths of the numbers that have a limit of their own, p-values left out, in the order of the claims."""
    found = [f for o in outcomes for f in o.findings if f.observed is not None and not f.test]
    return list(dict.fromkeys(f.path for f in found if f.path.split(".")[1] != PART))

"""The controls of every claim: the same gates on models that ought to answer otherwise, or the same.

Every claim gets three answers beside its own: its class's control (`class_controls`), exact changes
of coordinates and numerical noise (`stability`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.records import SCHEMA_VERSION
from analyses.weights.checkpoint import Checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.controls.by_class import absence, schedule, twinned
from checks.controls.stability import coordinates, noise
from checks.controls.subject import Records, Subject

PARTS = ("class", "coordinates", "noise")


def controls(
    checkpoint: Checkpoint,
    text: Calibration,
    settings: Settings,
    found: Records,
    *,
    parts: Sequence[str] = PARTS,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The content of `controls.json`: claim id → {control, coordinates, noise}, each an Evidence or None.

    Parameters
    ----------
    found : the records of the model itself, made with the same text and settings.
    parts : which of PARTS to run. Without "noise", coordinates are allowed rounding alone.
    """
    outcomes = {gate.id: evaluate(gate, found) for gate in CLAIMS if gate.analysis in found}
    outcomes = {claim: o for claim, o in outcomes.items() if o.status in ("pass", "fail", "inconclusive")}
    subject = Subject(checkpoint, text, settings, found, outcomes, say)
    control, moved, band = {}, {}, {}
    if "class" in parts:
        control = twinned(subject) | absence(subject) | schedule(subject)
    if "noise" in parts:
        band = noise(subject)
    if "coordinates" in parts:
        moved = coordinates(subject, band)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.name,
        "claims": {
            claim: {"control": control.get(claim), "coordinates": moved.get(claim), "noise": band.get(claim)}
            for claim in outcomes
        },
    }

"""A verification made whole: beside the numbers, the files of a result, its manifest, its gates and its words."""

from dataclasses import replace

from analyses import registry
from checks.machine import environment
from checks.report.again import again
from checks.verify import claimed
from checks.verify.results import Result
from checks.verify.verify import Verification

MEASURED = ("identical", "within tolerance")


def held(verification: Verification, recorded: Result, found: Result) -> Verification:
    """With what a result says beside its numbers, and what of it was and could not be verified.

    Parameters
    ----------
    verification : of the numbers.
    recorded, found : the received result and the new measurement.
    """
    rendered = again(recorded, found.found)
    faults = [*claimed.faults(recorded), *rendered.faults]
    same = [answer.analysis for answer in verification.analyses if answer.status in MEASURED]
    verified = [f"every number, key and sentence of {', '.join(same)}"] if same else []
    comparable = any(answer.status != "not comparable" for answer in verification.analyses)
    if comparable and recorded.manifest["tensors"] is not None:
        faults += claimed.recomputed(recorded.manifest, found.manifest)
        verified.append("the model's tensors and files, its architecture, and what exact maps move")
    left = [name for name in recorded.found if name not in same]
    unverified = [f"the numbers of {', '.join(left)}"] if left else []
    if gone := [name for name in registry.NAMES if name not in recorded.manifest["records"]]:
        unverified.append(f"{', '.join(gone)}: not in the result, as where they were not asked for")
    if recorded.kind != "folder" and (arrays := _arrays(recorded, found)):
        unverified.append(f"directions, which this result does not carry: {', '.join(arrays)}")
    notes = list(verification.notes)
    made, here = recorded.manifest.get("source", {}).get("commit"), environment.source()["commit"]
    if rendered.faults and made != here:
        notes.append(f"it was made by the source at {made}, and only that source writes the same page; this is {here}")
    return replace(
        verification,
        notes=tuple(notes),
        faults=tuple(faults),
        verified=(*verified, *rendered.verified),
        unverified=(*unverified, *rendered.unverified, *claimed.UNVERIFIED),
    )


def _arrays(recorded: Result, found: Result) -> list[str]:
    """Files of directions that a page does not carry and whose hash did not come again."""
    return [
        name
        for analysis, record in recorded.found.items()
        for name, known in record.get("arrays", {}).items()
        if found.found.get(analysis, {}).get("arrays", {}).get(name) != known
    ]

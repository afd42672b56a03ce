"""What becomes of one tiny model of a type: measured, broken, in part, or refused in one line.

The four outcomes are told by what the measurement says, never by what it did not: *measured* where all analyses ran and
every identity holds, those among them that compare with the model's own class; *in part* where an analysis has no
answer and says why; *refused* where the folder is not opened, in one line; *broken* where an identity does not hold.
Whatever else is raised is a defect, and stays one: it is not caught here.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyses import records, registry
from analyses.errors import InputError
from analyses.forward.inputs import Settings
from analyses.run.measure import measure_checkpoint
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import INTEGRITY
from checks.claims.gate import evaluate

TEXT = "A text of its own, longer than any window of so small a model, and read once as one sequence of bytes. " * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a model."""

    word: str  # measured | in part | broken | refused
    family: str  # as its record calls it; "" where refused
    reason: str  # one line; "" where measured


def outcome(folder: Path, *, only: Sequence[str] = registry.NAMES, stack: str | None = None) -> Outcome:
    """Measure a model and tell what became of it.

    Parameters
    ----------
    only : analyses to run. stack : the one to be measured, of a model that has two.
    """
    with tempfile.TemporaryDirectory() as room:
        text, out = Path(room, "text.txt"), Path(room, "out")
        text.write_text(TEXT, encoding="utf-8")
        try:
            checkpoint = open_checkpoint(str(folder), stack=stack)
        except InputError as error:
            return Outcome(word="refused", family="", reason=str(error).replace(f"{folder}: ", ""))
        family = checkpoint.architecture.name
        settings = Settings(calibration=text, device="cpu", only=tuple(only), stack=stack)
        measured = measure_checkpoint(checkpoint, out, settings)
        names = registry.with_read(only)
        found = {name: records.read_record(out / f"{name}.json", arrays=False) for name in names}
    if measured.failures:
        name, why = next(iter(measured.failures.items()))
        return Outcome(word="in part", family=family, reason=f"{name}: {why}".replace(f"{folder}: ", ""))
    if skipped := [f"{name}: {record['skipped']}" for name, record in found.items() if "skipped" in record]:
        return Outcome(word="in part", family=family, reason=skipped[0])
    for gate in INTEGRITY:
        if gate.id.partition(".")[0] in found and evaluate(gate, found).status not in ("pass", "skip"):
            return Outcome(word="broken", family=family, reason=gate.id)
    return Outcome(word="measured", family=family, reason="")

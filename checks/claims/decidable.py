"""Which claims a model is too shallow, too narrow or too little read for, said before anything is measured.

The counts of a gate's minimum follow from the shape of the model and the length of the text. What only a measurement
can count (how many pairs are comparable, how much room a subspace has) is not foreseen.
"""

import math
from collections.abc import Mapping

from analyses.delta_svd.phases import phase_ranges
from analyses.delta_svd.stacks import OWN, SHARED, placements
from analyses.run.plan import Plan
from checks.claims import CLAIMS
from checks.claims.gate import Gate

SHARING = ("shared_map_r2_ratio", "remainder_top1", "phase_c_rank_ratio")  # of the layers of phase C
OWNING = ("phase_e_rank_share",)  # of those of phase E
DIFFERING = ("phase_difference",)  # of both


def undecidable(plan: Plan) -> dict[str, str]:
    """Claim about the model → why it cannot be decided, or can only fail; claims that can be are not in it."""
    found = {}
    for gate in CLAIMS:
        if gate.row != "model" or any(name in plan.skipped for name in gate.reads):
            continue
        counts = _counts(plan, gate)
        short = {unit: least for unit, least in gate.minimum.items() if unit in counts and counts[unit] < least}
        if short:
            told = ", ".join(f"{counts[u]:.3g} {u.replace('_', ' ')} of {least:g}" for u, least in short.items())
            found[gate.id] = told + (", can only fail" if set(short) <= set(gate.flattering) else "")
    return found


def _counts(plan: Plan, gate: Gate) -> Mapping[str, float]:
    """What of a gate's minimum the shape and the text foresee."""
    layers, phases = plan.layers, phase_ranges(plan.layers)
    shared, own = phases[SHARED], phases[OWN]
    starts = sum(bool(len(phase)) for phase in phases.values()) - 1
    counts = {
        "layers": layers,
        "pairs": layers - 1,
        "heads": layers * plan.heads,
        "degrees_of_freedom_within_layers": layers * (plan.heads - 1),
        "tokens_per_dimension": plan.tokens / plan.hidden,
        "segmentations": math.comb(layers - 1, starts) - 1,
        "runs": layers - len(shared),
    }
    name = gate.conditions[0].path.rpartition(".")[2]
    if name in SHARING:
        return counts | {"layers": len(shared)}
    if name in OWNING:
        return counts | {"layers": len(own)}
    if name in DIFFERING:
        short = min(len(shared), len(own))
        return counts | {"layers": short, "segmentations": len(placements(layers, shared, own, 0)) if short else 0}
    return counts

"""Models with known truth, for the rows about the model: what is planted, and the word that each row must give.

Bases have random, unrelated layers; a plant changes them by a stated size. Nothing is mocked between the weights and
the word: checkpoints are written, measured and judged as `fathom` does it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from analyses.forward.calibration import Calibration, load_calibration
from analyses.forward.inputs import Settings
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from checks.claims.verdicts import verdict
from checks.controls.subject import claimed
from checks.twins.planted import (
    adjacent_mixture,
    common_direction,
    common_subspace,
    own_direction,
    query_key_mixture,
    repeated_layers,
    repeated_phase,
    repeated_readers,
)
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint

GATES = {gate.id: gate for gate in CLAIMS}
SETTINGS = Settings(device="cpu")
HOLDS, NOT, UNDECIDED = "holds", "does not hold", "undecided"

WIDE = dict(layers=24, hidden_size=96, intermediate_size=64)  # room for subspaces, and for writes to be unrelated
DEEP = dict(layers=32, hidden_size=32)  # phase C has eleven layers, phase E five
HEADS = dict(layers=16, hidden_size=32, num_attention_heads=8, num_key_value_heads=4, head_dim=4)
LONG = HEADS | dict(layers=24)  # what a law over depth needs
BASES: Mapping[str, dict[str, int]] = {"wide": WIDE, "deep": DEEP, "heads": HEADS, "long": LONG}
PROMPTS = {"wide": 4, "deep": 6, "heads": 2, "long": 2}  # about 115 tokens each: two a dimension and more
PHASE_E = range(24, 29)


@dataclass(frozen=True, slots=True)
class Planted:
    """A model and the word of every row that is asked of it."""

    base: str  # of BASES
    words: Mapping[str, str]
    plants: Sequence[Twin] = field(default=())  # applied one after the other

    def on(self, base: Checkpoint) -> Checkpoint:
        for plant in self.plants:
            base = plant.apply(base, 0)
        return base


def text_of(base: str) -> Calibration:
    text = load_calibration()
    return replace(text, texts=text.texts[: PROMPTS[base]])


def measured(checkpoint: Checkpoint, text: Calibration, claims: Collection[str]) -> dict[str, Any]:
    """The records that these rows read, without what they do not read."""
    gates = [GATES[claim] for claim in claims]
    names = sorted({name for gate in gates for name in gate.reads})
    return suite.records_of(checkpoint, text, replace(SETTINGS, claimed=claimed(gates)), names)


def words(found: Mapping[str, Any], claims: Collection[str]) -> dict[str, str]:
    """Row → its own word, before its control is looked at and the number of answers on a page."""
    outcomes = {claim: evaluate(GATES[claim], found) for claim in claims}
    return {claim: verdict(o.status, o.reason, None)[0] for claim, o in outcomes.items()}


# --- plants of the tests' own ---------------------------------------------------------------------


def within(plant: Twin, layers: range) -> Twin:
    """The same plant, in these layers only."""

    def change(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        return plant.change(twin, role, value) if role.layer in layers else value

    return replace(plant, change=change)


def scaled(rate: float, *parts: str) -> Twin:
    """The weights of these parts times rate^ℓ."""

    def change(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
        return value.double() * rate**role.layer if role.part in parts and not role.bias else value

    return Twin(name=f"{', '.join(parts)} by {rate:g} a layer", preserves="", destroys="", change=change)


def _unequal(twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    if role.part != "q_proj" or role.bias:
        return value
    queries = value.double().unflatten(0, (twin.shape.heads, -1))  # (head, head_dim, hidden)
    sizes = torch.randn(len(queries), 1, 1, generator=twin.draw("sizes", role.layer), dtype=torch.float64)
    return (queries * (0.7 * sizes).exp()).flatten(0, 1)


UNCHANGED = Twin(name="unchanged", preserves="", destroys="", change=lambda twin, role, value: value)
"""The base itself, as a twin: a random model does not know the language of its text, which of a twin is not asked."""
UNEQUAL_HEADS = Twin(name="queries of unequal size", preserves="", destroys="", change=_unequal)
READERS = ("q_proj", "v_proj", "gate_proj", "up_proj")
WRITERS = ("o_proj", "down_proj")

# --- the table ------------------------------------------------------------------------------------

# Undecided by size: what is planted lies as near to the row's limit as its interval reaches.
MODELS: Mapping[str, Planted] = {
    "unrelated layers": Planted(
        "wide",
        {"NR1": HOLDS, "NR1m": HOLDS, "NR3": HOLDS, "HG1": HOLDS, "HG3": HOLDS, "NR5": NOT, "HG2": NOT},
        [UNCHANGED],
    ),
    "each layer 0.95 of the one before": Planted(
        "wide",
        {"NR1m": NOT, "NR3": NOT, "HG1": NOT, "NR5": HOLDS, "HG2": HOLDS},
        [adjacent_mixture(cos=0.95)],
    ),
    "each layer 0.9 of the one before": Planted("wide", {"HG2": UNDECIDED}, [adjacent_mixture(cos=0.9)]),
    "each layer 0.72 of the one before": Planted("wide", {"NR3": UNDECIDED}, [adjacent_mixture(cos=0.72)]),
    "each layer 0.68 of the one before": Planted("wide", {"NR5": UNDECIDED}, [adjacent_mixture(cos=0.68)]),
    "each layer 0.24 of the one before": Planted("wide", {"HG1": UNDECIDED}, [adjacent_mixture(cos=0.24)]),
    "each layer 0.2 of the one before": Planted("wide", {"NR1m": UNDECIDED}, [adjacent_mixture(cos=0.2)]),
    "one subspace for all": Planted("wide", {"NR3": NOT}, [common_subspace()]),
    "the same function to a cosine of 0.5": Planted("wide", {"NR1": NOT}, [repeated_readers(cos=0.5)]),
    "the same function to a cosine of 0.1": Planted("wide", {"NR1": UNDECIDED}, [repeated_readers(cos=0.1)]),
    "queries 0.4 of their keys": Planted("wide", {"HG3": NOT}, [query_key_mixture(cos=0.4)]),
    "queries 0.3 of their keys": Planted("wide", {"HG3": UNDECIDED}, [query_key_mixture(cos=0.3)]),
    "unrelated writes": Planted(
        "deep",
        {
            **{"DS1": NOT, "DS2": NOT, "DS3": HOLDS, "AN1": NOT},
            **{"AN2": NOT, "AN3": NOT, "AN4": HOLDS, "AN5": UNDECIDED},
        },
        [UNCHANGED],
    ),
    "one direction each": Planted(
        "deep", {"DS1": HOLDS, "DS2": HOLDS, "DS3": HOLDS, "DS4": NOT}, [own_direction()]
    ),
    "one direction for all": Planted(
        "deep",
        {"DS1": UNDECIDED, "DS2": UNDECIDED, "DS3": NOT, "AN1": UNDECIDED, "AN2": UNDECIDED, "AN4": NOT},
        [common_direction()],
    ),
    "eight directions for all": Planted(
        "deep", {"DS3": NOT, "AN1": NOT, "AN3": UNDECIDED}, [common_direction(rank=8)]
    ),
    "one layer all over": Planted(
        "deep", {"NR1": NOT, "DS3": NOT, "DS4": UNDECIDED, "AN1": NOT, "AN4": NOT}, [repeated_layers(share=1.0)]
    ),
    "one layer in phase C": Planted(
        "deep",
        {**dict.fromkeys(("AN1", "AN3", "AN4", "AN5", "DS4"), HOLDS), "AN2": NOT, "DS3": UNDECIDED},
        [repeated_phase("C")],
    ),
    "one layer in phase C, and one direction each": Planted(
        "deep", {"AN2": HOLDS, "AN3": HOLDS}, [repeated_phase("C"), own_direction()]
    ),
    "one layer in phase E": Planted(
        "deep", {"AN4": NOT, "AN5": NOT}, [repeated_phase("E")]
    ),
    "a third of one direction in phase E": Planted(
        "deep", {"AN4": UNDECIDED}, [within(common_direction(size=0.35), PHASE_E)]
    ),
    "readers that shrink by a fifth a layer": Planted("long", {"NR4": HOLDS, "SF1": HOLDS}, [scaled(0.8, *READERS)]),
    "queries that grow by a fifth a layer": Planted(
        "long", {"SF2": HOLDS, "SF3": HOLDS, "SF4": HOLDS}, [scaled(1.2, "q_proj")]
    ),
    "writers that shrink by a fifth a layer": Planted("long", {"SF5": HOLDS, "DS5": HOLDS}, [scaled(0.8, *WRITERS)]),
    "writers that grow by three fifths a layer": Planted("long", {"DS5": UNDECIDED}, [scaled(1.6, *WRITERS)]),
    "heads of unequal size": Planted("heads", dict.fromkeys(("HE1", "HE2", "HE3"), HOLDS), [UNEQUAL_HEADS]),
}
"""What was planted → where, and the words."""

"""Gates of attention_stats: identities only. Claims about entropy and temperature are judged where
they are tested, in head_geometry and schedule_fit."""

from checks.claims.gate import Condition, Gate

INTEGRITY = (
    Gate(
        id="attention_stats.singvals_energy",
        kind="integrity",
        claim="Squared singular values of every head metric add up to its squared Frobenius norm",
        conditions=(
            Condition(
                path="attention_stats.identities.singvals_energy",
                comparator="<=",
                threshold=1e-10,
                unit="",
                quantity="worst |Σσ² − ‖g‖²| / ‖g‖²",
            ),
        ),
        reason="float64 rounding grows as eps × hidden size, 2e-16 × 16,384 = 4e-12 for the largest models",
    ),
    Gate(
        id="attention_stats.entropy_bound",
        kind="integrity",
        claim="Attention entropy lies between 0 and ln(visible keys by the mask)",
        conditions=(
            Condition(
                path="attention_stats.identities.entropy_bound",
                comparator="<=",
                threshold=1e-5,
                unit="nats",
                quantity="worst excess over the bounds",
            ),
        ),
        reason="an identity of entropies; float64 rounding over 2,048 keys is below 1e-12, and a key more or less "
        "moves the bound by 5e-4",
    ),
    Gate(
        id="attention_stats.row_sum",
        kind="integrity",
        claim="Each query's probabilities over the keys that the mask shows add up to 1",
        conditions=(
            Condition(
                path="attention_stats.identities.row_sum",
                comparator="<=",
                threshold={"float32": 1e-5, "float64": 1e-12, "bfloat16": 2**-7, "float16": 2**-10},
                unit="",
                quantity="worst |row sum − 1|",
            ),
        ),
        reason="probabilities are rounded to the forward dtype, half a unit in the last place each, and all are "
        "positive; float32 sums of 2,048 terms err by 1e-6 in practice",
    ),
)

CLAIMS: tuple[Gate, ...] = ()

"""Gates of attention_stats: identities, and sinks. Claims about entropy and temperature are judged where
they are tested, in head_geometry and schedule_fit."""

from checks.claims.gate import Condition, Gate, identity

INTEGRITY = (
    identity(
        "attention_stats.singvals_energy",
        "Squared singular values of every head metric add up to its squared Frobenius norm",
        "worst |Σσ² − ‖g‖²| / ‖g‖²",
        limit=1e-10,
        reason="float64 rounding grows as eps × hidden size, 2e-16 × 16,384 = 4e-12 for the largest models",
    ),
    identity(
        "attention_stats.entropy_bound",
        "Attention entropy lies between 0 and ln(visible keys by the mask)",
        "worst excess over the bounds",
        limit=1e-5,
        unit="nats",
        reason="an identity of entropies; float64 rounding over 2,048 keys is below 1e-12, and a key more or less "
        "moves the bound by 5e-4",
    ),
    identity(
        "attention_stats.row_sum",
        "Each query's probabilities over the keys that the mask shows add up to 1",
        "worst |row sum − 1|",
        limit={"float32": 1e-5, "float64": 1e-12, "bfloat16": 2**-7, "float16": 2**-10},
        reason="probabilities are rounded to the forward dtype, half a unit in the last place each, and all are "
        "positive; float32 sums of 2,048 terms err by 1e-6 in practice",
    ),
)

CLAIMS = (
    Gate(
        id="AT1",
        kind="presence",
        claim="A good part of the heads are sinks: they give the first token much of their attention",
        conditions=(
            Condition(
                path="attention_stats.metrics.sink_heads",
                comparator=">=",
                threshold=0.25,
                unit="",
                quantity="share of heads with mean attention on key 0 above 0.3, over 64 tokens",
            ),
        ),
        reason="a quarter of all heads, more than a few that might serve another end; uniform attention gives "
        "key 0 0.07",
        minimum={"layers": 2, "prompts": 4},
        errata="The published mean counts each prompt's first query, which can attend to nothing else: 1/64 of "
        "it is so by "
        "counting. A model with learned sink logits has no need of a first token, and is told apart.",
    ),
)

"""Gates of attention_stats: identities, and sinks. Claims about entropy and temperature are judged where
they are tested, in head_geometry and schedule_fit."""

from checks.claims.gate import Condition, Gate, identity

SOFTMAX = {"float32": 1e-4, "float64": 1e-6, "bfloat16": 2**-5, "float16": 2**-7}
PROJECTED = {"float32": 1e-3, "float64": 1e-5, "bfloat16": 2**-3, "float16": 2**-6}
WITNESSED = (
    (
        "probabilities",
        "The probabilities that statistics are made of are the model's own",
        "worst |p − the model's own|",
        SOFTMAX,
        "a logit of 100 is right to 1e-5 in float32 and its probability with it; half of the classes compute norms and "
        "softmax in float32 also in a float64 pass; another mask, scale or bias moves probabilities by 0.01 and more",
    ),
    (
        "output",
        "These probabilities times the values are what the attention function returns",
        "worst relative difference",
        SOFTMAX,
        "as for the probabilities; it also holds where a fused function shows none",
    ),
    (
        "reads",
        "Attention reads the stream as the family's record says: behind which norm, with which gain",
        "worst relative difference",
        PROJECTED,
        "norms divide by a root mean square that float32 gives to 1e-6, bfloat16 to 2**-8; a norm that stands "
        "elsewhere or a gain that is not read moves it by 0.1 and more",
    ),
    (
        "heads",
        "Queries, keys and values are those of the family's record: roles, heads, q/k norms, turned planes",
        "worst distance of unit vectors",
        PROJECTED,
        "products of hidden-size rows are right to 1e-5 in float32 where a head is not faint; a role or a plane taken "
        "for another gives a distance of about 1",
    ),
)

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
    *(
        identity(f"attention_stats.{name}", claim, quantity, limit=limit, reason=reason)
        for name, claim, quantity, limit, reason in WITNESSED
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

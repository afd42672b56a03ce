"""Gates of weight_spectra: what must hold of any spectrum, and whether its tail is the claimed power law."""

from checks.claims.gate import Condition, Gate, identity

INTEGRITY = (
    identity(
        "weight_spectra.energy",
        "The eigenvalues of WᵀW add up to the squared norm of W",
        "worst |Σλ − ‖W‖²| / ‖W‖²",
        limit=1e-10,
        reason="eigenvalues of a Gram matrix of side m err by at most m·eps of the largest each, their sum by m²·eps: "
        "1e-10 at side 670 in the worst case, and 5e-16 as measured",
    ),
)

_EXPONENT = (
    "The exponent of a stored matrix moves when a gain is folded in, values are mixed or neurons are rescaled, "
    "and the "
    "model stays as it was. That of a matrix of independent normal entries is a number too, without a tail to "
    "describe."
)


def _gate(which: str, row: str, what: str) -> Gate:
    return Gate(
        id="WS1" if row == "model" else "WS1.stored",
        row=row,
        kind="presence",
        claim=f"The spectra of {what} have heavy tails, with an exponent from 2 to 4",
        conditions=(
            Condition(
                path=f"weight_spectra.metrics.{which}_alpha_off",
                comparator="<=",
                threshold=1.0,
                unit="",
                quantity="distance of the median exponent α from 3, the middle of 2 to 4",
            ),
        ),
        reason="the range that the published tool calls well trained",
        minimum={"layers": 4},
        errata=_EXPONENT,
    )


CLAIMS = (
    _gate("folded", "model", "what layers read and write"),
    _gate("stored", "stored", "stored weight matrices"),
)

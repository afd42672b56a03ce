"""Whether a text is in a model's language, by what a pass has measured of it."""

import math
from collections.abc import Mapping

MOST_UNKNOWN = 0.05  # share of tokens
MOST_LOSS = 0.5  # of ln V


def foreign(language: Mapping[str, float]) -> str | None:
    """Why a text is not in a model's language; None where nothing says so.

    Parameters
    ----------
    language : `unknown_share` of tokens, `loss` in nats a token, and `chance`, ln V of a vocabulary of V, the loss of a
        model that knows nothing; what could not be measured is left out.

    >>> foreign({"unknown_share": 0.97})
    'the text is not in the language of the model: 97 % of its tokens are unknown to the tokenizer'
    >>> foreign({"unknown_share": 0.0, "loss": 2.2, "chance": 6.9})
    """
    said = "the text is not in the language of the model"
    if (share := language.get("unknown_share", 0.0)) > MOST_UNKNOWN:
        return f"{said}: {100 * share:.3g} % of its tokens are unknown to the tokenizer"
    loss, chance = language.get("loss", 0.0), language.get("chance", math.inf)
    if loss > MOST_LOSS * chance:
        return f"{said}: its loss is {loss:.3g} nats a token, where knowing nothing gives {chance:.3g}"
    return None

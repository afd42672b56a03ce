"""A model's own loss on a text.

The loss is the mean of −ln p over tokens of the text, p the probability that the model gives a token from those before
it. A model that knows nothing of the text has ln V, V the size of its vocabulary. The head is read a block of rows at a
time, for all tokens where it is small, else for some: what is asked is on which side of half of ln V the loss lies.
"""

import math
from collections.abc import Iterator

import torch

from analyses.weights.checkpoint import Checkpoint
from analyses.weights.schema import Place

TOKENS = 256  # of the text at least, evenly spread: the standard error of a mean of them is some 0.2 nats
PRODUCTS = 1 << 35  # of a logit with a number of the state; as many tokens as these allow, in a small model all of them
ROWS = 8192  # of the head at a time
FACTORS = {"logit_scale": 1.0, "lm_head_multiplier": 1.0, "logits_scaling": -1.0}  # config key → power of its factor


def text_loss(
    checkpoint: Checkpoint, states: torch.Tensor, ids: torch.Tensor, real: torch.Tensor, embedding: torch.Tensor
) -> dict[str, float]:
    """`loss` and `chance` of a text, in nats; {} where the head is not one matrix that is known here.

    Parameters
    ----------
    states : (sequence, token, hidden) behind the final norm. ids, real : (sequence, token), as the model read them.
    embedding : (token, hidden), the head where the two are tied.
    """
    if checkpoint.altered or checkpoint.architecture.encoder:  # a twin is asked for no loss; an encoder predicts none
        return {}
    blocks = _head(checkpoint, embedding)
    places = (real[:, 1:] & real[:, :-1]).nonzero()  # of tokens that have a next one
    if blocks is None or not len(places):
        return {}
    count = min(max(TOKENS, PRODUCTS // embedding.numel()), len(places))
    chosen = places[torch.linspace(0, len(places) - 1, count).round().long()]
    row, at = chosen.unbind(1)
    known = states[row.to(states.device), at.to(states.device)].float()  # (token, hidden)
    targets = ids[row, at + 1].to(known.device)
    total = torch.full((len(known),), -math.inf, device=known.device, dtype=torch.float64)
    own = torch.zeros_like(total)
    vocabulary = 0
    for weight, bias in blocks:
        if weight.shape[1] != known.shape[1]:
            return {}
        block = known @ weight.to(known).mT + bias.to(known)  # float64 in a pass that never narrows
        logits = _scaled(checkpoint, block).double()
        total = torch.logaddexp(total, logits.logsumexp(1))
        here = (targets >= vocabulary) & (targets < vocabulary + len(weight))
        own[here] = logits[here, targets[here] - vocabulary]
        vocabulary += len(weight)
    loss = float((total - own).mean())
    return {"loss": loss, "chance": math.log(vocabulary)} if math.isfinite(loss) else {}


def _scaled(checkpoint: Checkpoint, logits: torch.Tensor) -> torch.Tensor:
    """Logits as the class scales and caps them."""
    for key, power in FACTORS.items():
        if checkpoint.config.get(key):
            logits = logits * float(checkpoint.config[key]) ** power
    cap = checkpoint.config.get("final_logit_softcapping")
    return cap * torch.tanh(logits / cap) if cap else logits


def _head(checkpoint: Checkpoint, embedding: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]] | None:
    """(rows of the head, their bias) in blocks; None where there is no head that can be read."""
    tied = checkpoint.config.get("tie_word_embeddings")
    none = torch.zeros(())
    if checkpoint.architecture.tied if tied is None else tied:
        return ((rows, none) for rows in embedding.split(ROWS))
    known = checkpoint.architecture.head.get("head", ())
    name = next((n for n in sorted(checkpoint.files) if any(("." + n).endswith("." + end) for end in known)), None)
    if name is None or len(checkpoint.headers[name].shape) != 2:
        return None
    bias_name = Place(name).bias().name
    bias = checkpoint.tensor(bias_name) if bias_name in checkpoint.files else None
    starts = range(0, checkpoint.headers[name].shape[0], ROWS)
    return (
        (checkpoint.part(name, (slice(at, at + ROWS),)), none if bias is None else bias[at : at + ROWS])
        for at in starts
    )

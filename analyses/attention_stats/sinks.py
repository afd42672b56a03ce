"""Share of heads that give the first key much of their attention.

As published (Gu et al., arXiv:2410.10781): a head is a sink where its mean probability on key 0 exceeds THRESHOLD over
the first 64 queries, the first among them, which sees nothing else. Uniform attention gives 0.074 there, so that no
head is one by counting alone. Without the first query a head of uniform attention gives 0.059.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyses.attention_stats.means import EARLY
from analyses.numerics.intervals import bootstrap
from analyses.records import Metric

THRESHOLD = 0.3  # of the mean probability
NAMES = ("sink_heads", "sink_heads_without_first")


def none(reason: str) -> dict[str, Metric]:
    """The metrics where no forward pass was made."""
    return dict.fromkeys(NAMES, Metric(value=None, reason=reason, applies=False))


def metrics(dynamic: Sequence[Any], *, prompts: int, seed: int) -> dict[str, Metric]:
    """Share of heads that are sinks, with and without each prompt's first query.

    Parameters
    ----------
    dynamic : (layer,) of `DynamicLayer`. prompts : with at least EARLY tokens.
    """
    early = np.array([layer.sink_share_early_per_head for layer in dynamic], float)  # (layer, head)
    n = {"layers": len(dynamic), "heads": early.size, "prompts": prompts}
    if not prompts:
        return dict.fromkeys(NAMES, Metric(value=None, n=n, reason=f"no prompt of the text has {EARLY} tokens"))
    # The first query gives key 0 all it has, 1/EARLY of the mean.
    tables = {NAMES[0]: early, NAMES[1]: (EARLY * early - 1) / (EARLY - 1)}
    return {name: _share(table > THRESHOLD, n, name, seed) for name, table in tables.items()}


def _share(is_sink: np.ndarray, n: dict[str, float], name: str, seed: int) -> Metric:
    which = "the first among them" if name == NAMES[0] else "the first left out"
    return Metric(
        value=float(is_sink.mean()),
        interval=bootstrap(lambda drawn: is_sink.mean(1)[drawn].mean(1), len(is_sink), seed=seed, within=(0.0, 1.0)),
        n=n,
        method=f"share of heads with mean attention on key 0 above {THRESHOLD} over the first {EARLY} queries, "
        f"{which}; "
        "bootstrap over layers",
    )

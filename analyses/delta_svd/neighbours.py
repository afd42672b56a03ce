"""Statistics of adjacent layers that no exact change of parameters moves: what they do, and where they write.

Of each pair: the cosines of what their branches write on the first one's states (`functional`), the alignment of
their writes' covariances (`covariances`) and the overlap of their directions (`overlaps`). And the standard errors
that a text of so many prompts gives to these and to the shares of single layers, by leaving groups of prompts out.
Intervals join both errors: that over layers or pairs, and the text's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analyses.delta_svd.delta_probe import DeltaProbe
from analyses.delta_svd.functional import BRANCHES
from analyses.numerics.intervals import bootstrap
from analyses.numerics.jackknife import joined, standard_error
from analyses.records import Metric

FLAT = "a layer of the pair writes the same to every token, or equally in all dimensions"
NARROW = "fewer than 32 dimensions: eight directions of one layer and eight of another then overlap by chance"
STILL = "a branch of the pair writes the same to every token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Layers ℓ and ℓ+1."""

    feed_forward_cos: float | None  # on what the feed-forward of ℓ reads; −1 to 1
    attention_cos: float | None  # on what the attention of ℓ reads
    write_alignment: float | None  # of the centred writes' covariances, −1 to 1
    write_overlap: float | None  # of eight directions each, over chance; 1 for unrelated ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What the choice of prompts does to statistics of the text."""

    groups: list[int]  # tokens of each group that is left out once
    whole_prompts: bool  # False where groups cut through prompts, which makes the errors too small
    standard_errors: dict[str, float | None]  # metric → delete-group jackknife


def neighbours(
    probe: DeltaProbe, *, depth: int, per_dimension: float, seed: int
) -> tuple[list[Pair], Text, dict[str, Metric], dict[str, str]]:
    """Pairs of layers, the text's standard errors, metrics, and reasons for what the record lacks.

    Parameters
    ----------
    per_dimension : tokens per dimension of the stream. seed : of the bootstraps.
    """
    pairs = range(depth - 1)
    cosines = {b: _table([probe.functional[b].get(pair) for pair in pairs]) for b in BRANCHES}  # (pair, 1 + group)
    over = [probe.overlaps.get(pair + 1) for pair in pairs]
    alignments = _table([probe.alignments.get(pair + 1) for pair in pairs])
    overlaps = _table([None if both is None else both[0] for both in over])
    n = {"tokens_per_dimension": per_dimension}
    metrics, errors = {}, {}
    for branch in BRANCHES:
        key = f"functional_cos_{branch}"
        why = probe.refused or STILL
        what = f"|cos| of what the {branch.replace('_', '-')} branch and the next one's write on its states, centred"
        metrics[key], errors[key] = _median(np.abs(cosines[branch]), n, why, seed, what)
    worst = max(BRANCHES, key=lambda branch: _or(metrics[f"functional_cos_{branch}"].value, -1.0))
    found = metrics[f"functional_cos_{worst}"]
    known = found.value is not None
    metrics["functional_cos"] = Metric(
        value=found.value,
        interval=found.interval,
        n=found.n,
        where=worst if known else None,
        method=f"worst branch; {found.method}",
        reason=None if known else found.reason,
    )
    errors["functional_cos"] = errors[f"functional_cos_{worst}"]
    squares = cosines[worst] ** 2
    metrics["functional_cos_squared"], errors["functional_cos_squared"] = _median(
        squares, n, found.reason or STILL, seed, f"cos² of the same, {worst}: what one scalar multiple explains"
    )
    metrics["write_alignment"], errors["write_alignment"] = _median(
        alignments, n, FLAT, seed, "alignment of adjacent centred writes' covariances, less their mean over directions",
        least=-1.0,
    )
    metrics["write_overlap"], errors["write_overlap"] = _median(
        overlaps, n, NARROW if depth > 1 and not np.isfinite(overlaps).any() else FLAT, seed,
        "overlap of eight directions of adjacent centred writes, over chance",
    )  # fmt: skip
    errors |= _of_layers(probe, over, depth)
    listed = [
        Pair(
            feed_forward_cos=_number(cosines["feed_forward"][pair]),
            attention_cos=_number(cosines["attention"][pair]),
            write_alignment=_number(alignments[pair]),
            write_overlap=_number(overlaps[pair]),
        )
        for pair in pairs
    ]
    text = Text(
        groups=list(probe.groups.counts), whole_prompts=probe.groups.whole_prompts, standard_errors=errors
    )
    return listed, text, metrics, _absent(listed, text, probe.refused)


def _of_layers(probe: DeltaProbe, over: Sequence[torch.Tensor | None], depth: int) -> dict[str, float | None]:
    """Standard errors of medians over layers that the record has as metrics, and of the mean angle's."""
    writes = [probe.writes[layer] for layer in range(depth)]
    tables = {
        "median_top1_frac": [write.without.get("top1_frac") for write in writes],
        "median_top1_frac_unit_rows": [write.without.get("top1_frac_unit_rows") for write in writes],
        "median_top1_frac_centred": [w.centred_without.top1 if w.centred_without else None for w in writes],
        "median_parallel_frac": [write.without.get("parallel_frac") for write in writes],
        "median_adjacent_abs_cos_centred": [None if both is None else both[1][1:] for both in over],
    }
    return {name: standard_error(_medians(_table(rows))) for name, rows in tables.items()}


def _table(rows: Sequence[torch.Tensor | None]) -> np.ndarray:
    """(row, value) with NaN where a row is missing."""
    width = max((len(row) for row in rows if row is not None), default=1)
    return np.array([np.full(width, np.nan) if row is None else row.numpy() for row in rows]).reshape(-1, width)


def _medians(table: np.ndarray) -> np.ndarray:
    """Median of every column over the rows that are known throughout."""
    known = table[np.isfinite(table).all(1)]
    return np.median(known, axis=0) if len(known) else np.full(table.shape[1], np.nan)


def _median(
    table: np.ndarray, n: Mapping[str, float], why: str, seed: int, what: str, *, least: float = 0.0
) -> tuple[Metric, float | None]:
    """Median over pairs of the first column, and its standard error from the others; `least` that it can be."""
    values = table[:, 0][np.isfinite(table[:, 0])]
    if not values.size:
        return Metric(value=None, reason=why, n={"pairs": 0} | n), None
    error = standard_error(_medians(table)[1:])
    value = float(np.median(values))
    over_pairs = bootstrap(lambda drawn: np.median(values[drawn], axis=1), len(values), seed=seed)
    method = f"median over pairs of {what}; 90 %, bootstrap over pairs joined with the jackknife over prompts"
    interval = joined(value, over_pairs, error, least=least)
    return Metric(value=value, interval=interval, n={"pairs": len(values)} | n, method=method), error


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _number(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _absent(pairs: Sequence[Pair], text: Text, refused: str) -> dict[str, str]:
    reasons = {
        "feed_forward_cos": refused or STILL,
        "attention_cos": refused or STILL,
        "write_alignment": FLAT,
        "write_overlap": f"{FLAT}; or {NARROW}",
    }
    absent = {
        f"pairs.*.{key}": why for key, why in reasons.items() if any(getattr(pair, key) is None for pair in pairs)
    }
    if None in text.standard_errors.values():
        absent["text.standard_errors.*"] = "the statistic, or one with a group of prompts left out, is undefined"
    return absent

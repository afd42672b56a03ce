"""Statistics of adjacent layers that no exact change of parameters moves: what they do, and where they write.

Of each pair: the cosines of what their branches write on the first one's states (`functional`), the alignment of
their writes' covariances (`covariances`) and the overlap of their directions (`overlaps`). And the standard errors
that a text of so many prompts gives to these and to the shares of single layers, by leaving groups of prompts out.
Intervals join both errors: that over layers or pairs, and the text's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from analyses.delta_svd.delta_probe import DeltaProbe
from analyses.delta_svd.functional import BRANCHES
from analyses.numerics.families import member, worst_member
from analyses.numerics.intervals import LEVEL, Interval, jackknife_error, with_prompts
from analyses.records import Member, Metric

PROMPTS = "90 %, over depth by the bootstrap and over prompts by the jackknife, joined"
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
    functional = {b: _member(np.abs(cosines[b]), probe.refused or STILL, seed, len(BRANCHES), (0, 1)) for b in BRANCHES}
    what = "median over pairs of |cos| of what a branch and the next layer's write on the same states, centred"
    found = worst_member(functional, worst="largest", method=f"{what}; {PROMPTS}")
    worst = found.where or BRANCHES[0]
    narrow = depth > 1 and not np.isfinite(overlaps).any()
    cases = {
        "functional_cos_squared": (
            cosines[worst] ** 2, found.reason or STILL, (0, 1),
            f"cos² of the same, {worst}: what one scalar multiple explains",
        ),
        "write_alignment": (
            alignments, FLAT, (-1, 1),
            "alignment of adjacent centred writes' covariances, less their mean over directions",
        ),
        "write_overlap": (
            overlaps, NARROW if narrow else FLAT, (0, np.inf),
            "overlap of eight directions of adjacent centred writes, over chance",
        ),
    }  # fmt: skip
    metrics = {"functional_cos": replace(found, n={**found.n, **n})}
    errors = {f"functional_cos_{branch}": _error(_medians(np.abs(cosines[branch]))[1:]) for branch in BRANCHES}
    for name, (table, why, within, text) in cases.items():
        one = _member(table, why, seed, 1, within)
        metrics[name] = Metric(
            value=one.value,
            interval=one.interval,
            n={**one.n, **n},
            method=f"median over pairs of {text}; {PROMPTS}",
            reason=one.reason,
        )
        errors[name] = _error(_medians(table)[1:])
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
    return {name: _error(_medians(_table(rows))) for name, rows in tables.items()}


def _table(rows: Sequence[torch.Tensor | None]) -> np.ndarray:
    """(row, value) with NaN where a row is missing."""
    width = max((len(row) for row in rows if row is not None), default=1)
    return np.array([np.full(width, np.nan) if row is None else row.numpy() for row in rows]).reshape(-1, width)


def _medians(table: np.ndarray) -> np.ndarray:
    """Median of every column over the rows that are known throughout."""
    known = table[np.isfinite(table).all(1)]
    return np.median(known, axis=0) if len(known) else np.full(table.shape[1], np.nan)


def _member(table: np.ndarray, why: str, seed: int, families: int, within: tuple[float, float]) -> Member:
    """Median over pairs of the first column; its intervals joined with the sampling of prompts by the others."""
    one = member(table[:, 0].tolist(), seed=seed, families=families, within=within)
    if one.value is None:
        return replace(one, reason=why)
    left_out = _medians(table)[1:]

    def joined(interval: Interval | None, level: float) -> Interval | None:
        if interval is None or _error(left_out) is None:
            return interval
        low, high = with_prompts(one.value, interval, left_out, level=level)
        return max(low, within[0]), min(high, within[1])

    return replace(
        one,
        interval=joined(one.interval, LEVEL),
        bonferroni=joined(one.bonferroni, 1 - (1 - LEVEL) / families),
    )


def _error(left_out: np.ndarray) -> float | None:
    """The text's standard error; None where a statistic is undefined, or the text cannot be cut."""
    return jackknife_error(left_out) if len(left_out) > 1 and np.isfinite(left_out).all() else None


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

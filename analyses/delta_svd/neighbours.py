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

from analyses.delta_svd.delta_probe import FUNCTIONAL, DeltaProbe
from analyses.delta_svd.functional import BRANCHES
from analyses.delta_svd.of_text import PROMPTS, beside, error, median, medians, table
from analyses.delta_svd.writes import Spectrum
from analyses.numerics.families import worst_member
from analyses.records import Metric

FLAT = "a layer of the pair writes the same to every token, or equally in all dimensions"
NARROW = "fewer than 32 dimensions: eight directions of one layer and eight of another then overlap by chance"
STILL = "a branch of the pair writes the same to every token"
SILENT = "undefined in all layers"
OF_LAYERS = {
    "median_top1_frac": (SILENT, "layers", "the first direction's share in the write's energy"),
    "median_top1_frac_unit_rows": (SILENT, "layers", "the same with every token's write scaled to length 1"),
    "median_top1_frac_centred": (SILENT, "layers", "the same of the write less its mean over tokens"),
    "median_adjacent_abs_cos_centred": (
        "undefined in all pairs", "pairs", "|cos| between first directions of adjacent centred writes"
    ),
}  # fmt: skip
"""Metric → reason where it is undefined, what the median is over, and of what."""


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
    probe: DeltaProbe, *, depth: int, adjacent: Sequence[float], per_dimension: float, seed: int
) -> tuple[list[Pair], Text, dict[str, Metric], dict[str, str]]:
    """Pairs of layers, the text's standard errors, the metrics asked for, and reasons for what the record lacks.

    Parameters
    ----------
    adjacent : (pair) |cos| between first directions of centred writes, NaN where a layer has none.
    per_dimension : tokens per dimension of the stream. seed : of the bootstraps.
    """
    pairs = range(depth - 1)
    cosines = {b: table([probe.functional[b].get(pair) for pair in pairs]) for b in BRANCHES}  # (pair, 1 + group)
    over = [probe.overlaps.get(pair + 1) for pair in pairs]
    alignments = table([probe.alignments.get(pair + 1) for pair in pairs])
    overlaps = table([None if both is None else both[0] for both in over])
    n = {"tokens_per_dimension": per_dimension}
    metrics: dict[str, Metric] = {}
    errors: dict[str, float | None] = {}
    worst, why = BRANCHES[0], None
    if probe.asks(*FUNCTIONAL):
        functional = {
            b: median(np.abs(cosines[b]), probe.refused or STILL, seed=seed, families=len(BRANCHES), within=(0, 1))
            for b in BRANCHES
        }
        what = "median over pairs of |cos| of what a branch and the next layer's write on the same states, centred"
        found = worst_member(functional, worst="largest", method=f"{what}; {PROMPTS}")
        worst, why = found.where or worst, found.reason
        metrics["functional_cos"] = replace(found, n={**found.n, **n})
        errors = {f"functional_cos_{branch}": error(medians(np.abs(cosines[branch]))[1:]) for branch in BRANCHES}
    narrow = depth > 1 and not np.isfinite(overlaps).any()
    cases = {
        "functional_cos_squared": (
            cosines[worst] ** 2, why or STILL, (0, 1),
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
    for name, (values, why, within, text) in cases.items():
        if not probe.asks(name):
            continue
        one = median(values, why, seed=seed, within=within)
        metrics[name] = Metric(
            value=one.value,
            interval=one.interval,
            n={**one.n, **n},
            method=f"median over pairs of {text}; {PROMPTS}",
            reason=one.reason,
        )
        errors[name] = error(medians(values)[1:])
    of_layers = layer_tables(probe, depth, adjacent)
    errors |= {name: error(medians(values)[1:]) for name, values in of_layers.items() if probe.asks(name)}
    for name, (why, unit, text) in OF_LAYERS.items():
        if not probe.asks(name):
            continue
        one = median(of_layers[name], why, seed=seed, unit=unit, within=(0, 1))
        metrics[name] = Metric(
            value=one.value,
            interval=one.interval,
            n={**one.n, **n},
            method=f"median over {unit} of {text}; {PROMPTS}",
            reason=one.reason,
        )
    listed = [
        Pair(
            feed_forward_cos=_number(cosines["feed_forward"][pair]),
            attention_cos=_number(cosines["attention"][pair]),
            write_alignment=_number(alignments[pair]),
            write_overlap=_number(overlaps[pair]),
        )
        for pair in pairs
    ]
    text = Text(groups=list(probe.groups.counts), whole_prompts=probe.groups.whole_prompts, standard_errors=errors)
    return listed, text, metrics, _absent(listed, text, probe.refused)


def layer_tables(probe: DeltaProbe, depth: int, adjacent: Sequence[float]) -> dict[str, np.ndarray]:
    """Metric, or "median_parallel_frac" of the mean angle → (layer or pair, 1 + group), as in `of_text`."""
    writes = [probe.writes[layer] for layer in range(depth)]

    def shares(spectra: Sequence[Spectrum | None], without: Sequence[torch.Tensor | None]) -> np.ndarray:
        return beside([spectrum.top1_frac if spectrum else None for spectrum in spectra], without)

    over = [probe.overlaps.get(pair + 1) for pair in range(depth - 1)]
    return {
        "median_top1_frac": shares([w.spectrum for w in writes], [w.without.get("top1_frac") for w in writes]),
        "median_top1_frac_unit_rows": shares(
            [w.unit_rows for w in writes], [w.without.get("top1_frac_unit_rows") for w in writes]
        ),
        "median_top1_frac_centred": shares(
            [w.centred for w in writes], [w.centred_without.top1 if w.centred_without else None for w in writes]
        ),
        "median_parallel_frac": beside(
            [w.size.parallel_frac for w in writes], [w.without.get("parallel_frac") for w in writes]
        ),
        "median_adjacent_abs_cos_centred": beside(adjacent, [None if both is None else both[1][1:] for both in over]),
    }


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

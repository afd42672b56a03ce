"""The part of the record that claims about the model read: planted answers, and every family of the table."""

import math

import numpy as np
import pytest
import torch

from analyses import head_grams, records
from analyses.head_grams import folded_record
from analyses.head_grams.folded_heads import folded_heads
from analyses.head_grams.one_head import Heads, Reader
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.folded import Folded
from analyses.weights.planes import STILL, Turns
from checks.twins.planted import query_key_mixture
from checks.twins.twins import SHUFFLED
from tests.tiny import TINY, tiny_checkpoint

TURNING = Turns(frequencies=(1.0, 0.3, 0.1, 0.03))
METRICS = {
    "all_distance_similarity",
    "all_distance_symmetry",
    "folded_sign_mixed",
    "read_subspace_overlap",
    "read_subspace_overlap_isotropic",
}


def gaussian(seed: int, turns: Turns = TURNING, *, hidden: int = 64) -> Folded:
    generator = torch.Generator().manual_seed(seed)
    keys, queries = (torch.randn(n, 8, hidden, generator=generator, dtype=torch.float64) for n in (4, 8))
    return Folded(keys, queries, turns)


def summarised(*layers: Folded) -> tuple[folded_record.FoldedRecord, dict[str, records.Metric]]:
    facts = list(folded_heads(lambda layer: layers[layer], range(len(layers)), len(layers), 4, seed=0))
    found = folded_record.record(facts, top=4, hidden=layers[0].keys.shape[-1])
    return found, folded_record.metrics(found, seed=0)


def test_unrelated_layers_are_unlike_symmetric_by_half_and_read_what_chance_says():
    _, metrics = summarised(*(gaussian(i) for i in range(6)))
    assert metrics["all_distance_similarity"].value < 4 / 64  # a root mean square of 1/hidden, the best of eight
    assert metrics["all_distance_symmetry"].value == pytest.approx(0.5, abs=0.02)
    assert metrics["folded_sign_mixed"].value == 1
    # 40 overlaps, each of 4·4 squared cosines: about 30 % a head, 5 % in their median
    assert metrics["read_subspace_overlap"].value == pytest.approx(1, abs=0.15)
    assert metrics["read_subspace_overlap_isotropic"].value == pytest.approx(1, abs=0.15)
    assert metrics["read_subspace_overlap"].n["room"] == pytest.approx(64 / 4, rel=0.1)


def test_a_layer_repeated_in_another_order_is_alike_and_shares_what_it_reads():
    a = gaussian(0)
    groups, heads = [2, 0, 3, 1], [4, 5, 0, 1, 6, 7, 2, 3]
    found, metrics = summarised(a, Folded(a.keys[groups], a.queries[heads], a.turns))
    assert found.matching == [[heads.index(h) for h in range(8)]]
    assert metrics["all_distance_similarity"].value == pytest.approx(1, abs=1e-12)
    assert metrics["read_subspace_overlap_isotropic"].value == pytest.approx(64 / 4, rel=1e-12)
    assert metrics["read_subspace_overlap"].value == pytest.approx(metrics["read_subspace_overlap"].n["room"], rel=0.02)


def test_heads_of_symmetric_layers_are_of_one_sign():
    rows = [gaussian(i).queries for i in range(3)]
    _, metrics = summarised(*(Folded(r, r, TURNING) for r in rows))
    assert metrics["folded_sign_mixed"].value == 0
    assert metrics["all_distance_symmetry"].value == pytest.approx(1, abs=1e-12)


def test_a_model_whose_neighbours_all_turn_differently_has_reasons_and_a_mixed_one_counts_the_other_pairs():
    other = Turns(frequencies=(0.9, 0.2, 0.1, 0.03))
    _, never = summarised(gaussian(0), gaussian(1, other), gaussian(2, STILL))
    for name in METRICS - {"all_distance_symmetry", "folded_sign_mixed"}:
        assert never[name].value is None and not never[name].applies and "frequencies" in never[name].reason
    found, some = summarised(gaussian(0), gaussian(1), gaussian(2, STILL), gaussian(3, STILL))
    assert [order is None for order in found.matching] == [False, True, False]
    assert some["all_distance_similarity"].n == {"pairs": 2, "heads": 16} and some["read_subspace_overlap"].value > 0
    assert np.isnan(found.similarity[1]).all() and not np.isnan(found.similarity[[0, 2]]).any()


def test_the_metrics_of_a_record_are_the_medians_of_its_lists():
    found, metrics = summarised(*(gaussian(i) for i in range(5)))  # of fewer than four pairs there is no interval
    ratio = found.overlap / found.overlap_chance[:, None]
    assert metrics["all_distance_similarity"].value == np.median(np.abs(found.similarity))
    assert metrics["read_subspace_overlap"].value == np.median(ratio)
    assert metrics["all_distance_symmetry"].value == np.median(found.symmetry)
    assert all(low <= metrics[name].value <= high for name in METRICS for low, high in [metrics[name].interval])


def test_heads_without_a_fold_of_their_own_are_taken_as_they_are():
    layers = [Heads(*gaussian(i)[:2]) for i in range(3)]
    read = Reader(lambda layer: layers[layer].keys, lambda layer: layers[layer].queries)
    assert all(torch.equal(*pair) for pair in zip(read.fold(1)[:2], layers[1], strict=True))
    assert read.fold(1).turns == STILL


@pytest.mark.parametrize("name", TINY)
def test_every_family_has_a_whole_record_and_each_number_or_its_reason(name, tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "model", name, tokenizer=False)))
    record, _ = head_grams.measure(checkpoint, seed=0, device="cpu")
    records.write_json(tmp_path / "record.json", record)  # which refuses a null without a reason
    assert METRICS <= record.metrics.keys()
    turning = name in ("smollm3", "gemma3")  # whose layers change their positions from one to the next
    centred = name in ("stablelm", "phi, q/k norms")  # whose q/k LayerNorms leave 7 of a head's 8 dimensions, below k
    assert (record.metrics["all_distance_similarity"].value is None) == turning
    for metric in ("read_subspace_overlap", "read_subspace_overlap_isotropic"):
        assert (record.metrics[metric].value is None) == (turning or centred), metric
    for metric in ("all_distance_symmetry", "folded_sign_mixed"):
        assert 0 <= record.metrics[metric].value <= 1


def test_a_plant_of_keys_among_queries_is_seen_and_a_shuffle_is_not(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "llama", tokenizer=False, layers=4, hidden_size=128)))
    planted, shuffled = (kind.apply(checkpoint, 0) for kind in (query_key_mixture(), SHUFFLED))
    symmetry = [
        head_grams.measure(c, seed=0, device="cpu")[0].metrics["all_distance_symmetry"].value
        for c in (planted, shuffled)
    ]
    # With q = 0.4 k + √(1 − 0.16) noise, c² is about 0.16 in every plane; unrelated ones have 0 on average.
    assert symmetry[0] == pytest.approx(0.5 * (1 + 0.16), abs=0.05)
    assert symmetry[1] == pytest.approx(0.5, abs=2 / math.sqrt(128 * 16))

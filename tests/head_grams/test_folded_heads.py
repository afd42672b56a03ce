"""Folded heads of neighbouring layers: dense matrices over whole periods, planted answers, every exact map."""

import math

import numpy as np
import pytest
import torch

from analyses.head_grams.folded_heads import FoldedHeads, folded_heads, mean_projector, sign_energy
from analyses.head_grams.layer_pairs import best_matching
from analyses.numerics.spectra import haar
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from analyses.weights.folded import Folded, folded_readers
from analyses.weights.planes import STILL, Turns
from checks.maps.catalogue import MAPS, SCRAMBLE
from checks.maps.exact import EXACT
from tests.maps.test_coordinates import match_gains
from tests.tiny import TINY, tiny_checkpoint

ROUNDING = 1e-10  # of float64 products and one eigenvalue problem of side head_dim
BY_WEIGHTS, BY_EPS = 1e-6, 1e-4  # what an exact map may leave: rounding; a norm's eps
PERIOD = 16
TURNING = Turns(frequencies=tuple(2 * math.pi * m / PERIOD for m in (5, 3, 1)))
KINDS = {"rotary": TURNING, "partly rotary": Turns(TURNING.frequencies[:2]), "not rotary": STILL}
TOP = 3


def gaussian(seed: int, turns: Turns = STILL, *, heads: int = 4, kv_heads: int = 2, hidden: int = 14) -> Folded:
    generator = torch.Generator().manual_seed(seed)
    keys, queries = (torch.randn(n, 6, hidden, generator=generator, dtype=torch.float64) for n in (kv_heads, heads))
    return Folded(keys, queries, turns)


def dense(heads: Folded, distance: int) -> torch.Tensor:
    """g(Δ) of every head, (head, hidden, hidden)."""
    rotation = torch.eye(6, dtype=torch.float64)
    half = len(heads.turns.frequencies)
    for i, frequency in enumerate(heads.turns.frequencies):
        cosine, sine = math.cos(frequency * distance), math.sin(frequency * distance)
        rotation[i, i] = rotation[i + half, i + half] = cosine
        rotation[i, i + half], rotation[i + half, i] = -sine, sine
    return heads.keys.repeat_interleave(len(heads.queries) // len(heads.keys), 0).mT @ rotation @ heads.queries


def measured(*layers: Folded, top: int = TOP) -> list[FoldedHeads]:
    return list(folded_heads(lambda layer: layers[layer], range(len(layers)), len(layers), top, seed=0))


@pytest.fixture(params=KINDS)
def turns(request) -> Turns:
    return KINDS[request.param]


# --- dense truths ---------------------------------------------------------------------------------


def test_similarity_and_read_spans_are_those_of_the_dense_metrics_of_all_distances(turns):
    a, b = gaussian(0, turns), gaussian(1, turns)
    found, last = measured(a, b)
    both = [torch.stack([dense(x, at) for at in range(PERIOD)], 1) for x in (a, b)]  # (head, distance, …)
    cosine = torch.einsum("hdij,gdij->hg", *(x / x.square().sum((1, 2, 3), keepdim=True).sqrt() for x in both))
    torch.testing.assert_close(found.similarity, cosine, rtol=0, atol=ROUNDING)
    spans = [torch.linalg.svd(x.flatten(1, 2)).Vh[:, :TOP] for x in both]  # of g(Δ) of all distances below each other
    overlap = torch.einsum("hki,gli->hgkl", *spans).square().sum((2, 3)) / TOP
    torch.testing.assert_close(found.overlap, overlap, rtol=0, atol=ROUNDING)
    assert last.similarity.isnan().all() and last.overlap.isnan().all() and last.chance.isnan()


def test_the_sign_energy_is_that_of_the_dense_symmetric_part_at_distance_zero(turns):
    heads = gaussian(2, turns)
    metric = dense(heads, 0)
    values = torch.linalg.eigvalsh(metric + metric.mT)
    expected = torch.where(values < 0, values.square(), 0).sum(1) / values.square().sum(1)
    torch.testing.assert_close(sign_energy(heads), expected, rtol=0, atol=ROUNDING)


SPECTRA = {
    "flat": torch.ones(40),
    "falling": 1 / torch.arange(1, 41),
    "falling fast": 1 / torch.arange(1, 41) ** 2,
    "spiked": torch.cat([torch.full((4,), 50.0), torch.ones(36)]),
    "of low rank": torch.cat([torch.ones(12), torch.zeros(28)]),
    "of one direction": torch.cat([torch.full((1,), 1000.0), torch.ones(39)]),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("turned", [0.0, 0.3, 2.0])
def test_chance_is_what_spans_drawn_from_the_two_covariances_overlap_by(spectrum, turned):
    """Two layers of one spectrum, whose eigenvectors are the same, turned a little, or unrelated."""
    generator = torch.Generator().manual_seed(5)
    skew = torch.randn(40, 40, generator=generator, dtype=torch.float64) * turned / math.sqrt(40)
    one = torch.diag(SPECTRA[spectrum].double().sqrt())
    factors = [one, one @ torch.linalg.matrix_exp(skew - skew.mT)]
    found = [mean_projector(x.unflatten(0, (5, 8)), 8, seed=[3, i]) for i, x in enumerate(factors)]

    def span(x: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(4000, 8, 40, generator=generator, dtype=torch.float64) @ x
        return torch.linalg.qr(drawn.mT).Q

    overlaps = (span(factors[0]).mT @ span(factors[1])).square().sum((1, 2)) / 8
    chance, drawn = float((found[0] * found[1]).sum() / 8), float(overlaps.mean())
    # Four standard errors of the 4,000 draws; 64 draws of Σ f² and the form of E P each leave 1 %.
    assert abs(chance - drawn) < 4 * float(overlaps.std()) / math.sqrt(4000) + 0.02 * drawn
    assert all(float(x.trace()) == pytest.approx(8, rel=ROUNDING) for x in found)


# --- planted answers ------------------------------------------------------------------------------


def test_a_planted_head_is_found_in_the_next_layer_whatever_the_order_and_the_turn_of_its_planes():
    a, noise = gaussian(3, TURNING, hidden=256), gaussian(4, TURNING, hidden=256)
    keys, queries = (math.sqrt(0.5) * x + math.sqrt(0.5) * y for x, y in zip(a[:2], noise[:2], strict=True))
    turn = torch.polar(torch.tensor([0.5, 2.0, 3.0]), torch.tensor([0.3, 1.0, -2.0])).to(torch.complex128)[:, None]
    turned = torch.complex(queries[:, :3], queries[:, 3:]) * turn  # queries by z, keys by 1/z̄, per plane
    against = torch.complex(keys[:, :3], keys[:, 3:]) / turn.conj()
    keys, queries = (torch.cat([x.real, x.imag], 1) for x in (against, turned))
    b = Folded(keys[[1, 0]], queries[[3, 2, 1, 0]], TURNING)
    similarity = measured(a, b)[0].similarity.numpy()
    assert best_matching(similarity).tolist() == [3, 2, 1, 0]
    # Each factor shares √½ of its length; sampling error of a cosine in 6·256 dimensions, through ½ and 4 heads.
    np.testing.assert_allclose(similarity[range(4), [3, 2, 1, 0]], 0.5, atol=0.1, rtol=0)


def test_read_spans_of_unrelated_heads_overlap_as_chance_says_and_planted_ones_more():
    a, b = (gaussian(seed, heads=60, kv_heads=30, hidden=48) for seed in (5, 6))
    found = measured(a, b)[0]
    # 3,600 overlaps of sets of 60 spans; chance from 64 draws
    assert float(found.overlap.mean() / found.chance) == pytest.approx(1, abs=0.05)
    same = measured(a, a)[0]
    torch.testing.assert_close(same.overlap.diagonal(), torch.ones(60).double(), rtol=0, atol=ROUNDING)
    assert float((same.overlap.diagonal() / same.chance).median()) > 5


def test_heads_that_read_their_layers_common_directions_and_nothing_else_in_common_do_not_beat_its_covariance():
    """Isotropic chance takes a stream whose channels differ in size for shared heads."""
    size = torch.cat([torch.full((6,), 5.0), torch.ones(58)]).double()
    a, b = (gaussian(seed, heads=40, kv_heads=20, hidden=64) for seed in (7, 8))
    a, b = (Folded(x.keys, x.queries * size, STILL) for x in (a, b))
    found = measured(a, b)[0]
    assert float(found.overlap.mean()) > 2.5 * TOP / 64
    assert float(found.overlap.mean() / found.chance) < 1.6


def test_heads_whose_queries_are_their_keys_are_symmetric_and_of_one_sign(turns):
    rows = gaussian(9, turns).queries
    one, opposite = (measured(Folded(rows, sign * rows, turns), gaussian(0, turns, kv_heads=4))[0] for sign in (1, -1))
    assert (one.symmetry - 1).abs().max() < ROUNDING and (opposite.symmetry - 1).abs().max() < ROUNDING
    assert one.negative.max() < ROUNDING and (opposite.negative - 1).abs().max() < ROUNDING


def test_a_zero_head_and_one_of_low_rank_have_no_number_and_the_others_keep_theirs():
    a, b = gaussian(10), gaussian(11)
    whole = measured(a, b)[0]
    queries = a.queries.clone()
    queries[1] = 0
    queries[2, 2:] = 0  # of rank 2, below TOP
    found = measured(Folded(a.keys, queries), b)[0]
    assert found.symmetry.isnan().tolist() == [False, True, False, False] == found.negative.isnan().tolist()
    assert found.similarity.isnan().all(1).tolist() == [False, True, False, False]
    assert found.overlap.isnan().all(1).tolist() == [False, True, True, False]
    torch.testing.assert_close(found.similarity[[0, 3]], whole.similarity[[0, 3]], rtol=0, atol=ROUNDING)
    assert found.chance > 0


def test_layers_that_turn_by_different_frequencies_are_not_compared():
    a, b = gaussian(12, TURNING), gaussian(13, TURNING._replace(frequencies=TURNING.frequencies[::-1]))
    found = measured(a, b)[0]
    assert found.similarity.isnan().all() and found.overlap.isnan().all() and found.chance.isnan()
    assert not found.symmetry.isnan().any()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_no_number_depends_on_the_size_of_weights(turns, scale):
    a, b = gaussian(14, turns), gaussian(15, turns)
    found = measured(Folded(scale * a.keys, scale * a.queries, turns), b)[0]
    for value, expected in zip(found, measured(a, b)[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=ROUNDING)


def test_pieces_of_layers_give_the_numbers_of_all(turns):
    layers = [gaussian(i, turns) for i in range(4)]
    whole = measured(*layers)
    pieces = [
        f
        for lows in (range(1), range(1, 3), range(3, 4))
        for f in folded_heads(layers.__getitem__, lows, 4, TOP, seed=0)
    ]
    for found, expected in zip(pieces, whole, strict=True):
        assert all(torch.equal(x.nan_to_num(9), y.nan_to_num(9)) for x, y in zip(found, expected, strict=True))


# --- exact maps -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name: str) -> Checkpoint:
        if name not in made:
            folder = tmp_path_factory.mktemp("m")
            tiny_checkpoint(folder, name, tokenizer=False, layers=4, tie_word_embeddings=False)
            if name == "qwen3":
                match_gains(folder)
            made[name] = open_checkpoint(str(folder))
        return made[name]

    return build


def summaries(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every statistic whatever the order of heads: values of a layer in order, and sums at the best matching."""
    layers, top = checkpoint.shape.layers, 5
    read = lambda layer: folded_readers(checkpoint, layer, device="cpu")  # noqa: E731
    found = list(folded_heads(read, range(layers), layers, top, seed=0))
    matched = [f.similarity.numpy() for f in found[:-1]]
    columns = [best_matching(similarity) for similarity in matched]
    rows = np.arange(checkpoint.shape.heads)
    return {
        "symmetry": np.stack([f.symmetry.sort().values.numpy() for f in found]),
        "negative": np.stack([f.negative.sort().values.numpy() for f in found]),
        "similarity": np.stack([np.sort(s[rows, c]) for s, c in zip(matched, columns, strict=True)]),
        "overlap": np.stack([np.sort(f.overlap.numpy()[rows, c]) for f, c in zip(found, columns, strict=False)]),
        "chance": np.array([float(f.chance) for f in found[:-1]]),
    }


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt", "gemma2"])
@pytest.mark.parametrize("map", [*MAPS, SCRAMBLE], ids=lambda m: m.name)
def test_no_exact_map_moves_what_folded_heads_say(stage, map, name):
    checkpoint = stage(name)
    if map.undefined(checkpoint):
        return
    bound = BY_WEIGHTS if map.tolerance(checkpoint) <= EXACT else BY_EPS
    before, after = summaries(checkpoint), summaries(map.apply(checkpoint, 3))
    for statistic, values in before.items():
        np.testing.assert_allclose(
            after[statistic], values, rtol=0, atol=bound * np.abs(values).max(), err_msg=statistic
        )


@pytest.mark.parametrize("name", TINY)
def test_every_family_is_measured(tmp_path, name):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False)))
    read = lambda layer: folded_readers(checkpoint, layer, device="cpu")  # noqa: E731
    found = list(folded_heads(read, range(3), 3, 8, seed=0))
    assert all(not f.symmetry.isnan().any() and not f.negative.isnan().any() for f in found)
    alike = [read(i).turns.alike(read(i + 1).turns) for i in range(2)]
    assert [not f.similarity.isnan().any() for f in found[:-1]] == alike
    assert alike == [TINY[name][0] not in ("smollm3", "gemma3_text")] * 2  # which change their positions every layer


def test_a_rotation_of_the_stream_leaves_the_chance_alone():
    a, b = gaussian(20, hidden=30), gaussian(21, hidden=30)
    rotation = haar(30, 30, torch.Generator().manual_seed(0))
    turned = [Folded(x.keys @ rotation, x.queries @ rotation, STILL) for x in (a, b)]
    for value, expected in zip(measured(*turned)[0], measured(a, b)[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=ROUNDING)

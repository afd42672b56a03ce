"""Products of heads over all distances, against dense sums of g(Δ) over a whole period of the positions."""

import math

import pytest
import torch

from analyses.weights import planes
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.planes import STILL, Turns, parts
from analyses.weights.positions import turns
from tests.by_hand import _rotated
from tests.tiny import TINY, tiny_checkpoint

PERIOD = 12  # positions; frequencies are whole multiples of 2π/PERIOD below π, so that sums over a period are exact
ROUNDING = 1e-12  # of sums of some hundred float64 products, relative to the largest
HEADS, KEYS, HEAD_DIM, HIDDEN = 4, 2, 8, 11


def of_multiples(*multiples: int, pairs: bool = False) -> Turns:
    return Turns(frequencies=tuple(2 * math.pi * m / PERIOD for m in multiples), pairs=pairs)


KINDS = {
    "all dimensions, halves": of_multiples(5, 3, 2, 1),
    "all dimensions, pairs": of_multiples(5, 3, 2, 1, pairs=True),
    "some dimensions, halves": of_multiples(4, 1),
    "some dimensions, pairs": of_multiples(2, 1, 5, pairs=True),
    "planes that turn alike": of_multiples(1, 3, 1, 3),
    "some planes that turn alike": of_multiples(1, 1, 4),
    "no dimension": STILL,
}


def heads(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, queries = (torch.randn(n, HEAD_DIM, HIDDEN, generator=generator, dtype=torch.float64) for n in (KEYS, HEADS))
    return keys, queries


def rotation(kind: Turns, position: int) -> torch.Tensor:
    """The (head_dim, head_dim) rotation of what stands at a position, plane by plane."""
    matrix = torch.eye(HEAD_DIM, dtype=torch.float64)
    for plane, frequency in enumerate(kind.frequencies):
        half = len(kind.frequencies)
        i, j = (2 * plane, 2 * plane + 1) if kind.pairs else (plane, plane + half)
        cosine, sine = math.cos(frequency * position), math.sin(frequency * position)
        matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cosine, -sine, sine, cosine
    return matrix


def dense(keys: torch.Tensor, queries: torch.Tensor, kind: Turns, distance: int) -> torch.Tensor:
    """g(Δ) = W_kᵀ R_Δ W_q, a query at position Δ with a key at 0: (head, hidden, hidden)."""
    of_each = keys[torch.arange(HEADS) * KEYS // HEADS]
    return of_each.mT @ rotation(kind, distance) @ queries


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max()) <= ROUNDING * float(expected.abs().max())


@pytest.fixture(params=KINDS, ids=str)
def kind(request) -> Turns:
    return KINDS[request.param]


def over_distances(term) -> torch.Tensor:
    return sum(term(distance) for distance in range(PERIOD)) / PERIOD


def test_the_product_of_two_heads_is_its_mean_over_all_distances(kind):
    a, b = heads(0), heads(1)
    expected = over_distances(lambda at: torch.einsum("hij,gij->hg", dense(*a, kind, at), dense(*b, kind, at)))
    assert close(planes.inner_products(parts(*a, kind), parts(*b, kind)), expected)


def test_the_norm_of_a_head_is_its_root_mean_square_over_all_distances(kind):
    a = heads(2)
    expected = over_distances(lambda at: dense(*a, kind, at).square().sum((1, 2)))
    assert close(planes.norms(parts(*a, kind)).square(), expected)
    assert close(planes.inner_products(*[parts(*a, kind)] * 2).diagonal(), expected)


def test_queries_and_keys_exchanged_give_the_transposed_metric_at_the_opposite_distance(kind):
    keys, queries = heads(3)
    keys = keys.repeat_interleave(HEADS // KEYS, 0)  # a key head a query head, so that they can be exchanged
    of_each = torch.arange(HEADS)
    for at in range(PERIOD):
        exchanged = queries[of_each].mT @ rotation(kind, at) @ keys
        there_and_back = keys.mT @ rotation(kind, -at) @ queries
        assert close(exchanged, there_and_back.mT)
    expected = planes.inner_products(parts(keys, queries, kind), parts(queries, keys, kind)).diagonal()
    assert close(planes.swapped_products(parts(keys, queries, kind)), expected)


def test_symmetry_is_the_similarity_of_the_metric_and_its_transpose_at_the_opposite_distance(kind):
    a = heads(4)
    mean = over_distances(lambda at: (dense(*a, kind, at) * dense(*a, kind, -at).mT).sum((1, 2)))
    square = over_distances(lambda at: dense(*a, kind, at).square().sum((1, 2)))
    assert close(planes.symmetry(parts(*a, kind)), (1 + mean / square) / 2)


def test_symmetry_is_that_of_the_planes_own_cosines():
    kind = KINDS["all dimensions, halves"]
    keys, queries = heads(5)
    a, b = (torch.complex(rows[:, :4], rows[:, 4:]) for rows in (queries, keys.repeat_interleave(2, 0)))
    e = a.norm(dim=-1) * b.norm(dim=-1)  # (head, plane)
    c = (a.conj() * b).sum(-1) / e
    expected = (1 + ((e * c) ** 2).sum(1).real / e.square().sum(1)) / 2
    assert close(planes.symmetry(parts(keys, queries, kind)), expected)


def test_read_factors_hold_what_the_metric_reads_at_all_distances(kind):
    a = heads(6)
    found = planes.read_factors(parts(*a, kind))
    expected = over_distances(lambda at: dense(*a, kind, at).mT @ dense(*a, kind, at))
    assert found.shape == (HEADS, HEAD_DIM, HIDDEN)
    assert close(found.mT @ found, expected)


def test_a_head_whose_queries_are_its_keys_is_symmetric_and_one_turned_by_a_quarter_antisymmetric(kind):
    rows = heads(7)[1]
    assert close(planes.symmetry(parts(rows, rows, kind)), torch.ones(HEADS).double())
    assert close(planes.symmetry(parts(rows, -rows, kind)), torch.ones(HEADS).double())
    if 2 * len(kind.frequencies) == HEAD_DIM:
        quarter = rotation(Turns((math.pi / 2,) * 4, kind.pairs), 1)
        assert planes.symmetry(parts(quarter @ rows, rows, kind)).abs().max() <= ROUNDING


def test_unrelated_queries_and_keys_are_as_symmetric_as_not():
    generator = torch.Generator().manual_seed(8)
    keys, queries = (torch.randn(200, 8, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    found = planes.symmetry(parts(keys, queries, KINDS["all dimensions, halves"]))
    # ⟨⟨g, ĝ⟩⟩ sums 4 terms c² of mean square 2/hidden², so that S spreads by about 1/(2·hidden); 200 heads.
    assert abs(float(found.mean()) - 0.5) < 5 / (2 * 64 * math.sqrt(200))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_similarity_and_symmetry_do_not_depend_on_the_size_of_weights(kind, scale):
    a, b = heads(9), heads(10)

    def similarity(factor: float) -> torch.Tensor:
        one, other = (parts(factor * keys, factor * queries, kind) for keys, queries in (a, b))
        return planes.inner_products(one, other) / (planes.norms(one)[:, None] * planes.norms(other))

    assert close(similarity(scale), similarity(1.0))
    assert close(planes.symmetry(parts(scale * a[0], scale * a[1], kind)), planes.symmetry(parts(*a, kind)))


def test_layers_compare_only_where_they_turn_by_the_same_frequencies():
    one = of_multiples(1, 2)
    assert one.alike(of_multiples(1, 2)) and one.alike(of_multiples(1, 2, pairs=True))
    assert not one.alike(of_multiples(1, 3)) and not one.alike(STILL) and not one.alike(one._replace(scaling="{}"))


@pytest.mark.parametrize("name", TINY)
def test_the_planes_of_every_family_are_those_that_its_logits_are_made_of(name, tmp_path):
    """Queries and keys at all positions, rotated by hand, meet in Re Σ e^{iθΔ} M_p."""
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name, tokenizer=False)))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(7, checkpoint.shape.hidden, generator=generator, dtype=torch.float64)
    for layer in range(checkpoint.shape.layers):
        keys, queries = (checkpoint.head_blocks(f, layer) for f in ("k_proj", "q_proj"))
        keys = keys.repeat_interleave(len(queries) // len(keys), 0)
        rotated = (_rotated(checkpoint, layer, tokens @ rows.mT) for rows in (queries, keys))
        expected = next(rotated) @ next(rotated).mT  # (head, query, key)
        kind = turns(checkpoint, layer)
        angles = torch.tensor(kind.frequencies, dtype=torch.float64)
        distances = torch.arange(7)[:, None, None] - torch.arange(7)[:, None]
        found = torch.zeros_like(expected)
        for part in parts(keys, queries, kind):
            turned = torch.polar(torch.ones(1).double(), distances * angles) if part.weight < 1 else torch.ones(7, 7, 1)
            q, k = (rows @ tokens.to(rows.dtype).mT for rows in (part.queries, part.keys))  # (head, plane, row, token)
            found += torch.einsum("hfrt,hfrs,tsf->hts", q, k.conj(), turned.to(q.dtype)).real
        # Angles of up to six radians, and sums of 32 products
        assert close(found, expected), (name, layer)


def test_planes_of_frequency_zero_stand_still():
    """Half of a head's planes do not turn: its parts are those of the two halves, one turning, one real."""
    keys, queries = (torch.randn(2, 8, 16, dtype=torch.float64) for _ in range(2))
    turns = Turns(frequencies=(1.0, 0.3, 0.0, 0.0))
    turning, still = [0, 1, 4, 5], [2, 3, 6, 7]
    apart = parts(keys[:, turning], queries[:, turning], Turns(frequencies=(1.0, 0.3)))
    apart += parts(keys[:, still], queries[:, still], Turns())
    found = parts(keys, queries, turns)
    torch.testing.assert_close(planes.norms(found), planes.norms(apart), rtol=1e-13, atol=0)
    assert [part.keys.is_complex() for part in found] == [True, False]

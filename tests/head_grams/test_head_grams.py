"""The per-head metric within and across layers, against dense float64 matrices and planted truths."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analyses import head_grams, records
from analyses.errors import InputError
from analyses.head_grams import all_pairs, layer_pairs, shards
from analyses.head_grams.all_pairs import all_products, paired_products, scramble
from analyses.head_grams.layer_pairs import inner_products, paired_inner_products
from analyses.head_grams.one_head import Heads, Reader, curvature, head_metrics
from analyses.numerics.spectra import EPS, haar
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.shape import Shape
from checks.claims.gate import evaluate
from checks.claims.head_grams import CLAIMS, INTEGRITY
from tests.strategies import seeds
from tests.tiny import MODEL_TYPES, tiny_checkpoint

MARGIN = 16  # constant in front of size × eps × norms: backward errors of LAPACK are a small multiple of it


def gaussian(seed: int, *, heads: int = 4, kv_heads: int = 2, head_dim: int = 3, hidden: int = 10) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    return Heads(
        torch.randn(kv_heads, head_dim, hidden, generator=generator, dtype=torch.float64),
        torch.randn(heads, head_dim, hidden, generator=generator, dtype=torch.float64),
    )


def dense(heads: Heads) -> torch.Tensor:
    """Every head's g, with the key head written out: head h uses key head ⌊h·K/H⌋. (head, hidden, hidden)"""
    many, few = len(heads.queries), len(heads.keys)
    return torch.stack([heads.keys[h * few // many].mT @ heads.queries[h] for h in range(many)])


def rounding(a: Heads, b: Heads) -> float:
    """Rounding bound of an inner product of two heads: hidden × eps × all four norms."""
    norms = (rows.norm(dim=(-2, -1)).max() for rows in (*a, *b))
    return MARGIN * a.keys.shape[-1] * EPS * float(torch.stack(list(norms)).prod())


def reader(layers: list[Heads]) -> Reader:
    return Reader(lambda layer: layers[layer].keys, lambda layer: layers[layer].queries)


def shape_of(layers: list[Heads]) -> Shape:
    (kv_heads, head_dim, hidden), heads = layers[0].keys.shape, len(layers[0].queries)
    return Shape(
        layers=len(layers), hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim, feed_forward=4 * hidden
    )


def measured(layers: list[Heads], **options):
    return head_grams.measure_heads(reader(layers), shape_of(layers), model="planted", notes=[], seed=0, **options)


def compared(layers: list[Heads]) -> layer_pairs.Pairs:
    norms = np.stack([dense(layer).norm(dim=(1, 2)).numpy() for layer in layers])
    return layer_pairs.compare_layers(layer_pairs.by_entries(reader(layers), len(layers), seed=0), norms)


def on_disk(record, folder) -> dict:
    records.write_json(folder / "head_grams.json", record)
    return records.read_json(folder / "head_grams.json")


def planted(seed: int, *, cosine: float, hidden: int = 256) -> tuple[list[Heads], np.ndarray]:
    """Two layers whose metrics share `cosine`, hidden by a permutation of groups and of heads in a
    group and by a rotation of each group's head dimensions; and the permutation of heads."""
    a, noise = gaussian(seed, hidden=hidden, head_dim=6), gaussian(seed + 1, hidden=hidden, head_dim=6)
    mixed = [np.sqrt(cosine) * x + np.sqrt(1 - cosine) * y for x, y in zip(a, noise, strict=True)]
    groups, members = [1, 0], [1, 0]
    turns = torch.stack([haar(6, 6, torch.Generator().manual_seed(seed + i)) for i in range(2)])
    keys = (turns @ mixed[0])[groups]
    queries = (turns[:, None] @ mixed[1].unflatten(0, (2, 2)))[groups][:, members].flatten(0, 1)
    # Head (group, member) has gone to (1 − group, 1 − member).
    return [a, Heads(keys, queries)], np.array([3, 2, 1, 0])


# --- known answers ------------------------------------------------------------------------------


def test_a_head_whose_queries_equal_its_keys_has_no_negative_curvature_and_its_opposite_only_negative():
    rows = gaussian(0, heads=1, kv_heads=1).queries
    alike, opposite = head_metrics(Heads(rows, rows), 3), head_metrics(Heads(rows, -rows), 3)
    # Negative eigenvalues left by rounding have λ² of order eps² of the largest.
    assert curvature(alike.sym_eigs).item() == pytest.approx(0, abs=1e-28)
    assert curvature(opposite.sym_eigs).item() == pytest.approx(1, abs=1e-15)


def test_curvature_of_unrelated_queries_and_keys_is_one_half():
    values = curvature(head_metrics(gaussian(1, heads=20, kv_heads=20, hidden=400), 3).sym_eigs)
    # g + gᵀ then has eigenvalues ±σ up to terms of order √(head_dim/hidden) = 0.09.
    assert ((values - 0.5).abs() < 0.1).all(), values


def test_a_planted_shared_metric_is_found_whatever_the_order_and_the_rotation_of_heads():
    layers, order = planted(3, cosine=0.5)
    record, _ = measured(layers)
    assert record.matching[0].tolist() == order.tolist()
    # Mixing both sides at √0.5 gives g' = 0.5·g + noise; sampling error about √(head_dim/hidden)/2 = 0.08.
    np.testing.assert_allclose(record.similarity_matched[0], 0.5, rtol=0, atol=0.1)
    assert record.metrics["median_abs_similarity_index"].value < 0.1
    assert record.similarity_chance < 0.1
    # A shared subspace shows too: cosine² of 0.5 in the mean, against a chance of 6/256.
    assert record.metrics["median_overlap_ratio"].value > 0.3 / record.overlap_chance


def test_a_planted_opposite_metric_is_found_with_its_sign():
    layers, order = planted(3, cosine=0.5)
    layers[1].queries.neg_()
    record, _ = measured(layers)
    assert record.matching[0].tolist() == order.tolist()
    np.testing.assert_allclose(record.similarity_matched[0], -0.5, rtol=0, atol=0.1)  # sampling error, as above


def test_chance_forgets_what_layers_share_in_sign_and_between_queries_and_keys():
    hidden = 64
    rows = [gaussian(i, heads=8, kv_heads=8, head_dim=6, hidden=hidden).keys.abs() for i in range(9)]
    record, _ = measured([Heads(r, r) for r in rows])  # symmetric g with positive entries: similarities near 1
    assert record.metrics["median_abs_similarity_matched"].value > 0.5
    # Root mean square 1/hidden for each of 64 pairs; the best matching of 8 reaches about twice that.
    assert record.similarity_chance < 3 / hidden


def test_unrelated_layers_are_as_alike_as_scrambled_ones():
    record, _ = measured([gaussian(i, heads=8, kv_heads=4, head_dim=8, hidden=64) for i in range(12)])
    value = record.metrics["median_abs_similarity_matched"]
    low, high = value.interval
    # Both are medians over the same 88 heads of the same law; the interval is the sampling error of one.
    assert abs(value.value - record.similarity_chance) < 2 * (high - low)
    # 88 overlaps of 10 % spread each
    assert record.overlap_chance_matched == pytest.approx(record.overlap_chance, rel=0.15)


def test_equal_layers_overlap_fully_and_layers_on_disjoint_coordinates_not_at_all():
    a = gaussian(5, head_dim=3, hidden=40)
    a.keys[..., 20:], a.queries[..., 20:] = 0, 0
    disjoint = Heads(*(rows.roll(20, dims=-1) for rows in a))
    record, _ = measured([a, a, disjoint])
    # The directions are float32: 6e-8 per entry
    np.testing.assert_allclose(record.overlap_adjacent, [[1] * 4, [0] * 4], rtol=0, atol=1e-6)
    np.testing.assert_allclose(record.overlap_by_distance, [0.5, 0], rtol=0, atol=1e-6)
    assert record.matching[0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(record.overlap_adjacent_matched[0], 1, rtol=0, atol=1e-6)
    assert record.overlap_chance == 3 / 40


def test_the_share_of_mixed_heads_counts_those_whose_curvature_is_neither_near_zero_nor_near_one():
    layers = [gaussian(i, heads=4, kv_heads=4, hidden=200) for i in range(4)]
    for layer in layers:
        layer.queries[0] = layer.keys[0]  # curvature 0
        layer.queries[1] = -layer.keys[1]  # curvature 1; the other two are near one half
    share = measured(layers)[0].metrics["mixed_sign_share"]
    assert (share.value, share.interval) == (0.5, (0.5, 0.5))
    assert share.n == {"heads": 16, "layers": 4}


# --- invariants ---------------------------------------------------------------------------------


@given(seeds, st.sampled_from([(4, 2, 3, 10), (3, 3, 2, 4), (4, 1, 5, 6)]))
def test_a_joint_rotation_of_queries_and_keys_leaves_every_fact_of_a_head(seed, sizes):
    heads, kv_heads, head_dim, hidden = sizes
    before = gaussian(seed, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=hidden)
    turns = torch.stack([haar(head_dim, head_dim, torch.Generator().manual_seed(seed + i)) for i in range(kv_heads)])
    repeated = turns.repeat_interleave(heads // kv_heads, dim=0)
    after = Heads(turns @ before.keys, repeated @ before.queries)
    top = min(head_dim, hidden)
    a, b = head_metrics(before, top), head_metrics(after, top)
    bound = rounding(before, before)
    for name in ("singvals", "fro_sq", "fro_sq_published", "trace", "trace_of_square", "stretch"):
        found, expected = getattr(b, name), getattr(a, name)
        torch.testing.assert_close(found, expected, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}")
    # Eigenvalues of nearly equal magnitude may change places.
    torch.testing.assert_close(b.sym_eigs.sort().values, a.sym_eigs.sort().values, rtol=0, atol=bound)
    torch.testing.assert_close(inner_products(after, after), inner_products(before, before), rtol=0, atol=bound)


@given(seeds)
def test_permuting_heads_changes_the_index_pairing_only(seed):
    layers = [gaussian(seed + i, heads=6, kv_heads=6, hidden=40) for i in range(3)]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    permuted = [layers[0], Heads(*(rows[order] for rows in layers[1])), layers[2]]
    before, after = compared(layers), compared(permuted)
    # A sum of products in another order: eps × size, relative to similarities of at most 1
    np.testing.assert_allclose(after.matched[0], before.matched[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(after.matched_mean, before.matched_mean, rtol=0, atol=1e-13)
    assert order[after.matching[0]].tolist() == before.matching[0].tolist()


def test_scrambled_coordinates_keep_a_head_and_make_the_mean_square_similarity_one_over_hidden_squared():
    hidden, draws = 6, 4000
    a, b = (gaussian(i, heads=1, kv_heads=1, head_dim=2, hidden=hidden) for i in range(2))
    fixed, moved = dense(a)[0], []
    for i in range(draws):
        other = Heads(*(scramble(rows, seed=0, pair=i, side=side) for side, rows in enumerate(b)))
        moved.append(dense(other)[0])
    moved = torch.stack(moved)
    sigma = torch.linalg.svdvals(dense(b)[0])
    torch.testing.assert_close(torch.linalg.svdvals(moved[0]), sigma, rtol=0, atol=rounding(b, b))
    squares = ((fixed * moved).sum((1, 2)) / (fixed.norm() * moved.norm(dim=(1, 2)))).square()
    # Five standard errors of the mean over the draws
    assert abs(squares.mean() - 1 / hidden**2) < 5 * squares.std() / draws**0.5


@pytest.mark.parametrize(("slab", "tile"), [(1 << 20, 4 * 4 * 8 * 7 * 7), (4000, 4 * 4 * 8 * 7 * 7), (1, 1)])
def test_the_products_do_not_depend_on_how_many_coordinates_fit_into_memory(slab, tile, monkeypatch):
    layers = [gaussian(i, hidden=40) for i in range(4)]
    whole = all_products(reader(layers), 4, seed=3)
    monkeypatch.setattr(all_pairs, "SLAB_BYTES", slab)
    monkeypatch.setattr(all_pairs, "TILE_BYTES", tile)
    parts = all_products(reader(layers), 4, seed=3)
    for found, expected in zip(parts[1:], whole[1:], strict=True):  # another order of summation
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(layers[0], layers[1]))


def test_the_layers_that_are_not_matched_do_not_depend_on_how_many_fit_into_memory(monkeypatch, tmp_path):
    layers = [gaussian(i, hidden=40) for i in range(4)]
    monkeypatch.setattr(shards, "MATCH_WORK", 0)
    whole = on_disk(measured(layers)[0], tmp_path)
    monkeypatch.setattr(layer_pairs, "LAYERS_BYTES", 2 * (layers[0].keys.nbytes + layers[0].queries.nbytes))
    assert on_disk(measured(layers)[0], tmp_path) == whole


def test_a_model_too_large_to_match_in_full_has_the_same_numbers_for_adjacent_layers(tmp_path, monkeypatch):
    layers = [gaussian(i, hidden=40) for i in range(4)]
    full = on_disk(measured(layers)[0], tmp_path)
    monkeypatch.setattr(shards, "MATCH_WORK", 0)
    adjacent = on_disk(measured(layers)[0], tmp_path)
    # Another order of summation: eps × hidden × norms
    np.testing.assert_allclose(adjacent["gram"], full["gram"], rtol=0, atol=rounding(layers[0], layers[1]))
    assert adjacent["matching"] == full["matching"]
    far, near = adjacent["mean_abs_similarity_matched"][0][2:], adjacent["mean_abs_similarity_matched"][0][:2]
    assert far == [None, None]
    np.testing.assert_allclose(near, full["mean_abs_similarity_matched"][0][:2], rtol=0, atol=1e-13)  # as above
    assert "only adjacent layers" in adjacent["absent"]["mean_abs_similarity_matched"]


# --- comparison with dense matrices -------------------------------------------------------------


@given(seeds, st.sampled_from([(4, 2, 3, 10), (3, 3, 2, 4), (4, 1, 5, 6), (2, 1, 4, 3), (1, 1, 1, 1)]))
def test_inner_products_are_those_of_the_dense_metrics_under_grouped_keys(seed, sizes):
    heads, kv_heads, head_dim, hidden = sizes
    a, b = (gaussian(s, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=hidden) for s in (seed, seed + 1))
    expected = torch.einsum("aij,bij->ab", dense(a), dense(b))
    torch.testing.assert_close(inner_products(a, b), expected, rtol=0, atol=rounding(a, b))
    torch.testing.assert_close(paired_inner_products(a, b), expected.diagonal(), rtol=0, atol=rounding(a, b))
    repeated = Heads(a.repeated_keys(), a.queries), Heads(b.repeated_keys(), b.queries)
    torch.testing.assert_close(inner_products(*repeated), expected, rtol=0, atol=rounding(a, b))


@given(seeds, st.sampled_from([(4, 2, 3, 10), (3, 3, 2, 4), (4, 1, 5, 6), (2, 1, 4, 3), (1, 1, 1, 1)]))
def test_products_of_all_heads_are_those_of_the_dense_metrics_and_of_scrambled_neighbours(seed, sizes):
    heads, kv_heads, head_dim, hidden = sizes
    layers = [gaussian(seed + i, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=hidden) for i in range(3)]
    found = all_products(reader(layers), 3, seed=seed)
    g = torch.stack([dense(layer) for layer in layers])
    bound = max(rounding(a, b) for a in layers for b in layers)
    np.testing.assert_allclose(found.inner, torch.einsum("ahij,bkij->ahbk", g, g), rtol=0, atol=bound)
    for pair in range(2):
        keys, queries = (scramble(layers[pair + 1][i], seed=seed, pair=pair, side=1 - i) for i in range(2))
        expected = torch.einsum("hij,kij->hk", g[pair], dense(Heads(keys, queries)))
        np.testing.assert_allclose(found.scrambled[pair], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_in_float32_are_those_of_the_dense_metrics_to_a_millionth_of_the_norms(dtype, monkeypatch):
    monkeypatch.setattr(all_pairs, "FLOAT32_HIDDEN", 64)
    monkeypatch.setattr(all_pairs, "TILE_BYTES", 12 * 4 * 20 * 20)  # tiles that do not divide the hidden size
    layers = [Heads(*(x.to(dtype) for x in gaussian(i, head_dim=8, hidden=72))) for i in range(3)]
    layers[2] = Heads(layers[1].keys, -layers[1].queries)  # nothing averages out between equal heads
    found = all_products(reader(layers), 3, seed=1)
    assert not found.exact
    full = [Heads(*(x.double() for x in layer)) for layer in layers]
    g = torch.stack([dense(layer) for layer in full])
    norms = g.norm(dim=(2, 3))
    assert_close_to_norms(found.inner, torch.einsum("ahij,bkij->ahbk", g, g), norms[:, :, None, None] * norms)
    for pair in range(2):
        keys, queries = (scramble(full[pair + 1][i], seed=1, pair=pair, side=1 - i) for i in range(2))
        expected = torch.einsum("hij,kij->hk", g[pair], dense(Heads(keys, queries)))
        assert_close_to_norms(found.scrambled[pair], expected, norms[pair][:, None] * norms[pair + 1])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_similarity_in_float32_does_not_depend_on_the_size_of_weights(scale, monkeypatch):
    """Four such weights multiplied leave float32's range."""
    monkeypatch.setattr(all_pairs, "FLOAT32_HIDDEN", 16)
    layers = [gaussian(i, head_dim=8, hidden=40) for i in range(3)]
    layers[2] = Heads(layers[1].keys, -layers[1].queries)
    plain, _ = measured([Heads(*(x.float() for x in layer)) for layer in layers])
    scaled, _ = measured([Heads(*((scale * x).float() for x in layer)) for layer in layers])
    np.testing.assert_array_equal(scaled.matching, plain.matching)
    # The stored numbers are rounded to float32 once more, by 6e-8 each, and the products to 1e-6.
    np.testing.assert_allclose(scaled.similarity_matched, plain.similarity_matched, rtol=0, atol=2e-6)
    assert scaled.similarity_chance == pytest.approx(plain.similarity_chance, abs=2e-6)
    assert (np.abs(scaled.similarity_matched[1]) > 0.999).all()
    for name, metric in plain.metrics.items():
        assert scaled.metrics[name].value == pytest.approx(metric.value, abs=2e-6, nan_ok=True), name


@pytest.mark.parametrize("narrowest", [16, 512])  # from the factors alone, and from the entries
def test_a_first_head_that_is_zero_to_rounding_breaks_no_symmetry(narrowest, monkeypatch):
    monkeypatch.setattr(all_pairs, "FLOAT32_HIDDEN", narrowest)
    layers = [Heads(*(x.float() for x in gaussian(i, head_dim=8, hidden=40))) for i in range(3)]
    for layer in layers:
        layer.keys[0] = layer.keys[0, :1]  # the rows of its queries then add up to g, and to nothing but rounding
        layer.queries[0, -1] = -layer.queries[0, :-1].sum(0)
    record, _ = measured(layers)
    assert record.identities["gram_symmetry"].value < 1e-15  # eps, relative to heads that are not zero


def assert_close_to_norms(found: np.ndarray, expected: torch.Tensor, norms: torch.Tensor) -> None:
    """Within the error that `all_products` states."""
    assert float((torch.from_numpy(found) - expected).abs().div(norms).max()) < 1e-6


@given(seeds, st.sampled_from([(4, 2, 3, 10), (3, 3, 2, 4), (4, 1, 5, 6), (1, 1, 1, 1)]), st.integers(1, 4))
def test_products_at_equal_index_are_those_of_the_dense_metrics_however_many_layers_are_stacked(seed, sizes, stacked):
    heads, kv_heads, head_dim, hidden = sizes
    layers = [gaussian(seed + i, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=hidden) for i in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "TILE_ROWS", stacked * head_dim)
        found = paired_products(reader(layers), 4)
    g = torch.stack([dense(layer) for layer in layers])
    bound = max(rounding(a, b) for a in layers for b in layers)
    np.testing.assert_allclose(found, torch.einsum("ahij,bhij->abh", g, g), rtol=0, atol=bound)


def test_a_wide_model_keeps_every_identity_to_float64s_rounding_while_its_heads_are_matched_in_float32(monkeypatch):
    monkeypatch.setattr(all_pairs, "FLOAT32_HIDDEN", 32)
    layers = [Heads(*(x.bfloat16() for x in gaussian(i, head_dim=8, hidden=40))) for i in range(4)]
    record, _ = measured(layers)
    for gate in INTEGRITY:
        (condition,) = gate.conditions
        assert record.identities[condition.path.rpartition(".")[2]].value <= condition.threshold, gate.id
    exact, _ = measured([Heads(*(x.double() for x in layer)) for layer in layers])
    np.testing.assert_array_equal(record.matching, exact.matching)
    np.testing.assert_allclose(record.similarity_matched, exact.similarity_matched, rtol=0, atol=1e-6)  # as stated
    bound = max(rounding(*(Heads(*(x.double() for x in of)) for of in (a, b))) for a in layers for b in layers)
    np.testing.assert_allclose(record.gram, exact.gram, rtol=0, atol=bound)


@given(seeds, st.sampled_from([(4, 2, 3, 10), (3, 3, 2, 4), (4, 1, 5, 6), (2, 1, 4, 3)]), st.booleans())
def test_facts_of_a_head_are_those_of_its_dense_metric(seed, sizes, deficient):
    heads, kv_heads, head_dim, hidden = sizes
    layer = gaussian(seed, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=hidden)
    if deficient:
        layer.queries[:, -1] = layer.queries[:, 0]
    top = min(2, hidden)
    facts, g, bound = head_metrics(layer, top), dense(layer), rounding(layer, layer)
    modes = min(head_dim, hidden)
    sigma = torch.linalg.svdvals(g)[:, :modes]
    torch.testing.assert_close(facts.singvals[:, :modes], sigma, rtol=0, atol=bound)
    torch.testing.assert_close(facts.fro_sq, g.square().sum((1, 2)), rtol=0, atol=bound)
    torch.testing.assert_close(facts.trace, g.diagonal(dim1=1, dim2=2).sum(-1), rtol=0, atol=bound)
    torch.testing.assert_close(facts.trace_of_square, (g @ g).diagonal(dim1=1, dim2=2).sum(-1), rtol=0, atol=bound)
    published = (layer.repeated_keys() @ layer.queries.mT).square().sum((1, 2))
    torch.testing.assert_close(facts.fro_sq_published, published, rtol=0, atol=bound)
    stretched = (g @ facts.directions.double().mT).norm(dim=1)  # (head, k)
    # Directions are kept in float32: 6e-8 relative, and g v = 0 for a direction beyond the rank, stored as zero.
    torch.testing.assert_close(stretched, facts.singvals[:, :top], rtol=0, atol=1e-6 * float(sigma.max()))


def test_the_record_is_that_of_the_dense_metrics():
    layers = [gaussian(i, hidden=40) for i in range(3)]
    record, _ = measured(layers)
    g = torch.stack([dense(layer) for layer in layers])  # (layer, head, hidden, hidden)
    gram = torch.einsum("ahij,bhij->abh", g, g).numpy()
    norms = g.norm(dim=(2, 3)).numpy()
    bound = rounding(layers[0], layers[0])
    np.testing.assert_allclose(record.gram, gram, rtol=0, atol=bound)
    # similarities: rounding relative to the norms, 1e-13 at these sizes
    np.testing.assert_allclose(record.similarity, gram / (norms[:, None] * norms), rtol=0, atol=1e-13)
    published = torch.stack([(layer.repeated_keys() @ layer.queries.mT).square().sum((1, 2)) for layer in layers])
    ratio = published.numpy() / norms**2
    # medians and correlations of the numbers above: the same rounding, relative to numbers of order 1
    assert record.published["fro_sq_ratio"] == pytest.approx(np.median(ratio), rel=1e-12)
    assert record.published["self_similarity"] == pytest.approx(np.median(1 / ratio), rel=1e-12)
    expected = np.corrcoef(published.numpy().ravel(), (norms**2).ravel())[0, 1]
    assert record.published["fro_sq_pearson"] == pytest.approx(expected, abs=1e-12)


def test_published_directions_are_compared_with_the_true_ones():
    layer = gaussian(0, heads=1, kv_heads=1, hidden=40)
    facts = head_metrics(layer, 3)
    v_small = torch.linalg.svd(layer.keys[0] @ layer.queries[0].mT).Vh
    published = v_small @ layer.queries[0]
    published /= published.norm(dim=1, keepdim=True)
    true = torch.linalg.svd(dense(layer)[0]).Vh[0]
    # singular vectors err by eps × condition, of order 10 here
    assert facts.published_abs_cos.item() == pytest.approx(float((published[0] @ true).abs()), abs=1e-12)
    between = (published @ published.mT).abs().fill_diagonal_(0).max()
    assert facts.published_crosstalk.item() == pytest.approx(float(between), abs=1e-12)


# --- what is absent, and what is rejected -------------------------------------------------------


def test_a_zero_head_is_absent_with_its_reason_and_spoils_no_other(tmp_path):
    layers = [gaussian(i, hidden=40) for i in range(3)]
    layers[1].keys[1] = 0  # kills query heads 2 and 3 of layer 1
    record = on_disk(measured(layers)[0], tmp_path)
    assert record["curvature"][1][2:] == [None, None] and None not in record["curvature"][0]
    assert record["similarity"][0][1][2:] == [None, None] and None not in record["similarity"][0][2]
    assert all(x is not None for x in record["similarity"][0][1][:2])
    assert record["metrics"]["mixed_sign_share"]["n"] == {"heads": 10, "layers": 3}
    assert record["fro_sq"][1][2] == 0
    assert {"similarity", "curvature", "similarity_matched", "overlap_adjacent"} <= set(record["absent"])
    assert all(evaluate(gate, {"head_grams": record}).status == "pass" for gate in INTEGRITY)


def test_a_model_of_zero_heads_has_metrics_with_reasons_and_no_value(tmp_path):
    record = on_disk(measured([Heads(torch.zeros(1, 8, 64).double(), torch.zeros(2, 8, 64).double())] * 3)[0], tmp_path)
    assert all(metric["value"] is None and metric["reason"] for metric in record["metrics"].values())
    of_heads = [gate for gate in CLAIMS if all(c.path.rpartition(".")[2] in record["metrics"] for c in gate.conditions)]
    assert {"HG1", "HG2", "HG3"} <= {gate.id for gate in of_heads}
    assert {evaluate(gate, {"head_grams": record}).status for gate in of_heads} == {"inconclusive"}


def test_an_antisymmetric_head_has_no_curvature(tmp_path):
    a, b = torch.randn(2, 1, 2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = Heads(torch.cat([b, a], dim=1), torch.cat([a, -b], dim=1))  # g = bᵀa − aᵀb
    record = on_disk(measured([layer, layer])[0], tmp_path)
    assert record["curvature"] == [[None], [None]] and record["absent"]["curvature"] == "g + gᵀ is zero"
    assert record["similarity"][0][1][0] == pytest.approx(1, abs=1e-14)  # eps × a few operations


def test_a_head_of_too_low_a_rank_has_no_top_subspace_but_a_similarity(tmp_path):
    layers = [gaussian(i, hidden=40) for i in range(3)]
    layers[2].queries[0, -1] = 0
    record, arrays = measured(layers)
    record = on_disk(record, tmp_path)
    assert record["overlap_adjacent"][1][0] is None and record["similarity"][1][2][0] is not None
    assert (arrays["directions"][2, 0, -1] == 0).all() and (arrays["directions"][2, 0, 1] != 0).any()


def test_subspaces_are_not_compared_where_the_hidden_size_leaves_no_room(tmp_path):
    record = on_disk(measured([gaussian(i, head_dim=8, hidden=24) for i in range(5)])[0], tmp_path)
    assert record["overlap_adjacent"] is None and "hidden size" in record["absent"]["overlap_adjacent"]
    statuses = {gate.id: evaluate(gate, {"head_grams": record}).status for gate in CLAIMS}
    assert statuses["HG2.stored"] == "skip" and statuses["HG2"] == "inconclusive"
    assert statuses["HG1.stored"] in ("pass", "fail", "inconclusive")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_identity_holds_on_a_checkpoint_and_the_notes_name_what_g_omits(model_type, tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "model", model_type, tokenizer=False)))
    record, arrays = head_grams.measure(checkpoint, seed=0, device="cpu")
    record = on_disk(record, tmp_path)
    outcomes = [evaluate(gate, {"head_grams": record}) for gate in INTEGRITY]
    assert [o.id for o in outcomes if o.status != "pass"] == []
    assert arrays["directions"].shape == (3, 4, 8, 32) and arrays["directions"].dtype == torch.float32
    assert np.shape(record["gram"]) == np.shape(record["similarity"]) == (3, 3, 4)
    assert np.shape(record["sym_eigs"]) == (3, 4, 16) and np.shape(record["singvals"]) == (3, 4, 8)
    notes = " ".join(record["notes"])
    assert ("biases" in notes) == (model_type == "qwen2") and ("normalised" in notes) == (model_type == "qwen3")


def test_two_runs_give_the_same_bytes(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "model", tokenizer=False)))
    runs = []
    for _ in range(2):
        record, arrays = head_grams.measure(checkpoint, seed=7, device="cpu")
        runs.append((json.dumps(on_disk(record, tmp_path), sort_keys=True), arrays["directions"].numpy().tobytes()))
    assert runs[0] == runs[1]


def test_a_nan_in_a_weight_is_rejected_with_the_tensors_name(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model", tokenizer=False)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if "layers.1" in n and "k_proj" in n)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"tensor {name}: 1 of"):
        head_grams.measure(open_checkpoint(str(folder)), seed=0, device="cpu")

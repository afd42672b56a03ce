"""One linear map for several layers: dense ridge regressions, planted maps, and what a rotation leaves alone."""

import numpy as np
import pytest
import torch

from analyses.delta_svd.shared_fit import other_runs, remainders, shared_maps
from analyses.delta_svd.shared_map import RIDGE, in_one_basis, leading, sums
from analyses.numerics.prompt_groups import FOLDS, groups
from analyses.numerics.spectra import haar


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def folds(tokens: int) -> tuple[slice, ...]:
    return groups([tokens // 20] * 20, FOLDS).slices


def sums_of(layers, tokens: int):
    return [sums(h, delta, folds(tokens), single=False) for h, delta in layers]


def linear_layers(maps, *, tokens=400, hidden=12, noise=0.0, seed=0):
    """(h, δ) of layers with these maps; states drift, with a mean that must not count."""
    found, h = [], gaussian(seed, tokens, hidden) @ gaussian(seed + 1, hidden, hidden)
    for i, one in enumerate(maps):
        h = h + 0.3 * gaussian(seed + 10 + i, tokens, hidden) + 5
        found.append((h, h @ one + noise * gaussian(seed + 50 + i, tokens, hidden) + gaussian(seed + 90 + i, hidden)))
    return found


def test_one_planted_map_explains_all_layers_as_well_as_their_own():
    one = gaussian(0, 12, 12)
    (found,) = shared_maps(in_one_basis(sums_of(linear_layers([one] * 5), 400)), [range(5)])
    assert (found.own > 1 - 1e-5).all() and (found.shared > 1 - 1e-5).all()  # the ridge takes some 1e-6
    assert found.ratio == pytest.approx(1, abs=1e-5)


def test_maps_of_their_own_share_little():
    layers = linear_layers([gaussian(i, 12, 12) for i in range(5)])
    (found,) = shared_maps(in_one_basis(sums_of(layers, 400)), [range(5)])
    assert (found.own > 1 - 1e-5).all()
    # The mean of five unrelated maps explains 1/5 of each: 2/5 − 1/5 of its energy.
    assert found.ratio == pytest.approx(0.2, abs=0.1)


def test_where_nothing_can_be_foreseen_there_is_no_ratio():
    layers = [(gaussian(i, 400, 12), gaussian(i + 100, 400, 12)) for i in range(3)]
    (found,) = shared_maps(in_one_basis(sums_of(layers, 400)), [range(3)])
    assert found.ratio is None and (found.own < 0.02).all()


def dense(layers, run: range, tokens: int) -> tuple[np.ndarray, list[torch.Tensor]]:
    """Held-out R² of one ridge regression for a run of layers, and what it leaves; by rows, in float64."""
    rotation = torch.linalg.eigh(sum((h - h.mean(0)).T @ (h - h.mean(0)) for h, _ in layers))[1]
    left = {layer: torch.zeros_like(layers[layer][1]) for layer in run}
    total = dict.fromkeys(run, 0.0)
    for part in folds(tokens):
        train = torch.ones(tokens, dtype=torch.bool)
        train[part] = False
        squares = products = 0
        for layer in run:
            h, delta = layers[layer]
            energy = (delta - delta.mean(0)).square().sum()
            x, y = (h[train] - h[train].mean(0)) @ rotation, delta[train] - delta[train].mean(0)
            squares, products = squares + x.T @ x / energy, products + x.T @ y / energy
        one = torch.linalg.solve(squares + RIDGE * squares.diagonal().diag(), products)
        for layer in run:
            h, delta = layers[layer]
            y = delta[part] - delta[train].mean(0)
            left[layer][part] = y - (h[part] - h[train].mean(0)) @ rotation @ one
            total[layer] += float(y.square().sum())
    r2 = np.array([1 - float(left[layer].square().sum()) / total[layer] for layer in run])
    return r2, [left[layer] for layer in run]


def test_sums_give_the_regressions_that_rows_give():
    layers = linear_layers([gaussian(1, 12, 12) + 0.5 * gaussian(i, 12, 12) for i in range(4)], noise=2.0)
    maps = in_one_basis(sums_of(layers, 400))
    runs = [range(0, 1), range(1, 4)]
    for found, run in zip(shared_maps(maps, runs), runs, strict=True):
        truth, _ = dense(layers, run, 400)
        np.testing.assert_allclose(found.shared, truth, rtol=0, atol=1e-8)  # NOTHING in the ridge, 1e-10 of the largest
        for i, layer in enumerate(run):
            assert found.own[i] == pytest.approx(dense(layers, range(layer, layer + 1), 400)[0][0], abs=1e-8)
    ours = remainders(maps, runs)
    for run in runs:
        for one, left in zip(ours[run.start : run.stop], dense(layers, run, 400)[1], strict=True):
            sigma = torch.linalg.svdvals(left)
            assert one.top_singular == pytest.approx(float(sigma[0]), rel=1e-7)
            assert one.top1 == pytest.approx(float(sigma[0] ** 2 / sigma.square().sum()), rel=1e-7)


def test_what_the_shared_map_leaves_is_the_planted_direction_and_its_size():
    """δ = T h + γ_ℓ f v_ℓ with f unrelated to h: the remainder is γ_ℓ f v_ℓ, and its schedule that of γ."""
    tokens, hidden, one = 2000, 12, gaussian(3, 12, 12)
    gammas, layers = [8.0, 4.0, 2.0, 1.0], []
    for i, (h, delta) in enumerate(linear_layers([one] * 4, tokens=tokens, hidden=hidden)):
        v = torch.nn.functional.normalize(gaussian(20 + i, hidden), dim=0)
        layers.append((h, delta + gammas[i] * torch.outer(gaussian(30 + i, tokens), v)))
    left = remainders(in_one_basis(sums_of(layers, tokens)), [range(4)])
    # Noise in the map of 12 regressors, from layers of larger γ too, relative to the layer's own.
    assert left[0].top1 > 0.97 and min(x.top1 for x in left) > 0.6
    for x, gamma in zip(left, gammas, strict=True):
        assert x.top_singular == pytest.approx(gamma * tokens**0.5, rel=0.1)


def wide_layers(tokens=160, hidden=64, count=3):
    """States and writes of rank 12 in 64 dimensions, with 160 tokens: k = 20 directions hold all."""
    inside = haar(hidden, 12, torch.Generator().manual_seed(5)).T
    small = linear_layers([gaussian(1, 12, 12) + gaussian(i, 12, 12) for i in range(count)], tokens=tokens, noise=1.0)
    return [(h @ inside + 3, delta @ inside - 1) for h, delta in small], small


def test_in_fewer_directions_than_the_stream_has_nothing_is_lost_that_is_not_there():
    wide, small = wide_layers()
    maps, plain = in_one_basis(sums_of(wide, 160)), in_one_basis(sums_of(small, 160))
    assert maps.state.shape[2] <= 20 and (maps.kept > 1 - 1e-10).all()
    for a, b in zip(shared_maps(maps, [range(3)]), shared_maps(plain, [range(3)]), strict=True):
        np.testing.assert_allclose(a.shared, b.shared, rtol=0, atol=1e-7)
        np.testing.assert_allclose(a.own, b.own, rtol=0, atol=1e-7)


@pytest.mark.parametrize("hidden", [16, 64, 200])  # fewer than 160/8, more, and more than the 160 tokens
def test_a_rotation_of_the_stream_changes_nothing(hidden: int):
    tokens, turn = 160, haar(hidden, hidden, torch.Generator().manual_seed(6))
    spread = torch.linspace(3, 0.2, hidden)
    layers = [
        (gaussian(i, tokens, hidden) * spread, gaussian(i, tokens, hidden) @ gaussian(9, hidden, hidden) / hidden**0.5)
        for i in range(3)
    ]
    turned = [(h @ turn, delta @ turn) for h, delta in layers]
    one, other = (in_one_basis(sums_of(x, tokens)) for x in (layers, turned))
    (a,), (b,) = (shared_maps(maps, [range(3)]) for maps in (one, other))
    np.testing.assert_allclose(a.own, b.own, rtol=0, atol=1e-9)
    np.testing.assert_allclose(a.shared, b.shared, rtol=0, atol=1e-9)
    for x, y in zip(remainders(one, [range(3)]), remainders(other, [range(3)]), strict=True):
        assert x.top1 == pytest.approx(y.top1, rel=1e-9) and x.top_singular == pytest.approx(y.top_singular, rel=1e-9)


def test_the_leading_directions_hold_as_much_energy_as_any_can():
    x = gaussian(7, 300, 80) * torch.linspace(4, 0.1, 80) + 10
    mean = x.mean(0)
    basis = leading(x, mean, 20)
    torch.testing.assert_close(basis @ basis.T, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-13)
    best = torch.linalg.svdvals(x - mean)[:20].square().sum()
    assert float(((x - mean) @ basis.T).square().sum() / best) > 0.97


def test_a_layer_that_writes_nothing_disturbs_no_other():
    layers = linear_layers([gaussian(1, 12, 12)] * 3)
    silent = [*layers[:2], (layers[2][0], torch.zeros(400, 12, dtype=torch.float64))]
    maps = in_one_basis(sums_of(silent, 400))
    (found,) = shared_maps(maps, [range(2)])
    assert found.ratio == pytest.approx(1, abs=1e-5)
    assert remainders(maps, [range(2), range(2, 3)])[2].top1 is None


def test_too_few_tokens_make_no_map():
    assert sums(gaussian(0, 7, 4), gaussian(1, 7, 4), groups([7], FOLDS).slices, single=True) is None


def test_other_runs_are_as_long_and_elsewhere():
    assert other_runs(6, range(1, 4), 0) == [range(0, 3), range(2, 5), range(3, 6)]
    drawn = other_runs(300, range(10, 30), 0)
    assert len(drawn) == 99 == len(set(drawn)) and all(len(run) == 20 for run in drawn) and range(10, 30) not in drawn

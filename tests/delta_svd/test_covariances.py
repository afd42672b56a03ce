"""Alignment and overlap of adjacent writes: dense truths with groups left out, planted shares, and the right nulls."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.delta_svd import covariances
from analyses.delta_svd.covariances import alignment, covariance
from analyses.delta_svd.left_out import SPAN, left_out
from analyses.delta_svd.overlaps import directions_of, overlap
from analyses.delta_svd.writes import principal
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.numerics.prompt_groups import groups
from analyses.numerics.spectra import haar
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(0)


def dense_alignment(x: torch.Tensor, y: torch.Tensor, dimensions: int) -> float:
    deviations = []
    for rows in (x, y):
        m = centred(rows).T @ centred(rows)
        # Among `dimensions` directions: where there is one fewer, the identity is that of what is left.
        identity = torch.eye(len(m), dtype=m.dtype) - (torch.full_like(m, 1 / len(m)) if dimensions < len(m) else 0)
        deviations.append(m - m.trace() / dimensions * identity)
    a, b = deviations
    return float((a * b).sum() / (a.norm() * b.norm()))


def without(rows: torch.Tensor, part: slice) -> torch.Tensor:
    return torch.cat([rows[: part.start], rows[part.stop :]])


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("tokens", "hidden", "limit"), [(60, 12, None), (60, 12, 0), (20, 30, None)])
def test_alignment_is_the_dense_one_with_every_group_left_out(monkeypatch, tokens, hidden, limit, layer_norm):
    """By Grams, by rows where Grams would be too large, and with fewer tokens than dimensions."""
    if limit is not None:
        monkeypatch.setattr(covariances, "GRAM_BYTES", limit)
    mix = gaussian(7, hidden, hidden)
    x, y = gaussian(0, tokens, hidden) @ mix, gaussian(1, tokens, hidden) @ (mix + gaussian(2, hidden, hidden))
    if layer_norm:
        x, y = (rows - rows.mean(1, keepdim=True) for rows in (x, y))
    parts, dimensions = groups([tokens], 7).slices, hidden - layer_norm
    one, other = (covariance(centred(rows), parts, dimensions=dimensions) for rows in (x, y))
    assert (one.moments.rows is None) == (limit is None and tokens > hidden)
    found = alignment(one, other)
    assert float(found[0]) == pytest.approx(dense_alignment(x, y, dimensions), abs=1e-12)
    for part, ours in zip(parts, found[1:].tolist(), strict=True):
        truth = dense_alignment(without(x, part), without(y, part), dimensions)
        assert ours == pytest.approx(truth, abs=1e-11)  # eps·terms; Grams of dependent rows cancel


def test_the_same_shape_of_any_size_is_aligned_and_unrelated_shapes_are_not():
    parts = groups([2000]).slices
    wide = gaussian(3, 2000, 32) * torch.linspace(0.2, 2, 32)
    one = covariance(centred(wide), parts, dimensions=32)
    assert float(alignment(one, covariance(centred(7 * wide), parts, dimensions=32))[0]) == pytest.approx(1, abs=1e-12)
    turned = gaussian(4, 2000, 32) * torch.linspace(0.2, 2, 32) @ haar(32, 32, torch.Generator().manual_seed(0))
    cos = float(alignment(one, covariance(centred(turned), parts, dimensions=32))[0])
    assert abs(cos) < 4 / 31  # two random symmetric traceless matrices: standard deviation about 1/(D−1)


def test_writes_of_one_size_in_all_directions_or_of_none_have_no_alignment():
    parts = groups([8], 2).slices
    nothing = covariance(torch.zeros(8, 4, dtype=torch.float64), parts, dimensions=4)
    even = torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)])
    for other in (nothing, covariance(even, parts, dimensions=4)):
        assert alignment(other, covariance(centred(gaussian(5, 8, 4)), parts, dimensions=4))[0].isnan()


def write(seed: int, shared: torch.Tensor | None, tokens: int = 1500, hidden: int = 64) -> torch.Tensor:
    """Isotropic noise, and as much energy in a shared space, mixed anew in each layer."""
    rows = gaussian(seed, tokens, hidden)
    if shared is None:
        return centred(rows)
    k = len(shared)
    return centred(rows + gaussian(seed + 1, tokens, k) @ gaussian(seed + 2, k, k) @ shared * (hidden / k**2) ** 0.5)


def frames(rows: torch.Tensor, parts) -> object:
    span = principal(rows, SPAN)[1]
    return directions_of(span, left_out(rows, span, parts, centred=True))


def test_eight_common_dimensions_are_seen_though_no_first_direction_is_common():
    parts, plain, planted = groups([1500]).slices, [], []
    shared = haar(64, 8, torch.Generator().manual_seed(1)).T
    for seed in range(0, 60, 10):
        for found, space in ((plain, None), (planted, shared)):
            one, other = write(seed, space), write(seed + 5, space)
            align = alignment(*(covariance(rows, parts, dimensions=64) for rows in (one, other)))
            over, cos = overlap(frames(one, parts), frames(other, parts), dimensions=64)
            found.append([float(align[0]), float(over[0]), float(cos[0])])
    plain, planted = (torch.tensor(found).median(0).values for found in (plain, planted))
    assert plain[0].abs() < 0.1 and plain[1] < 1.5
    # Of mixtures A Gaussian and square, E⟨AAᵀ, BBᵀ⟩/E‖AAᵀ‖² = k³/(2k³ + k²) = 0.47, less what all directions have.
    assert planted[0] > 0.25  # the limit is 0.1
    assert planted[1] > 4  # of at most 64/8; chance is 1
    assert planted[2] < 0.6  # in eight dimensions two random directions have 0.28


def test_a_shared_first_direction_is_one_and_a_few_dimensions_have_no_chance_level():
    rows = centred(gaussian(8, 300, 40) * torch.linspace(0.1, 3, 40))
    parts = groups([300]).slices
    over, cos = overlap(frames(rows, parts), frames(2 * rows, parts), dimensions=40)
    torch.testing.assert_close(cos, torch.ones_like(cos), rtol=0, atol=1e-10)
    assert float(over[0]) == pytest.approx(40 / 8, rel=1e-10)
    few = centred(gaussian(9, 300, 20))
    over, _ = overlap(frames(few, parts), frames(few, parts), dimensions=20)
    assert over.isnan().all()
    assert overlap(frames(rows, parts), directions_of(torch.zeros(SPAN, 40), None), dimensions=40) is None


@pytest.mark.parametrize("about_the_mean", [False, True])
def test_with_a_group_left_out_shares_and_directions_are_exact_inside_the_span(about_the_mean: bool):
    """Of a write of rank SPAN nothing is missed."""
    rows = gaussian(10, 90, SPAN) * torch.linspace(3, 0.5, SPAN) @ haar(50, SPAN, torch.Generator().manual_seed(2)).T
    rows = centred(rows) if about_the_mean else rows
    parts = groups([90], 6).slices
    span = principal(rows, SPAN)[1]
    found = left_out(rows, span, parts, centred=about_the_mean)
    for i, part in enumerate(parts):
        kept = without(rows, part)
        kept = centred(kept) if about_the_mean else kept
        _, sigma, vt = torch.linalg.svd(kept, full_matrices=False)
        assert float(found.top1[i]) == pytest.approx(float(sigma[0] ** 2 / sigma.square().sum()), rel=1e-11)
        assert float((found.frames[i, :, 0] @ span @ vt[0]).abs()) == pytest.approx(1, abs=1e-9)


def test_beyond_the_span_the_share_is_missed_by_little():
    """Sixty directions of slowly falling energy: the jackknife's standard error is right to a tenth."""
    rows = gaussian(11, 600, 60) * torch.linspace(2, 0.5, 60)
    parts = groups([600]).slices
    found = left_out(rows, principal(rows, SPAN)[1], parts, centred=False).top1
    truth = torch.stack([principal(without(rows, part))[0] for part in parts])
    truth = truth[:, 0] / truth.sum(1)
    assert (found <= truth + 1e-12).all()  # a part of the space never has more
    assert float(found.std() / truth.std()) == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(found, truth, rtol=2e-2, atol=0)


def test_a_models_eight_common_dimensions_fail_the_limits_that_the_plain_model_meets(tmp_path):
    """All that layers write gets a part of its own size inside the same eight dimensions, mixed anew in each matrix."""
    folder = tiny_checkpoint(tmp_path / "plain", "llama", layers=6, hidden_size=64, head_dim=16)
    shared, target = haar(64, 8, torch.Generator().manual_seed(3)), tmp_path / "planted"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for i, name in enumerate(name for name in weights if "o_proj" in name or "down_proj" in name):
        matrix = weights[name].double()
        added = shared @ gaussian(i, 8, matrix.shape[1])
        weights[name] = (matrix + added * matrix.norm() / added.norm()).float()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    text = load_calibration()
    plain, planted = (
        records_of(open_checkpoint(str(of)), text, Settings(device="cpu"), ["delta_svd"])["delta_svd"]["metrics"]
        for of in (folder, target)
    )
    names = ("write_alignment", "write_overlap")
    values = [{name: record[name]["value"] for name in names} for record in (plain, planted)]
    assert values[0]["write_alignment"] < 0.1 and values[0]["write_overlap"] < 1.6
    assert values[1]["write_alignment"] > 0.2 and values[1]["write_overlap"] > 2.5, values

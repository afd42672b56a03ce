"""What a layer writes: planted ranks and directions, the residual stream's identities, the published errata."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats

from analyses.delta_svd import DeltaProbe, measure
from analyses.delta_svd.writes import DIRECTIONS, layer_write, principal
from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.instrumented import run
from analyses.forward.probe import LayerStates
from analyses.numerics.intervals import bootstrap
from analyses.records import write_json
from analyses.weights.checkpoint import open_checkpoint
from tests.strategies import matrices, seeds
from tests.tiny import MODEL_TYPES, tiny_checkpoint

TEXTS = (
    "A layer writes into the residual stream, and the next layer reads what is there.",
    "def write(stream, delta):\n    return stream + delta\n",
    "One and one is two; two and two is four.",
)


def prompts(*texts: str) -> Calibration:
    return Calibration(name="test", texts=texts or TEXTS, sha256="0" * 64, stream=False)


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted_write(seed: int, tokens: int, hidden: int, sigma: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """(δ with these singular values, its right singular vectors as (mode, hidden) rows)."""
    left = torch.linalg.qr(gaussian(seed, tokens, len(sigma))).Q
    right = torch.linalg.qr(gaussian(seed + 1, hidden, len(sigma))).Q
    return left * torch.tensor(sigma, dtype=torch.float64) @ right.T, right.T


@pytest.mark.parametrize(("tokens", "hidden"), [(90, 24), (20, 64)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_planted_rank_k_write_has_effective_rank_k(tokens: int, hidden: int, rank: int):
    delta, _ = planted_write(rank, tokens, hidden, [2.0] * rank)
    spectrum = layer_write(gaussian(9, tokens, hidden), delta)[0].spectrum
    # Energies are right to eps·σ₁²·side; the entropy takes p ln p of residues near 1e-15.
    assert spectrum.eff_rank == pytest.approx(rank, rel=1e-10)
    assert spectrum.top1_frac == pytest.approx(1 / rank, rel=1e-12)
    assert spectrum.top3_frac == pytest.approx(min(3, rank) / rank, rel=1e-12)
    assert spectrum.singvals[:rank] == pytest.approx([2.0] * rank, rel=1e-12)


@pytest.mark.parametrize(("tokens", "hidden"), [(90, 24), (20, 64)])
def test_planted_directions_are_recovered_in_order(tokens: int, hidden: int):
    delta, right = planted_write(0, tokens, hidden, [5.0, 3.0, 2.0, 1.0])
    _, directions, _ = layer_write(gaussian(9, tokens, hidden), delta)
    cos = (directions[:4] * right).sum(1).abs()
    torch.testing.assert_close(cos, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-13)  # eps·side/gap
    assert not directions[4:].any()  # there is no fifth direction, so none is made up


def test_the_uncentred_direction_is_the_mean_write_and_the_centred_one_is_not():
    mean = torch.zeros(32, dtype=torch.float64)
    mean[3] = 10.0
    delta = gaussian(1, 500, 32)
    delta[:, 7] *= 4
    write, directions, centred = layer_write(gaussian(2, 500, 32), delta + mean)
    assert directions[0, 3] > 0.99 and centred[0, 7] > 0.99
    assert write.mean_share == pytest.approx(100 / (100 + 31 + 16), rel=0.05)  # sampling error of 500 tokens
    assert write.spectrum.top1_frac > 0.6 > write.centred.top1_frac


def test_one_massive_token_carries_the_top_direction_and_unit_rows_show_it():
    delta = gaussian(3, 400, 32)
    delta[17] *= 200
    write, *_ = layer_write(gaussian(4, 400, 32), delta)
    assert write.top_token_share > 0.97 and write.spectrum.top1_frac > 0.97
    assert write.unit_rows.top1_frac < 0.06  # 1/32, and a little for 400 rows


def test_one_outlier_dimension_carries_the_top_direction_and_leaving_it_out_shows_it():
    delta = gaussian(5, 400, 200)
    delta[:, 13] *= 100
    delta[:, 44] *= 30
    write, *_ = layer_write(gaussian(6, 400, 200), delta)
    assert write.outlier_dims == [13, 44]  # 1 % of 200
    assert write.outlier_share == pytest.approx((100**2 + 30**2) / (100**2 + 30**2 + 198), rel=0.01)
    assert write.spectrum.top1_frac > 0.85 and write.without_outliers.top1_frac < 0.05


def test_sizes_and_angles_of_a_known_write():
    h = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    delta = torch.tensor([[6.0, 8.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    size = layer_write(h, delta)[0].size
    assert size.frob == pytest.approx(np.sqrt(102))
    assert (size.token_norm_mean, size.token_norm_std) == (pytest.approx(4), pytest.approx(np.sqrt(18)))
    assert size.h_norm_mean == pytest.approx(8 / 3)
    assert (size.rel_step_mean, size.rel_step_std) == (pytest.approx(3.5 / 3), pytest.approx(np.std([2, 0.5, 1])))
    assert (size.cos_delta_h_mean, size.parallel_frac) == (pytest.approx(0), pytest.approx(2 / 3))


def test_a_token_without_state_or_write_is_left_out_of_angles_only():
    h = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    delta = torch.tensor([[1.0, 0.0], [0.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    write, *_ = layer_write(h, delta)
    assert write.size.rel_step_mean == pytest.approx(1.0)  # of 0 and 2
    assert write.size.cos_delta_h_mean == pytest.approx(1.0)
    assert write.unit_rows.singvals[0] == pytest.approx(np.sqrt(2))


@given(x=matrices())
def test_principal_directions_are_those_of_an_svd(x: torch.Tensor):
    energies, directions = principal(x)
    _, sigma, vt = torch.linalg.svd(x, full_matrices=False)
    # σ² through a Gram matrix is right to eps·σ₁²·side.
    torch.testing.assert_close(energies, sigma.square(), rtol=0, atol=1e-13 * float(sigma[0]) ** 2)
    assert directions.shape == (DIRECTIONS, x.shape[1])
    kept = int(directions.any(1).sum())
    assert kept <= torch.linalg.matrix_rank(x)
    assert not directions[kept:].any()
    own = directions[:kept]
    # A mode whose energy is near the rounding of the Gram matrix is only as orthogonal as that allows.
    firm = int((energies[:kept] > 1e-6 * energies[0]).sum())
    eye = torch.eye(firm, dtype=torch.float64)
    torch.testing.assert_close(own[:firm] @ own[:firm].T, eye, rtol=0, atol=1e-8)
    along = (x @ own[:firm].T).norm(dim=0)
    torch.testing.assert_close(along, sigma[:firm], rtol=0, atol=1e-8 * float(sigma[0]))
    if len(sigma) == 1 or sigma[1] < 0.9 * sigma[0]:
        assert float((directions[0] @ vt[0]).abs()) == pytest.approx(1, abs=1e-10)


@given(seed=seeds, scale=st.sampled_from([1e-3, 0.5, 1e3]), permutation_seed=seeds)
def test_scaling_a_write_and_reordering_tokens_change_no_share(seed: int, scale: float, permutation_seed: int):
    h, delta = gaussian(seed, 30, 12), gaussian(seed + 1, 30, 12)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(permutation_seed))
    a, b = layer_write(h, delta)[0], layer_write(h[order], scale * delta[order])[0]
    for name in ("spectrum", "centred", "unit_rows", "without_outliers"):
        one, two = getattr(a, name), getattr(b, name)
        assert two.eff_rank == pytest.approx(one.eff_rank, rel=1e-10), name
        assert two.top1_frac == pytest.approx(one.top1_frac, rel=1e-10), name
    assert b.outlier_dims == a.outlier_dims
    assert b.size.parallel_frac == pytest.approx(a.size.parallel_frac, rel=1e-12)


def test_a_write_that_is_the_same_for_every_token_has_no_centred_direction():
    delta = torch.full((40, 6), 0.1, dtype=torch.float64) * torch.arange(1, 7)
    write, directions, centred = layer_write(gaussian(7, 40, 6), delta)
    assert write.centred is None and not centred.any()
    assert write.mean_share == pytest.approx(1) and directions[0].norm() == pytest.approx(1)


def test_a_layer_that_writes_nothing_has_no_spectrum_at_all():
    write, directions, centred = layer_write(gaussian(8, 40, 6), torch.zeros(40, 6, dtype=torch.float64))
    assert write.spectrum is write.centred is write.unit_rows is write.without_outliers is None
    assert write.mean_share is write.outlier_share is write.size.cos_delta_h_mean is None
    assert write.size.rel_step_mean == 0 and not directions.any() and not centred.any()


def states_of(h: torch.Tensor, attention: torch.Tensor, feed_forward: torch.Tensor) -> LayerStates:
    output = h + attention + feed_forward
    return LayerStates(
        hidden=h, attention=attention, feed_forward=feed_forward, output=output, next_input=output.clone()
    )


def test_under_a_layer_norm_a_constant_added_to_every_write_changes_nothing():
    real = torch.ones(1, 50, dtype=torch.bool)
    h, attention, feed_forward = gaussian(10, 3, 50, 16)
    plain, shifted, blind = (DeltaProbe(layer_norm=flag) for flag in (True, True, False))
    for probe, shift in ((plain, 0.0), (shifted, 3.0), (blind, 3.0)):
        probe.begin(real)
        probe.layer(0, states_of(h, attention + shift, feed_forward))
    assert shifted.writes[0].spectrum.eff_rank == pytest.approx(plain.writes[0].spectrum.eff_rank, rel=1e-10)
    assert shifted.writes[0].size.frob == pytest.approx(plain.writes[0].size.frob, rel=1e-12)
    assert blind.writes[0].size.frob > 1.5 * plain.writes[0].size.frob


def test_the_identities_see_a_broken_chain_and_a_missing_branch():
    real = torch.ones(1, 20, dtype=torch.bool)
    h, attention, feed_forward = gaussian(11, 3, 20, 8)
    good = states_of(h, attention, feed_forward)
    for name, wrong in (("chain_error", {"output": good.output + 0.1}), ("branch_error", {"attention": 0 * attention})):
        probe = DeltaProbe(layer_norm=False)
        probe.begin(real)
        kept = {key: getattr(good, key) for key in ("hidden", "attention", "feed_forward", "output", "next_input")}
        probe.layer(0, LayerStates(**kept | wrong))
        errors = {"chain_error": probe.chain_error[0], "branch_error": probe.branch_error[0]}
        assert errors.pop(name) > 0.01
        assert all(error <= 1e-15 for error in errors.values())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_checkpoint(root / name, name, layers=4) for name in MODEL_TYPES}


def measured(folder: Path, *texts: str, asked: frozenset[str] | None = None, **options):
    checkpoint = open_checkpoint(str(folder))
    probe = DeltaProbe(layer_norm=checkpoint.architecture.layer_norm)
    probe.asked = asked
    facts = run(checkpoint, prompts(*texts), [probe], **options)
    return measure(checkpoint, probe, facts, seed=0, device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("name", MODEL_TYPES)
def test_the_streams_identities_hold_on_every_architecture_and_dtype(folders, name: str, dtype: str):
    record, _ = measured(folders[name], dtype=dtype)
    # Two roundings of the stream, half a unit in the last place of max |h| each.
    bound = {"float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10, "float64": 2**-52}[dtype]
    assert record.identities["layer_chain"].value == 0
    assert record.identities["branch_sum"].value <= bound
    if dtype in ("bfloat16", "float16"):
        assert record.identities["branch_sum"].value > bound / 100  # the bound is not idle
    assert record.identities["top1_energy"].value <= 1e-13  # eps·side


def test_a_metric_that_is_asked_for_alone_is_the_same_as_among_all(folders):
    every = measured(folders["llama"])[0].metrics
    names = ("median_top1_frac", "median_top1_frac_unit_rows", "median_top1_frac_without_outliers", "write_alignment")
    names += (
        "functional_cos_squared",
        "median_adjacent_abs_cos_centred",
        "rel_step_spearman",
        "median_top1_frac_centred",
    )
    for name in names:
        alone = measured(folders["llama"], asked=frozenset({name}))[0].metrics
        assert alone[name] == every[name] and every[name].value is not None, name
        assert len(alone) <= 2 < len(every)  # the two of branches are one


def test_statistics_are_those_of_the_librarys_hidden_states(folders):
    import transformers

    from tests.tiny import byte_tokenizer

    record, arrays = measured(folders["llama"], TEXTS[0])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folders["llama"], dtype=torch.float32, attn_implementation="eager"
    )
    ids = torch.tensor([byte_tokenizer()(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    assert record.tokens == len(TEXTS[0]) - 1
    for layer in range(3):  # the library's last state is after the final norm
        h, following = states[layer][0, 1:].double().numpy(), states[layer + 1][0, 1:].double().numpy()
        _, sigma, vt = np.linalg.svd(following - h, full_matrices=False)
        ours = record.layers[layer]
        assert ours.singvals == pytest.approx(sigma[:10], rel=1e-9)  # Gram matrix: eps·(σ₁/σ₁₀)²
        assert abs(arrays["directions"][layer, 0].double().numpy() @ vt[0]) == pytest.approx(1, abs=1e-6)  # float32
        assert record.abs_cos[layer][layer] == pytest.approx(1, abs=1e-14)
    after = states[-1][0, 1:].double().numpy() - states[3][0, 1:].double().numpy()
    assert record.published_last["frob"] == pytest.approx(np.linalg.norm(after), rel=1e-9)


def test_the_published_last_write_is_not_the_layers(folders, tmp_path: Path):
    """With a stream much larger than what the final norm leaves of it, the published δ is −h."""

    def enlarge(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 1000 if "embed_tokens" in name else tensor

    record, _ = measured(edited(folders["qwen3"], tmp_path / "large", enlarge))
    assert record.published_last["parallel_frac"] > 0.99
    assert record.layers[-1].parallel_frac < 0.5


def edited(folder: Path, target: Path, edit) -> Path:
    """A copy of a checkpoint with `edit(name, tensor)` applied to every tensor."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = {name: edit(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_padding_changes_no_statistic(folders):
    """Two copies of a prompt beside one another, and beside a longer prompt cut away again."""
    checkpoint = open_checkpoint(str(folders["qwen2"]))

    def rows(*texts: str) -> list[torch.Tensor]:
        seen = []

        class Keep(DeltaProbe):
            def layer(self, layer, states):
                seen.append(self._write(states, states.next_input))

        run(checkpoint, prompts(*texts), [Keep(layer_norm=False)])
        return seen

    short, long = TEXTS[2], TEXTS[0]
    n = len(short) - 1
    for alone, beside in zip(rows(short), rows(short, long), strict=True):
        assert len(beside) == n + len(long) - 1
        a, b = layer_write(alone, alone)[0].spectrum, layer_write(beside[:n], beside[:n])[0].spectrum
        assert b.eff_rank == pytest.approx(a.eff_rank, rel=1e-5)  # float32 pass
        assert b.top1_frac == pytest.approx(a.top1_frac, rel=1e-5)


def test_the_record_is_strict_json_and_the_same_bytes_twice(folders, tmp_path: Path):
    for name in ("a", "b"):
        record, arrays = measured(folders["mistral"])
        write_json(tmp_path / name, record)
        save_file(arrays, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert arrays["directions"].shape == arrays["directions_centred"].shape == (4, DIRECTIONS, 32)
    assert arrays["directions"].dtype == torch.float32


def test_metrics_are_those_of_the_layers(folders):
    record, _ = measured(folders["llama"])
    metrics = record.metrics
    layers = record.layers
    assert metrics["median_top1_frac"].value == np.median([layer.top1_frac for layer in layers])
    assert metrics["median_top1_frac_unit_rows"].value == np.median([layer.unit_rows.top1_frac for layer in layers])
    assert metrics["median_top1_frac_centred"].value == np.median([layer.centred.top1_frac for layer in layers])
    adjacent = [record.abs_cos_centred[layer][layer + 1] for layer in range(3)]
    assert metrics["median_adjacent_abs_cos_centred"].value == np.median(adjacent)
    low, high = metrics["median_top1_frac"].interval
    assert low <= metrics["median_top1_frac"].value <= high
    assert metrics["median_top1_frac"].n == {"layers": 4, "tokens_per_dimension": record.tokens / 32}
    assert metrics["median_adjacent_abs_cos_centred"].n == {"pairs": 3, "tokens_per_dimension": record.tokens / 32}
    assert metrics["median_adjacent_abs_cos_centred"].interval is None  # three values and a parabola
    assert metrics["phase_p"].value == record.phase_test_centred.p
    assert metrics["phase_p_published"].value == record.phase_test.p
    assert metrics["rel_step_spearman"].n == {"layers": 4}


def test_a_silent_layer_leaves_reasons_and_the_others_numbers(folders, tmp_path: Path):
    def silence(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 0 if "layers.2." in name and ("o_proj" in name or "down_proj" in name) else tensor

    record, _ = measured(edited(folders["llama"], tmp_path / "silent", silence))
    assert record.layers[2].top1_frac is None and record.layers[2].frob == 0
    assert record.layers[1].top1_frac > 0
    assert np.isnan(record.abs_cos[2][0]) and record.abs_cos[1][0] >= 0
    assert record.metrics["median_top1_frac"].n["layers"] == 3
    assert record.metrics["phase_p"].value is None and "no top direction" in record.metrics["phase_p"].reason
    write_json(tmp_path / "record.json", record)


def test_notes_say_what_the_dropped_token_was(folders):
    record, _ = measured(folders["llama"])
    assert any("ordinary token" in note for note in record.notes)


def test_sequences_of_one_token_leave_nothing_to_measure(folders):
    with pytest.raises(InputError, match="single token"):
        measured(folders["llama"], "a", "b")


def test_states_that_overflow_are_rejected_with_the_layer(folders, tmp_path: Path):
    def explode(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 1e5 if "layers.1.mlp.down_proj" in name else tensor

    folder = edited(folders["llama"], tmp_path / "overflow", explode)
    with pytest.raises(InputError, match="layer 1: hidden states are not finite; use a wider --dtype"):
        measured(folder, dtype="float16")


def test_intervals_of_a_text_hold_both_errors(folders):
    """Over depth and over prompts, added in squares; every median over layers, and the trend of relative steps."""
    checkpoint = open_checkpoint(str(folders["llama"]))
    probe = DeltaProbe(layer_norm=False)
    facts = run(checkpoint, prompts(*(TEXTS[i % 3][i:] for i in range(12))), [probe])
    record, _ = measure(checkpoint, probe, facts, seed=0, device="cpu")
    assert record.text.whole_prompts and len(record.text.groups) == 10
    rows = np.array([probe.writes[layer].without["top1_frac"].numpy() for layer in range(4)])
    left_out = np.median(rows, axis=0)
    half = stats.t.ppf(0.95, 9) * np.sqrt(0.9 * np.square(left_out - left_out.mean()).sum())
    shares = np.array([layer.top1_frac for layer in record.layers])
    depth = bootstrap(lambda drawn: np.median(shares[drawn], axis=1), 4, seed=0, track=shares)
    metric = record.metrics["median_top1_frac"]
    low, high = (metric.value + s * np.hypot(end - metric.value, half) for s, end in zip((-1, 1), depth, strict=True))
    assert metric.interval == pytest.approx((max(low, 0), min(high, 1)), rel=1e-12)
    assert record.text.standard_errors["median_top1_frac"] * stats.t.ppf(0.95, 9) == pytest.approx(half, rel=1e-12)

"""Attention entropy, logit spread and head spectra: known cases, the model's own numbers, rejected input."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from analyses.attention_stats import attention_probe, measure, shown
from analyses.attention_stats.attention_probe import AttentionProbe, head_means
from analyses.attention_stats.means import STATISTICS, HeadMeans, Space
from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.instrumented import run
from analyses.forward.probe import AttentionInputs
from analyses.records import write_json
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from tests.strategies import seeds
from tests.tiny import MODEL_TYPES, byte_tokenizer, tiny_checkpoint

ALWAYS = tuple(name for name in STATISTICS if name != "sink_share_early")  # which needs 64 tokens
TEXT = "Attention is a weighted mean over the keys that the mask lets through."


def prompts(*texts: str) -> Calibration:
    return Calibration(name="test", texts=texts, sha256="0" * 64, stream=False)


def causal(tokens: int, *, window: int | None = None) -> torch.Tensor:
    """(1, 1, token, token) additive mask, as the library's eager mask function makes it."""
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)
    visible = (key <= query) & (key > query - (window or tokens))
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)[None, None]


def with_logits(logits: torch.Tensor, mask: torch.Tensor, **changes) -> AttentionInputs:
    """Inputs whose scaled products are `logits` (head, token, token): identity keys of one sequence."""
    heads, tokens, _ = logits.shape
    key = torch.eye(tokens, dtype=logits.dtype).expand(1, heads, tokens, tokens)
    plain = {"query": logits[None], "key": key, "mask": mask, "scaling": 1.0, "softcap": None, "weights": None}
    return AttentionInputs(**plain | changes)


def everything_real(tokens: int) -> torch.Tensor:
    return torch.ones(1, tokens, dtype=torch.bool)


def reference(logits: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """The statistics of one head, query by query in plain float64."""
    rows: dict[str, list[float]] = {name: [] for name in ALWAYS}
    for t, (row, seen) in enumerate(zip(logits, visible, strict=True)):
        for suffix, keep in (("", seen), ("_without_sink", seen & (np.arange(len(row)) > 0))):
            z = row[keep]
            if not len(z) or (suffix and len(z) < 2):
                continue
            log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
            entropy = -(np.exp(log_p) * log_p).sum()
            rows["entropy" + suffix].append(entropy)
            if len(z) >= 2:
                rows["logit_std" + suffix].append(z.std())
                if not suffix:
                    rows["entropy_fraction"].append(entropy / math.log(len(z)))
            if not suffix and t > 0:
                rows["sink_share"].append(np.exp(log_p[0]) if seen[0] else 0.0)
    return {name: float(np.mean(values)) for name, values in rows.items()}


def test_uniform_attention_has_the_entropy_of_ln_keys_and_no_spread():
    tokens = 12
    means = head_means(with_logits(torch.zeros(2, tokens, tokens), causal(tokens)), everything_real(tokens))
    keys = np.arange(1, tokens + 1)
    expected = {
        "entropy": np.log(keys).mean(),
        "entropy_fraction": 1.0,
        "logit_std": 0.0,
        "sink_share": (1 / keys[1:]).mean(),
        "entropy_without_sink": np.log(keys[2:] - 1).mean(),
        "logit_std_without_sink": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(means, name).numpy(), [value] * 2, rtol=0, atol=1e-14, err_msg=name)
    assert means.queries == tokens
    assert abs(means.entropy_excess) <= 1e-14  # the bound is reached, up to the last places of ln


def test_two_equal_maxima_among_huge_logits_share_one_bit():
    logits = torch.full((1, 4, 4), -3e4)
    logits[0, :, :2] = 3e4
    means = head_means(with_logits(logits, causal(4)), everything_real(4))
    assert means.entropy[0] == pytest.approx(3 / 4 * math.log(2), rel=0, abs=1e-15)  # query 0 sees one key
    # Population form: queries 1, 2, 3 see 2 of 2, 2 of 3 and 2 of 4 maxima that are 6e4 apart.
    spread = 6e4 * np.mean([0, math.sqrt(2) / 3, 1 / 2])
    assert means.logit_std[0] == pytest.approx(spread, rel=1e-14)


def test_entropy_is_exact_where_probabilities_underflow_in_float32():
    # One key at 0 and one at −x: S ≈ e^(−x)(x + 1); e^(−200) is zero in float32.
    logits = torch.tensor([[[0.0, 0.0], [0.0, -200.0]]])
    means = head_means(with_logits(logits, causal(2)), everything_real(2))
    assert means.entropy_fraction[0] == pytest.approx(math.exp(-200) * 201 / math.log(2), rel=1e-12, abs=0)


def test_entropy_without_the_sink_is_exact_where_the_sink_takes_all_but_e_to_the_minus_300():
    # Taken out of finished sums, key 0 would leave 0/0. Others: one at 0 and one at −200, as above.
    logits = torch.tensor([[[300.0, 0.0, 0.0], [300.0, 0.0, 0.0], [300.0, 0.0, -200.0]]])
    means = head_means(with_logits(logits, causal(3)), everything_real(3))
    assert means.entropy_without_sink[0] == pytest.approx(math.exp(-200) * 201, rel=1e-12, abs=0)
    assert means.logit_std_without_sink[0] == pytest.approx(100, rel=1e-15)
    # S = x e^(−x) + e^(−x) for the query that sees the sink and one key, and again for the last, up to e^(−500).
    assert means.entropy[0] == pytest.approx(2 / 3 * math.exp(-300) * 301, rel=1e-12, abs=0)


def test_blocks_of_queries_give_the_statistics_of_all_queries_at_once(monkeypatch):
    logits = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(4))
    for mask in (causal(20), causal(20, window=6), torch.zeros(1, 1, 20, 20)):
        whole = head_means(with_logits(logits, mask), everything_real(20))
        with monkeypatch.context() as patch:
            patch.setattr(attention_probe, "QUERIES", 7)
            parts = head_means(with_logits(logits, mask), everything_real(20))
        for name in ALWAYS:  # sums run in another order
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-14, atol=1e-15, msg=name)


@pytest.mark.parametrize("lengths", [(5, 20, 6, 19, 6, 1), (9, 9, 9)])
@pytest.mark.parametrize("window", [None, 4])
def test_short_sequences_together_have_the_statistics_of_each_alone(lengths, window):
    sequences, tokens, draw = len(lengths), max(lengths), torch.Generator().manual_seed(1)
    real = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    query, key = torch.randn(2, sequences, 2, tokens, 3, generator=draw)
    for states in (query, key):  # padding may hold anything
        states.movedim(1, 2)[~real] = torch.nan
    mask = causal(tokens, window=window).repeat(sequences, 1, 1, 1).masked_fill(~real[:, None, None], -torch.inf)
    mask = mask + torch.where(mask == 0, torch.randn(mask.shape, generator=draw), 0)
    weights = torch.rand(sequences, 2, tokens, tokens, generator=draw)
    bias = torch.randn(sequences, 2, 1, tokens, generator=draw)
    states = {"query": query, "key": key, "mask": mask, "weights": weights, "bias": bias}

    def means_of(some: slice) -> HeadMeans:
        cut = {name: values[some] for name, values in states.items()}
        return head_means(AttentionInputs(**cut, scaling=0.7), real[some])

    whole, alone = means_of(slice(None)), [means_of(slice(i, i + 1)) for i in range(sequences)]
    n = torch.tensor(lengths, dtype=torch.float64)
    counted = {"entropy": n, "sink_share": n - 1, "entropy_fraction": n - 1, "logit_std": n - 1}
    for name, count in counted.items():  # so many queries of each sequence; float32 products in another order
        each = torch.stack([getattr(means, name) for means in alone], -1).where(count > 0, 0.0)
        torch.testing.assert_close(getattr(whole, name), each @ count / count.sum(), rtol=1e-6, atol=1e-7, msg=name)
    assert whole.row_sum_error == pytest.approx(max(means.row_sum_error for means in alone), rel=1e-6)
    assert whole.queries == sum(lengths)


def test_sequences_that_go_together_are_alike_in_length_and_each_goes_once():
    lengths = np.random.default_rng(0).integers(1, 200, 60).tolist()
    groups = [torch.arange(60)[each].tolist() for each in shown.alike(lengths, 100_000)]
    assert sorted(sum(groups, [])) == list(range(60)) and len(groups) < 40
    for group in groups:
        longest, tokens = max(lengths[i] for i in group), sum(lengths[i] for i in group)
        assert len(group) == 1 or len(group) * longest**2 <= 100_000
        assert len(group) * longest - tokens <= shown.PADDING * len(group) * longest


def test_capped_logits_are_what_counts_where_the_model_caps():
    logits = 50 * torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0))
    means = head_means(with_logits(logits, causal(6), softcap=5.0), everything_real(6))
    expected = reference(5 * np.tanh(logits[0].double().numpy() / 5), np.tri(6, dtype=bool))
    for name, value in expected.items():
        assert getattr(means, name)[0] == pytest.approx(value, rel=1e-12), name


def test_finite_entries_of_the_mask_are_part_of_the_logits():
    bias = -0.3 * (torch.arange(5)[:, None] - torch.arange(5)).abs()
    mask = torch.where(causal(5) == 0, bias, causal(5))
    means = head_means(with_logits(torch.zeros(1, 5, 5), mask), everything_real(5))
    expected = reference(bias.double().numpy(), np.tri(5, dtype=bool))
    assert means.entropy[0] == pytest.approx(expected["entropy"], rel=1e-12)


@given(seed=seeds, tokens=st.integers(3, 9), window=st.integers(2, 9), decades=st.integers(-3, 4))
def test_statistics_equal_a_query_by_query_float64_computation(seed: int, tokens: int, window: int, decades: int):
    logits = 10.0**decades * torch.randn(2, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    mask = causal(tokens, window=window)
    means = head_means(with_logits(logits, mask), everything_real(tokens))
    for head in range(2):
        expected = reference(logits[head].double().numpy(), (mask[0, 0] == 0).numpy())
        for name, value in expected.items():
            # float64 rounding: relative for the spread of logits, absolute for entropies and shares.
            assert float(getattr(means, name)[head]) == pytest.approx(value, rel=1e-12, abs=1e-12), name
    assert means.entropy_excess <= 1e-12 and means.row_sum_error <= 1e-12


@given(seed=seeds, shift=st.floats(-100, 100))
def test_a_constant_added_to_a_querys_logits_changes_nothing(seed: int, shift: float):
    logits = torch.randn(1, 7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = head_means(with_logits(logits, causal(7)), everything_real(7))
    shifted = head_means(with_logits(logits + shift, causal(7)), everything_real(7))
    for name in ALWAYS:
        torch.testing.assert_close(getattr(shifted, name), getattr(plain, name), rtol=0, atol=1e-12)  # 100·eps·√7


def test_blocks_of_heads_give_the_statistics_of_all_heads_at_once():
    logits = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = head_means(with_logits(logits, causal(8)), everything_real(8))
    for block_entries in (1, 64, 130):  # one head at a time, one, two
        parts = head_means(with_logits(logits, causal(8)), everything_real(8), block_entries=block_entries)
        for name in ALWAYS:
            assert torch.equal(getattr(parts, name), getattr(whole, name)), name


def test_grouped_keys_are_met_by_their_own_queries_however_the_heads_are_cut():
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 6, 9, 4, generator=generator, dtype=torch.float64)
    key = torch.randn(1, 2, 9, 4, generator=generator, dtype=torch.float64)
    grouped = AttentionInputs(query=query, key=key, mask=causal(9), scaling=0.7)
    alone = replace(grouped, key=key.repeat_interleave(3, 1))
    whole = head_means(alone, everything_real(9))
    for block_entries in (1, 150, 250, 10_000):  # one head at a time; one, since two are no part of three; three; all
        parts = head_means(grouped, everything_real(9), block_entries=block_entries)
        for name in ALWAYS:  # products of another shape may be summed in another order
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-13, atol=1e-14, msg=name)


def test_a_mask_of_truths_shows_what_a_mask_of_numbers_shows():
    logits = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(5))
    numbers = causal(9, window=4)
    truths = numbers == 0
    a, b = (head_means(with_logits(logits, mask), everything_real(9)) for mask in (numbers, truths))
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ALWAYS)
    assert torch.equal(truths, numbers == 0), "the model's own mask was written to"


def test_all_blocks_share_one_work_space_of_a_blocks_size(monkeypatch):
    tokens, places, space = 12, [], Space()
    original = attention_probe.over_keys

    def watched(logits, *rest, **out):
        places.append(logits.data_ptr())
        return original(logits, *rest, **out)

    monkeypatch.setattr(attention_probe, "over_keys", watched)
    inputs = with_logits(torch.randn(3, tokens, tokens, generator=torch.Generator().manual_seed(2)), causal(tokens))
    means = head_means(inputs, everything_real(tokens), block_entries=tokens**2, space=space)
    assert len(places) == 3 and len(set(places)) == 1
    assert max(map(len, space.kept.values())) <= tokens**2
    assert all(getattr(means, name).shape == (3,) for name in STATISTICS)


def test_what_a_mask_shows_is_found_once_for_all_layers_and_anew_where_the_mask_is_another(monkeypatch):
    made, space, original = [], Space(), attention_probe.Shown
    monkeypatch.setattr(attention_probe, "Shown", lambda *given, **how: made.append(1) or original(*given, **how))
    logits = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(6))
    full, window = causal(9), causal(9, window=3)
    for mask in (full, window, full, window):  # layers that take turns
        again = head_means(with_logits(logits, mask), everything_real(9), space=space)
        alone = head_means(with_logits(logits, mask.clone()), everything_real(9))
        assert all(torch.equal(getattr(again, name), getattr(alone, name)) for name in ALWAYS)
    assert len(made) == 2 + 4
    full.copy_(window)
    changed = head_means(with_logits(logits, full), everything_real(9), space=space)
    assert torch.equal(changed.entropy, again.entropy), "the mask is the same object, and shows something else"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    models = {name: tiny_checkpoint(root / name, name) for name in MODEL_TYPES}
    return models | {"window": tiny_checkpoint(root / "window", "mistral", sliding_window=7)}


def measured(folder: Path, *texts: str, **options):
    checkpoint = open_checkpoint(str(folder))
    probe = AttentionProbe()
    facts = run(checkpoint, prompts(*(texts or (TEXT,))), [probe], **options)
    return measure(checkpoint, probe, facts, seed=0, device="cpu")


@pytest.mark.parametrize("name", [*MODEL_TYPES, "window"])
def test_entropy_and_sink_share_are_those_of_the_models_own_probabilities(folders, name: str):
    record = measured(folders[name])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folders[name], dtype=torch.float32, attn_implementation="eager"
    )
    ids = torch.tensor([byte_tokenizer()(TEXT)["input_ids"]])
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions
    for layer, weights in zip(record.dynamic, attentions, strict=True):
        entropy = torch.special.entr(weights[0].double()).sum(-1).mean(-1)  # (head,)
        sink = weights[0, :, 1:, 0].double().mean(-1)
        # Probabilities are float32: each p ln p is off by about 1e-7 of itself, and so is their sum.
        torch.testing.assert_close(
            torch.tensor(layer.mean_attention_entropy_per_head, dtype=torch.float64), entropy, rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            torch.tensor(layer.sink_share_per_head, dtype=torch.float64), sink, rtol=1e-5, atol=1e-6
        )


def test_keys_beyond_a_sliding_window_are_not_visible(folders):
    bound = np.log(np.minimum(np.arange(1, len(TEXT) + 1), 7)).mean()  # of the mean entropy under a window of 7
    windowed, full = measured(folders["window"]), measured(folders["mistral"])
    assert max(max(layer.mean_attention_entropy_per_head) for layer in windowed.dynamic) <= bound
    assert max(max(layer.mean_attention_entropy_per_head) for layer in full.dynamic) > bound
    assert max(max(layer.sink_share_per_head) for layer in windowed.dynamic) <= 6 / (len(TEXT) - 1)


def test_no_key_of_a_windowed_query_leaves_the_sinkless_statistics_undefined(folders):
    record = measured(folders["window"], "ab")  # two tokens: only one key is left beside key 0
    assert record.dynamic[0].entropy_without_sink_per_head == [None] * 4
    assert "enough keys" in record.absent["dynamic.0.entropy_without_sink_per_head.*"]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_no_statistic(folders, attention: str):
    """The means over two prompts in one batch are those of each prompt alone, pooled."""
    checkpoint = open_checkpoint(str(folders["qwen3"]))
    short, long = TEXT[:20], TEXT
    seen = {}
    for texts in ((short,), (long,), (short, long)):
        probe = AttentionProbe()
        run(checkpoint, prompts(*texts), [probe], attention=attention)
        seen[texts] = probe.layers
    # Leading queries of each sequence that a statistic leaves out.
    left_out = dict(zip((name for name in STATISTICS if name != "sink_share_early"), (0, 1, 1, 1, 2, 2), strict=True))
    for layer in range(3):
        alone, longer, both = (seen[key][layer] for key in ((short,), (long,), (short, long)))
        for name, drop in left_out.items():
            a, b = len(short) - drop, len(long) - drop
            pooled = (a * getattr(alone, name) + b * getattr(longer, name)) / (a + b)
            torch.testing.assert_close(getattr(both, name), pooled, rtol=1e-5, atol=1e-6)  # float32 pass


def test_eager_and_sdpa_give_the_same_statistics(folders):
    eager, sdpa = measured(folders["qwen2"]), measured(folders["qwen2"], attention="sdpa")
    for a, b in zip(eager.dynamic, sdpa.dynamic, strict=True):
        # The attention outputs, and so the next layers' queries, differ by float32 rounding.
        np.testing.assert_allclose(a.mean_logit_std_per_head, b.mean_logit_std_per_head, rtol=1e-4)


def test_reduced_precision_moves_the_statistics_by_its_rounding_only(folders):
    full, half = measured(folders["llama"]), measured(folders["llama"], dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert 0 < half.identities["row_sum"].value <= 2**-7  # the model's own probabilities are rounded
    for a, b in zip(full.dynamic, half.dynamic, strict=True):
        # Activations carry 8 bits; three layers on, logits are off by a few per cent.
        np.testing.assert_allclose(a.mean_logit_std_per_head, b.mean_logit_std_per_head, rtol=0.1)


@pytest.mark.parametrize("name", [*MODEL_TYPES, "window"])
def test_identities_hold_on_every_architecture(folders, name: str):
    identities = measured(folders[name], TEXT, TEXT[:9]).identities
    assert identities["singvals_energy"].value <= 1e-13  # hidden × eps = 7e-15
    assert identities["entropy_bound"].value <= 1e-12
    assert identities["row_sum"].value <= 1e-6  # float32 softmax over 70 keys
    assert identities["row_sum"].n["rows"] == 3 * 4 * (len(TEXT) + 9)


def test_temperature_is_one_over_the_mean_logit_spread(folders):
    record = measured(folders["qwen3"])
    for temperature, layer in zip(record.temperature, record.dynamic, strict=True):
        assert temperature == pytest.approx(1 / np.mean(layer.mean_logit_std_per_head), rel=1e-14)


def dense_metrics(checkpoint: Checkpoint, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = checkpoint.shape
    query = checkpoint.head_blocks("q_proj", layer)[head]
    return checkpoint.head_blocks("k_proj", layer)[head * shape.kv_heads // shape.heads], query


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_static_spectra_are_those_of_the_dense_matrices(folders, name: str):
    checkpoint = open_checkpoint(str(folders[name]))
    record = measure(checkpoint, None, None, seed=0, device="cpu")
    for layer, static in enumerate(record.static):
        gain = checkpoint.weight("input_ln", layer)
        for head in range(4):
            key, query = dense_metrics(checkpoint, layer, head)
            exact = torch.linalg.svdvals(key.T @ query)[:8]
            published = torch.linalg.svdvals(key @ query.T)
            query, key = query * gain, key * gain
            if checkpoint.has_qk_norm:
                query = query / query.norm() * checkpoint.weight("q_norm", layer)[:, None]
                key = key / key.norm() * checkpoint.weight("k_norm", layer)[:, None]
            gained = torch.linalg.svdvals(key.T @ query)[:8]
            for ours, dense in (
                (static.singvals_per_head, exact),
                (static.metric_singvals_per_head, published),
                (static.gained_singvals_per_head, gained),
            ):
                # Absolute errors of an SVD are eps·σ₁·side.
                np.testing.assert_allclose(ours[head], dense.numpy(), rtol=0, atol=1e-13 * float(dense[0]))


def edited(folder: Path, target: Path, edit) -> Path:
    """A copy of a checkpoint with `edit(name, tensor)` applied to every tensor."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = {name: edit(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_under_qk_norms_the_gained_spectrum_ignores_the_scale_of_queries_and_keys(folders, tmp_path: Path):
    def scale(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 4 if "q_proj.weight" in name else tensor * 2 if "k_proj.weight" in name else tensor

    plain = open_checkpoint(str(folders["qwen3"]))
    scaled = open_checkpoint(str(edited(folders["qwen3"], tmp_path / "scaled", scale)))
    a, b = (measure(c, None, None, seed=0, device="cpu").static[1] for c in (plain, scaled))
    np.testing.assert_allclose(b.gained_singvals_per_head, a.gained_singvals_per_head, rtol=1e-13)
    np.testing.assert_allclose(b.singvals_per_head, 8 * np.array(a.singvals_per_head), rtol=1e-13)


def test_the_gained_spectrum_keeps_the_size_of_the_qk_norms_own_gains(folders, tmp_path: Path):
    # logit = Σ γ_q γ_k q̂ k̂: doubling γ_q doubles every logit, so the spectrum must double too.
    plain = open_checkpoint(str(folders["qwen3"]))
    louder = edited(folders["qwen3"], tmp_path / "louder", lambda name, t: t * 2 if "q_norm" in name else t)
    a, b = (measure(c, None, None, seed=0, device="cpu").static[1] for c in (plain, open_checkpoint(str(louder))))
    np.testing.assert_allclose(b.gained_singvals_per_head, 2 * np.array(a.gained_singvals_per_head), rtol=1e-13)


def test_a_head_of_zeros_has_no_scale_free_spectrum_and_says_so(folders, tmp_path: Path):
    def silence(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name.endswith("layers.1.self_attn.q_proj.weight"):
            tensor[8:16] = 0
        return tensor

    checkpoint = open_checkpoint(str(edited(folders["qwen3"], tmp_path / "zero", silence)))
    record = measure(checkpoint, None, None, seed=0, device="cpu")
    assert record.static[1].gained_singvals_per_head[1] is None
    assert record.static[1].gained_singvals_per_head[0] is not None
    assert record.static[1].singvals_per_head[1] == [0.0] * 8
    assert "all zero" in record.absent["static.1.gained_singvals_per_head.1"]
    assert record.identities["singvals_energy"].value <= 1e-13
    write_json(tmp_path / "record.json", record)


def test_a_layer_of_equal_logits_has_no_temperature_and_says_so(folders, tmp_path: Path):
    def silence(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 0 if "layers.2.self_attn.q_proj" in name else tensor

    record = measured(edited(folders["llama"], tmp_path / "flat", silence))
    assert record.temperature[2] is None and record.temperature[1] > 0
    assert record.dynamic[2].entropy_fraction_per_head == pytest.approx([1.0] * 4, rel=1e-14)
    assert "all equal" in record.absent["temperature.2"]
    write_json(tmp_path / "record.json", record)


def test_without_a_forward_pass_the_static_half_stands_alone_with_the_reason(folders, tmp_path: Path):
    checkpoint = open_checkpoint(str(folders["llama"]))
    record = measure(checkpoint, None, None, seed=0, device="cpu", no_forward="the checkpoint holds no tokenizer")
    assert record.dynamic is None and record.temperature is None and record.dtype == "float64"
    assert record.absent["dynamic"] == "the checkpoint holds no tokenizer"
    assert not record.identities["row_sum"].applies
    write_json(tmp_path / "record.json", record)
    assert json.loads((tmp_path / "record.json").read_text())["static"][0]["singvals_per_head"][3][0] > 0


def test_biases_that_the_metric_omits_are_noted(folders):
    assert any("biases" in note for note in measured(folders["qwen2"]).notes)
    assert not any("biases" in note for note in measured(folders["llama"]).notes)


def test_the_record_is_the_same_bytes_twice(folders, tmp_path: Path):
    for name in ("a", "b"):
        write_json(tmp_path / name, measured(folders["mistral"]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_the_probe_raised_is_raised_by_its_analysis(folders):
    checkpoint = open_checkpoint(str(folders["llama"]))
    probe = AttentionProbe()
    facts = run(checkpoint, prompts(TEXT), [probe])
    probe.failure = RuntimeError("broken in layer 1")
    with pytest.raises(RuntimeError, match="broken in layer 1"):
        measure(checkpoint, probe, facts, seed=0, device="cpu")


def test_attention_that_never_reached_the_probe_is_an_error_not_an_empty_record(folders):
    checkpoint = open_checkpoint(str(folders["llama"]))
    probe = AttentionProbe()
    facts = run(checkpoint, prompts(TEXT), [probe])
    del probe.layers[1]
    with pytest.raises(InputError, match="layer 1's attention does not go through"):
        measure(checkpoint, probe, facts, seed=0, device="cpu")


def test_queries_that_are_not_finite_are_rejected():
    logits = torch.zeros(1, 3, 3)
    logits[0, 1, 1] = torch.inf
    probe = AttentionProbe()
    probe.begin(everything_real(3))
    with pytest.raises(InputError, match="layer 0: queries are not finite"):
        probe.attention(0, with_logits(logits, causal(3)))


def test_a_mask_that_hides_every_key_or_shows_padding_is_an_error():
    hidden = torch.full((1, 1, 3, 3), torch.finfo(torch.float32).min)
    with pytest.raises(ValueError, match="sees no key"):
        head_means(with_logits(torch.zeros(1, 3, 3), hidden), everything_real(3))
    real = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match="sees padding"):
        head_means(with_logits(torch.zeros(1, 3, 3), torch.zeros(1, 1, 3, 3)), real)


def test_the_row_sum_identity_sees_probabilities_on_hidden_keys():
    weights = torch.full((1, 1, 4, 4), 0.25)  # as if the model ignored its mask
    means = head_means(with_logits(torch.zeros(1, 4, 4), causal(4), weights=weights), everything_real(4))
    assert means.row_sum_error == pytest.approx(0.75)


def test_the_row_sum_identity_lets_no_nan_of_the_model_pass():
    weights = torch.full((1, 1, 4, 4), torch.nan)
    means = head_means(with_logits(torch.zeros(1, 4, 4), causal(4), weights=weights), everything_real(4))
    assert not means.row_sum_error <= 1e-5

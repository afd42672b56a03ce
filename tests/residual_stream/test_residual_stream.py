"""The residual stream's states: the library's own, in dense float64, and what is known of planted ones."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from safetensors.torch import load_file, save_file
from scipy import stats

from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.forward.instrumented import run
from analyses.forward.probe import LayerStates
from analyses.numerics.permutations import arrangements
from analyses.records import plain, unexplained_nulls
from analyses.residual_stream import StreamProbe, measure, probe
from analyses.residual_stream.growth import half_ratio, step_metrics, unrelated_steps, weights, weights_of
from analyses.residual_stream.linearity import linearity, solve
from analyses.residual_stream.measures import later_advantage, sink_shares, valley
from analyses.residual_stream.sinks import shift_p, sink_metrics
from analyses.residual_stream.states import pieces, reduce_state
from analyses.residual_stream.stream_probe import angles
from analyses.residual_stream.tracks import middles
from analyses.residual_stream.ways import WAYS, masks, massive, named
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from tests.few_draws import few_draws
from tests.strategies import seeds
from tests.tiny import byte_tokenizer, tiny_checkpoint

TEXTS = tuple(
    f"Prompt {i}: {words} " + words[i:] + "."
    for i, words in enumerate(
        ("the stream is read and written", "one token may be longer than all", "def write(h, d): return h + d",
         "two and two is four, and so on", "states of a layer and of the next", "what is written stays there")
    )
)  # fmt: skip
FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox", "gemma2")
REDUCED = ("massive_ratio", "valley_ratio", "linear_r2", "mean_cosine", "least_distance", "half_ratio")
LAYERS = 12  # as few as have a first and a later half for claims about schedules


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_checkpoint(root / name, name, layers=LAYERS) for name in FAMILIES}


def text(*texts: str) -> Calibration:
    return Calibration(name="test", texts=texts or TEXTS, sha256="0" * 64, stream=False)


@functools.cache
def measured(folder: Path, dtype: str = "float64"):
    """The record with sinks, of all that states are reduced to for metrics; surrogates are drawn for no claim of it."""
    checkpoint = open_checkpoint(str(folder))
    names = [named(name, way) for name in ("massive_sink_rho", *REDUCED) for way in WAYS]
    claimed = frozenset({f"residual_stream.metrics.{name}" for name in names} | {"attention_stats.metrics.*"})
    settings = Settings(device="cpu", dtype=dtype, claimed=claimed)
    return records_of(checkpoint, text(), settings, ["residual_stream"])["residual_stream"]


@torch.no_grad()
def library(folder: Path) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """The class's own states [state][prompt] (token, hidden) and its mean attention on key 0, (layer,), in float64."""
    record = open_checkpoint(str(folder)).architecture
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    last: list[torch.Tensor] = []
    layers = model.get_submodule(record.layers)
    hook = layers[-1].register_forward_hook(
        lambda module, args, output: last.append(output[0] if isinstance(output, tuple) else output)
    )
    states: list[list[np.ndarray]] = [[] for _ in range(LAYERS + 1)]
    on_zero, rows = np.zeros(LAYERS), 0
    for one in TEXTS:
        ids = torch.tensor([byte_tokenizer()(one)["input_ids"]])
        own = model(ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        for number in range(LAYERS):
            states[number].append(own.hidden_states[number][0].numpy())
            on_zero[number] += float(own.attentions[number][0, :, 1:, 0].mean(0).sum())
        states[LAYERS].append(last.pop()[0].numpy() if last[-1].ndim == 3 else last.pop().numpy())
        rows += ids.shape[1] - 1
    hook.remove()
    if record.layer_norm:
        states = [[x - x.mean(1, keepdims=True) for x in prompts] for prompts in states]
    return states, on_zero / rows


def entropy(x: np.ndarray, dimensions: int) -> float:
    energy = np.linalg.svd(x, compute_uv=False) ** 2
    p = energy[energy > 0] / energy.sum()
    return float(-(p * np.log(p)).sum() / math.log(min(len(x), dimensions)))


def mean_pair_cosine(x: np.ndarray) -> float:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    return float(cosines[~np.eye(len(x), dtype=bool)].mean())


def regression(h: np.ndarray, delta: np.ndarray, folds: list[slice], k: int) -> float:
    """Held-out R² of δ from h by numpy's least squares, on the leading k directions of all states."""
    if k < h.shape[1]:
        h = (h - h.mean(0)) @ np.linalg.svd(h - h.mean(0), full_matrices=False)[2][:k].T
    lost = whole = 0.0
    for fold in folds:
        test = np.zeros(len(h), bool)
        test[fold] = True
        x, y = h - h[~test].mean(0), delta - delta[~test].mean(0)
        found = np.linalg.lstsq(x[~test], y[~test], rcond=1e-6)[0]
        lost += np.square(y[test] - x[test] @ found).sum()
        whole += np.square(y[test]).sum()
    return 1 - lost / whole


@pytest.mark.parametrize("name", FAMILIES)
def test_every_track_is_that_of_the_classes_own_states_and_attentions(folders, name):
    """float64 on both sides: what differs is the order of sums, 1e-12, and a Gram's root where an entropy is small."""
    record, (states, sinks) = measured(folders[name]), library(folders[name])
    checkpoint = open_checkpoint(str(folders[name]))
    dimensions = checkpoint.shape.hidden - checkpoint.architecture.layer_norm
    first = np.concatenate([np.arange(len(x)) == 0 for x in states[0]])
    stacked = [np.concatenate(prompts) for prompts in states]
    norms = [np.linalg.norm(x, axis=1) for x in stacked]
    assert record["tokens"] == len(first)
    assert record["sink_share"] == pytest.approx(sinks, rel=1e-5)  # the class rounds its probabilities to float32
    way = record["ways"]["all"]
    assert way["massive_ratio"] == pytest.approx([n.max() / np.median(n) for n in norms], rel=1e-11)
    assert way["norm"] == pytest.approx([np.median(n) for n in norms], rel=1e-11)
    later = record["ways"]["without_first"]
    assert later["norm"] == pytest.approx([np.median(n[~first]) for n in norms], rel=1e-11)
    for state in (0, LAYERS // 2, LAYERS):
        expected = np.mean([entropy(x, dimensions) for x in states[state]])
        assert way["entropy"][state] == pytest.approx(expected, rel=1e-9)
        assert later["entropy"][state] == pytest.approx(np.mean([entropy(x[1:], dimensions) for x in states[state]]))
        assert way["cosine"][state] == pytest.approx(mean_pair_cosine(stacked[state]), abs=1e-12)
    steps = [np.linalg.norm(b - a, axis=1) / n for a, b, n in zip(stacked[:-1], stacked[1:], norms, strict=False)]
    assert way["step"] == pytest.approx([np.median(s) for s in steps], rel=1e-10)
    assert record["block"] == 1
    cosines = [(a * b).sum(1) / (m * n) for a, b, m, n in zip(stacked, stacked[1:], norms, norms[1:], strict=False)]
    assert record["sample"] == min(256, len(first))
    chosen = np.arange(record["sample"]) * len(first) // record["sample"]
    expected = [np.mean(np.arccos(np.clip(c[chosen], -1, 1))) / np.pi for c in cosines]
    assert way["distance"] == pytest.approx(expected, rel=1e-7)  # of the arc cosine
    folds = [slice(a, b) for a, b in _fold_edges([len(x) for x in states[0]])]
    for layer in (0, LAYERS - 1):
        delta = stacked[layer + 1] - stacked[layer]
        expected = regression(stacked[layer], delta, folds, record["directions"])
        assert way["linearity"][layer] == pytest.approx(expected, abs=1e-7)


def _fold_edges(lengths: list[int]) -> list[tuple[int, int]]:
    from analyses.numerics.prompt_groups import FOLDS, groups

    return [(part.start, part.stop) for part in groups(lengths, FOLDS).slices]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_record_explains_its_nulls_and_its_identities_hold(folders, name):
    record = measured(folders[name])
    assert unexplained_nulls(record) == []
    assert record["identities"]["entropy_bound"]["value"] < 1e-12 > record["identities"]["triangle"]["value"]


def planted(states: torch.Tensor, *, lengths: tuple[int, ...], asked: frozenset[str] | None = None) -> StreamProbe:
    """A probe that was fed (state, token, hidden) states of prompts of these lengths, as a pass would."""
    fed = StreamProbe(layer_norm=False, depth=len(states) - 1)
    fed.asked = asked
    fed.begin(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
    nothing = torch.zeros_like(states[0])
    for layer, (h, after) in enumerate(zip(states[:-1], states[1:], strict=True)):
        if layer == len(states) - 2:
            fed.final(after, after)
        fed.layer(
            layer,
            LayerStates(hidden=h, attention=nothing, feed_forward=after - h, output=after, next_input=after),
        )
    return fed


def record_of(states: torch.Tensor, lengths: tuple[int, ...], folders, **options):
    checkpoint = open_checkpoint(str(folders["llama"])).restricted(layers=range(len(states) - 1))
    facts = run(open_checkpoint(str(folders["llama"])), text("facts"), [])
    return measure(checkpoint, planted(states, lengths=lengths, **options), facts, seed=0)


def test_layers_that_write_nothing_are_not_linear_and_the_published_score_calls_them_perfect(folders):
    h = gaussian(1, 240, 16)
    record = record_of(torch.stack([h] * 5), (60,) * 4, folders)
    assert record.ways["all"].linearity == [None] * 4
    assert record.metrics["linear_r2"].value is None and record.metrics["linear_r2"].reason
    for score in (record.published.linearity, record.published.identity):
        assert score == pytest.approx([1.0] * 4)
    assert record.ways["all"].distance == [0.0] * 4 and record.ways["all"].step == [0.0] * 4
    assert unexplained_nulls(plain(record)) == []


def test_a_linear_layer_is_found_linear_and_permuted_rows_are_not(folders):
    """Of linear maps of states there is nothing left, but for what the identity of 16 columns costs in rounding."""
    h, w = gaussian(2, 400, 16), gaussian(3, 16, 16) / 4
    states = torch.stack([h @ torch.linalg.matrix_power(torch.eye(16).double() + w, i) for i in range(5)])
    record = record_of(states, (50,) * 8, folders)
    assert record.ways["all"].linearity == pytest.approx([1.0] * 4, abs=1e-9)
    permuted = [value for value in record.published.permuted if value is not None]
    assert permuted and max(permuted) < 0.05  # 16 regressors of 320 rows: −0.05 on average


def test_an_unrelated_write_is_not_linear_though_the_published_score_is_near_one(folders):
    track = [gaussian(4, 400, 16)]
    for i in range(4):
        track.append(track[-1] + 0.1 * gaussian(20 + i, 400, 16))
    record = record_of(torch.stack(track), (50,) * 8, folders)
    assert max(record.ways["all"].linearity) < 0.1
    assert min(record.published.linearity) > 0.95 and min(record.published.identity) > 0.95


def test_a_massive_token_is_found_left_out_and_makes_a_valley(folders):
    """One token of each prompt 1,000 times as long in the middle states: the spectrum is that token's alone."""
    base = gaussian(5, 13, 240, 16)
    places = torch.arange(0, 240, 60)
    base[3:10, places] *= 1000
    record = record_of(base, (60,) * 4, folders)
    assert record.ways["all"].massive_ratio[5] > 500 and record.ways["without_massive"].massive_ratio[5] < 10
    assert record.ways["all"].tokens[5] == 240 and record.ways["without_massive"].tokens[5] == 236
    assert record.massive_first[5] == 1.0 and record.massive_first[0] is None
    assert record.metrics["valley_ratio"].value < 0.1 < 0.9 < record.metrics["valley_ratio_without_massive"].value
    assert record.metrics["massive_ratio"].value > 500


def test_a_stream_scaled_by_a_power_of_two_moves_absolute_activations_and_nothing_else(folders):
    states = gaussian(6, 7, 200, 16).cumsum(0)
    one, two = (record_of(states * scale, (50,) * 4, folders) for scale in (1.0, 1024.0))
    assert max(one.published.largest) < 100 < max(two.published.largest)
    for name, metric in one.metrics.items():
        if metric.value is None:
            assert two.metrics[name].value is None, name
        else:
            assert two.metrics[name].value == pytest.approx(metric.value, rel=1e-9, abs=1e-12), name


@given(seed=seeds)
def test_a_rotation_of_the_stream_changes_no_track(seed):
    h, delta = gaussian(seed, 160, 12), gaussian(seed + 1, 160, 12)
    turn = torch.linalg.qr(gaussian(seed + 2, 12, 12)).Q
    first = torch.arange(160) % 40 == 0
    folds = [slice(i, i + 40) for i in range(0, 160, 40)]
    options = dict(first=first, large=torch.zeros(160, dtype=torch.bool), folds=folds, permuted=False)
    a, b = linearity(h, delta, **options), linearity(h @ turn, delta @ turn, **options)
    options = dict(first=first, runs=pieces([40] * 4), groups=folds, dimensions=12, largest=1.0)
    states = [reduce_state(x, **options) for x in (h, h @ turn)]
    for way in WAYS:
        torch.testing.assert_close(a[way].held_out, b[way].held_out, rtol=0, atol=1e-10)
        torch.testing.assert_close(states[0].entropy[way], states[1].entropy[way], rtol=1e-10, atol=0)
        torch.testing.assert_close(states[0].cosine[way], states[1].cosine[way], rtol=0, atol=1e-12)


def test_sums_taken_apart_by_kind_of_token_are_those_of_a_regression_without_them():
    """Massive tokens are a million times as long: taken off a total again, they would leave rounding."""
    h, delta = gaussian(7, 300, 8), gaussian(8, 300, 8)
    delta = delta + h @ gaussian(9, 8, 8)
    first = torch.arange(300) % 50 == 0
    h[first] *= 1e6
    folds = [slice(i, i + 60) for i in range(0, 300, 60)]
    found = linearity(h, delta, first=first, large=massive(h.norm(dim=1)), folds=folds, permuted=False)
    kept = masks(first, massive(h.norm(dim=1)))
    for way in ("without_first", "without_massive"):
        mask = kept[way].numpy()
        edges = np.cumsum([0] + [int(mask[fold].sum()) for fold in folds])
        parts = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        expected = regression(h.numpy()[mask], delta.numpy()[mask], parts, 8)
        assert float(found[way].held_out[0]) == pytest.approx(expected, abs=1e-9), way


@pytest.mark.parametrize("energy", [1.0, 1e-3, 0.0])
def test_maps_are_those_of_least_squares_also_where_a_direction_has_no_energy(energy):
    """The last of eight columns has this energy; where it has none, the map of least length is numpy's: 0 there."""
    x, y = gaussian(11, 60, 8), gaussian(12, 60, 5)
    x[:, -1] *= energy
    expected = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=1e-10)[0]
    # The condition of the squares, 1e6 in the middle case, times eps.
    np.testing.assert_allclose(solve(x.mT @ x, x.mT @ y).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_medians_and_largest_of_kept_tokens_are_numpys_and_undefined_of_none():
    rng = np.random.default_rng(6)
    values, mask = torch.from_numpy(rng.standard_normal(41)), torch.from_numpy(rng.random(41) < 0.6)
    without = torch.from_numpy(rng.random((5, 41)) < 0.7)
    without[0], without[4] = True, ~mask
    found = middles(values, {"all": torch.ones(41, dtype=torch.bool), "without_first": mask}, without)
    for way, kept in (("all", without), ("without_first", without & mask)):
        some = kept if way == "all" else kept[:4]
        middle, largest = found[way]
        assert middle[: len(some)].tolist() == [np.median(values[row]) for row in some]
        assert largest[: len(some)].tolist() == [float(values[row].max()) for row in some]
    assert np.isnan(found["without_first"][0][4]) and np.isnan(found["without_first"][1][4])


def test_mean_cosines_are_those_of_all_pairs_that_count_with_and_without_each_group():
    h = gaussian(13, 30, 6)
    h[7] = 0  # a state of length zero has no direction
    first, groups = torch.arange(30) % 10 == 0, [slice(0, 10), slice(10, 20), slice(20, 30)]
    state = reduce_state(h, first=first, runs=[], groups=groups, dimensions=6, largest=1.0)
    for way, counts in (("all", torch.ones(30, dtype=torch.bool)), ("without_first", ~first)):
        counts = counts & (torch.arange(30) != 7)
        expected = [mean_pair_cosine(h[counts].numpy())]
        for part in groups:
            left = counts.clone()
            left[part] = False
            expected.append(mean_pair_cosine(h[left].numpy()))
        assert state.cosine[way].tolist() == pytest.approx(expected, abs=1e-13), way
    kept = h[~first]
    assert state.cosine_centred["without_first"] == pytest.approx(mean_pair_cosine((kept - kept.mean(0)).numpy()))


@pytest.mark.parametrize(
    "name", ["linear_r2", "valley_ratio_without_massive", "norm_growth_without_first", "half_ratio"]
)
def test_a_metric_that_is_asked_for_alone_is_the_same_as_among_all(folders, name):
    states = gaussian(14, 13, 160, 8).cumsum(0)
    with few_draws():
        every, alone = (record_of(states, (20,) * 8, folders, asked=a) for a in (None, frozenset({name})))
    assert alone.metrics[name] == every.metrics[name] and len(alone.metrics) < 10 < len(every.metrics)


def test_angles_are_exact_where_an_arc_cosine_is_not():
    u = torch.tensor([[1.0, 0.0, 0.0]] * 4, dtype=torch.float64)
    small = [0.0, 1e-9, math.pi / 3, math.pi - 1e-9]
    v = torch.tensor([[math.cos(a), math.sin(a), 0.0] for a in small], dtype=torch.float64)
    # −cos(1e-9) rounds to −1, and the angle is in the sine alone.
    assert angles(u, v).tolist() == pytest.approx([a / math.pi for a in small], rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(("law", "form"), [
    (lambda depth: 3 * 1.045**depth, "exponential"),
    (lambda depth: np.sqrt(4 + 9 * depth), "root"),
    (lambda depth: 2 + 0.7 * depth, "linear"),
])  # fmt: skip
def test_a_planted_law_of_growth_takes_all_the_weight(law, form):
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(25)
    found = weights(law(np.arange(25.0)) * noise)
    assert found[form] > 0.99 and sum(found.values()) == pytest.approx(1)


def test_unrelated_writes_of_one_length_fall_by_themselves_and_are_told_from_a_quiet_half():
    """Simulated: 24 writes of length 1 in 2,000 dimensions onto a state of length 2."""
    rng = np.random.default_rng(1)
    h = rng.standard_normal((50, 2000))
    h *= 2 / np.linalg.norm(h, axis=1, keepdims=True)
    steps, writes = [], []
    for _ in range(24):
        delta = rng.standard_normal(h.shape)
        delta /= np.linalg.norm(delta, axis=1, keepdims=True)
        steps.append(np.median(1 / np.linalg.norm(h, axis=1)))
        writes.append(1.0)
        h = h + delta
    expected = unrelated_steps(2.0, np.array(writes))
    assert steps == pytest.approx(expected, rel=0.01)  # cosines of 2,000 dimensions: 1/√2000 over 50 tokens
    assert half_ratio(np.array(steps)) == pytest.approx(half_ratio(expected), rel=0.01)
    none = np.empty((0, 24))
    options = dict(first=2.0, writes=np.array(writes), seed=0, tests=False)
    alike = step_metrics(np.array(steps), none, **options)["half_ratio_over_unrelated"]
    quiet = np.where(np.arange(24) < 12, steps, np.array(steps) / 10)
    silent = step_metrics(quiet, none, **options)["half_ratio"]
    assert alike.value == pytest.approx(1, rel=0.01) and silent.value < 0.1 and silent.interval[1] < 0.5


def test_least_distances_know_their_half():
    track = np.array([[0.3, 0.2, 0.25, 0.1, 0.3]])
    assert later_advantage(track)[0] == pytest.approx(0.1)
    assert later_advantage(track[:, ::-1])[0] == pytest.approx(-0.1)
    assert valley(np.array([[0.8, 0.8, 0.8, 0.8, 0.8, 0.8]]))[0] == 1.0


def test_sinks_that_follow_massive_tokens_are_told_from_drifting_ones():
    rng = np.random.default_rng(2)
    ratio = np.exp(np.cumsum(rng.standard_normal(24)))
    together = sink_metrics(ratio, (ratio / (1 + ratio)).tolist(), missing="", seed=0)
    assert together["massive_sink_rho"].value == pytest.approx(1) and together["massive_sink_p"].value <= 0.05
    expected = stats.spearmanr(ratio, ratio[::-1]).statistic
    apart = sink_metrics(ratio, ratio[::-1].tolist(), missing="", seed=0)
    assert apart["massive_sink_rho"].value == pytest.approx(expected)
    drift = np.arange(24.0)
    lines = sink_metrics(np.exp(drift), drift.tolist(), missing="", seed=0)
    assert lines["massive_sink_rho"].value == pytest.approx(1) and lines["massive_sink_p"].value > 0.9


def test_the_weights_of_tracks_fitted_at_once_are_those_of_each_alone():
    rng = np.random.default_rng(5)
    tracks = np.exp(0.05 * np.arange(12) + 0.1 * rng.standard_normal((4, 12)))
    tracks[2, 3] = np.nan
    assert weights_of(tracks) == [weights(track) for track in tracks]  # by the same starts and steps
    assert weights_of(tracks)[2] == {} and weights_of(tracks[:, :7]) == [{}] * 4


def test_the_p_of_several_tracks_at_once_is_that_of_each_rearrangement_by_itself():
    rng = np.random.default_rng(4)
    x, tracks = rng.standard_normal(9), np.stack([*rng.standard_normal((3, 9)), np.arange(9.0)])

    def off_its_line(y: np.ndarray) -> np.ndarray:
        return y - np.polynomial.Polynomial.fit(np.arange(9), y, 1)(np.arange(9))

    for y, p in zip(tracks[:3], shift_p(x, tracks), strict=False):
        a, b = off_its_line(x), off_its_line(y)
        own = stats.pearsonr(a, b).statistic
        null = [stats.pearsonr(a, b[order]).statistic for order in arrangements(9)]
        assert p == (1 + sum(r >= own - 1e-12 for r in null)) / (1 + len(null))
    assert shift_p(x, tracks)[3] == 1  # of a line over depth nothing is left


def test_on_a_plateau_of_massive_tokens_a_constant_sink_follows_nothing():
    rng = np.random.default_rng(3)
    ratio = np.concatenate([np.full(4, 2.0), rng.uniform(50, 500, 20)])
    sink = np.concatenate([np.full(4, 0.1), rng.uniform(0.6, 0.61, 20)])
    found = sink_metrics(ratio, sink.tolist(), missing="", seed=0)
    assert found["plateau_rho"].n["layers"] == 20
    assert found["plateau_rho"].value == pytest.approx(abs(stats.spearmanr(ratio[4:], sink[4:]).statistic))
    without = sink_metrics(np.full(24, 2.0) + np.arange(24) / 100, sink.tolist(), missing="", seed=0)
    assert not without["plateau_rho"].applies


def test_without_attention_statistics_the_sinks_alone_are_missing(folders):
    states = gaussian(10, 5, 120, 16)
    record = record_of(states, (40,) * 3, folders)
    assert record.metrics["massive_sink_rho"].value is None and not record.metrics["massive_sink_rho"].applies
    assert record.metrics["massive_ratio"].value is not None
    assert sink_shares({"dynamic": None}) is None


def test_a_window_of_layers_leaves_the_last_state_out(folders):
    settings = Settings(device="cpu", layers=range(0, 5))
    found = records_of(open_checkpoint(str(folders["llama"])), text(), settings, ["residual_stream"])
    record = found["residual_stream"]
    assert record["num_layers"] == 5 and len(record["ways"]["all"]["norm"]) == 5 == len(record["ways"]["all"]["step"])
    assert unexplained_nulls(record) == []


def test_the_same_states_in_float32_give_the_same_words(folders):
    one, other = (measured(folders["llama"], dtype) for dtype in ("float64", "float32"))
    for way in WAYS:
        assert other["ways"][way]["step"] == pytest.approx(one["ways"][way]["step"], rel=1e-4)  # a float32 pass


def test_nothing_with_a_token_and_a_hidden_axis_outlives_its_layer(folders):
    fed = probe(open_checkpoint(str(folders["llama"])))
    run(open_checkpoint(str(folders["llama"])), text(), [fed])
    assert fed.failure is None and len(fed.states) == LAYERS + 1
    kept = [value for state in fed.states.values() for value in (state.norms, *state.entropy.values())]
    assert all(value.ndim == 1 for value in kept) and not fed._kept and fed._last is None


def test_a_rewritten_checkpoint_with_silent_layers_is_seen_silent(folders, tmp_path):
    """End to end: what writes is set to zero in the model's own files."""
    folder = tmp_path / "silent"
    folder.mkdir()
    for path in folders["llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    record = measured(folder)
    assert record["ways"]["all"]["step"] == [0.0] * LAYERS and record["metrics"]["linear_r2"]["value"] is None
    assert unexplained_nulls(record) == []

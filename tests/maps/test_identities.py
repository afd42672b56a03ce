"""Numbers of the model stay on exact copies of it, and the comparison sees those that do not."""

import dataclasses

import pytest
import torch

from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.run import suite
from analyses.weights.checkpoint import open_checkpoint
from checks.maps import identities
from checks.maps.heads import MIX_VALUES
from checks.maps.identities import difference, invariance_identities, limits
from checks.maps.orbit import orbit
from checks.maps.remeasured import read
from checks.maps.untied import untied
from tests.float64_logits import float64_model, logits
from tests.tiny import tiny_checkpoint

SETTINGS = Settings(device="cpu", spectra="none")
TEXT = dataclasses.replace(load_calibration(), texts=load_calibration().texts[:8])
WEIGHTS = ("head_grams.metrics.all_distance_similarity", "null_residual.metrics.worst_median_abs_cos_matched")
FORWARD = ("schedule_fit.metrics.measured_temperature_spearman", "delta_svd.metrics.median_top1_frac_centred")
STORED = ("head_grams.metrics.median_abs_similarity_matched", "head_geometry.metrics.within_r_signed")
ANALYSES = ["null_residual", "head_grams", "attention_stats", "schedule_fit", "head_geometry", "delta_svd"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name):
        if name not in made:
            sizes = dict(layers=5, tie_word_embeddings=True) if name == "qwen3" else dict(layers=5)
            checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("m"), name, **sizes)))
            made[name] = checkpoint, suite.records_of(checkpoint, TEXT, SETTINGS, ANALYSES)
        return made[name]

    return build


@pytest.mark.parametrize("name", ["qwen3", "gpt_neox"])
def test_invariant_numbers_are_the_same_on_every_exact_copy(stage, name):
    checkpoint, found = stage(name)
    paths = WEIGHTS + FORWARD
    by_path = invariance_identities(checkpoint, TEXT, SETTINGS, found, paths)
    allowed = limits(checkpoint, paths)
    assert set(by_path) == set(paths)
    for path, by_map in by_path.items():
        assert set(by_map) >= {"scramble", "scramble again", "ramp of all scales", "value mixing", "stream rotation"}
        assert all(moved is not None and moved <= allowed[path][m] for m, moved in by_map.items()), (path, by_map)


def test_only_norms_with_an_eps_widen_a_limit_and_only_of_what_needs_a_pass(stage):
    for name, wide in (("qwen3", {"scramble", "scramble again", "ramp of all scales"}), ("gpt_neox", set())):
        of_weights, of_pass = limits(stage(name)[0], (WEIGHTS[0], FORWARD[0])).values()
        assert set(of_weights.values()) == {identities.SAME}
        assert {m for m, allowed in of_pass.items() if allowed > identities.SAME} == wide


def test_a_number_that_the_table_wrongly_calls_invariant_is_found(stage, monkeypatch):
    checkpoint, found = stage("qwen3")
    (path, _) = STORED
    assert invariance_identities(checkpoint, TEXT, SETTINGS, found, [path])[path].keys() == {"value mixing"}
    monkeypatch.setattr(identities.invariance, "moved_by", lambda path, checkpoint: frozenset())
    wrong = invariance_identities(checkpoint, TEXT, SETTINGS, found, [path])[path]
    assert wrong["scramble"] > 1e-3 and wrong["stream rotation"] > 1e-3


def test_a_map_that_is_not_exact_is_found(stage, monkeypatch):
    checkpoint, found = stage("gpt_neox")
    half = dataclasses.replace(
        MIX_VALUES, change=lambda t, role, v: v if role.part == "o_proj" else MIX_VALUES.change(t, role, v)
    )
    monkeypatch.setattr(identities, "CHANGES", (("half", half, 0),))
    (path,) = FORWARD[1:]
    assert invariance_identities(checkpoint, TEXT, SETTINGS, found, [path])[path]["half"] > 1e-3


def test_a_number_that_disappears_is_no_number_and_small_ones_are_compared_by_their_difference():
    assert difference(0.5, None) is None and difference(None, 0.5) is None
    assert difference(0.5, 0.5 + 1e-7) == pytest.approx(2e-7)
    assert difference(0.0, 1e-9) == pytest.approx(1e-6)


def test_a_statistic_without_a_number_is_left_out(stage):
    checkpoint, found = stage("qwen3")
    assert invariance_identities(checkpoint, TEXT, SETTINGS, found, ["head_grams.metrics.unheard_of"]) == {}


def test_a_number_that_a_quarter_of_the_text_does_not_have_is_left_out_and_not_called_moved(stage):
    """Sinks are counted in prompts of 64 tokens: here the whole text has one, and every fourth prompt is short."""
    checkpoint, found = stage("qwen3")
    path = "attention_stats.metrics.sink_heads"
    short = dataclasses.replace(TEXT, texts=("short", "x" * 70))
    assert read(found, path) is not None
    assert invariance_identities(checkpoint, short, SETTINGS, found, [path]) == {}


def test_an_untied_copy_has_the_same_logits_and_a_head_of_its_own(stage):
    checkpoint, _ = stage("qwen3")
    copy = untied(checkpoint)
    assert torch.equal(copy.tensor("lm_head.weight"), checkpoint.tensor("model.embed_tokens.weight"))
    model = float64_model(checkpoint.folder)
    before = logits(model)
    states = {name: copy.tensor(name) for name in copy.files}
    head = states["lm_head.weight"].double()
    assert torch.equal(model.lm_head.weight, head) and torch.isfinite(before).all()
    assert untied(stage("gpt_neox")[0]) is stage("gpt_neox")[0]


def test_an_orbit_holds_the_stored_number_and_its_witness_and_invariant_numbers_have_none(stage):
    checkpoint, found = stage("qwen3")
    orbits = orbit(checkpoint, TEXT, SETTINGS, found, (*STORED, WEIGHTS[0]))
    assert set(orbits) == set(STORED)
    for path, one in orbits.items():
        assert one.value == read(found, path)
        assert one.low <= min(one.value, one.at_witness) and one.high >= max(one.value, one.at_witness)
        assert one.at_witness in (one.low, one.high)
    assert orbits[STORED[0]].high > 0.99  # one loud channel makes all heads' stored metrics alike
    assert "one channel" in orbits[STORED[0]].witness


def test_a_ramp_makes_one_mode_of_all_stored_scales(stage):
    (path,) = ["null_residual.metrics.first_mode_standardised"]
    one = orbit(stage("gpt_neox")[0], TEXT, SETTINGS, stage("gpt_neox")[1], [path])[path]
    assert one.high > one.value and one.high > 0.85

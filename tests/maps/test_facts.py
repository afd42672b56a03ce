"""What is read off an architecture about its maps, form by form."""

import pytest
import torch

from analyses.numerics import spectra
from analyses.weights.checkpoint import open_checkpoint
from checks.maps import catalogue, invariance, stream
from checks.maps.facts import stream_symmetry
from checks.maps.gains import single_channel
from tests.float64_logits import float64_model, logits, moved
from tests.tiny import TINY, tiny_checkpoint

SYMMETRIES = {
    "rotations": {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral", "phi3", "granite"},
    "rotations that fix 1": {
        *("olmo", "stablelm", "stablelm, parallel", "phi", "phi, q/k norms", "gptj", "gpt_neox"),
        *("gpt_neox, sequential", *(name for name in TINY if name.startswith("falcon"))),
    },
    "signed permutations": {"gemma", "gemma2", "gemma3", "olmo2", "smollm3"},
    "permutations": {"gpt2", "opt", "opt, post-norm", "bloom", "bert", "roberta"},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name):
        if name not in made:
            folder = tiny_checkpoint(tmp_path_factory.mktemp("facts"), name, tokenizer=False, layers=4)
            made[name] = open_checkpoint(str(folder))
        return made[name]

    return build


@pytest.mark.parametrize("name", TINY)
def test_the_symmetry_of_every_forms_stream_is_the_one_that_the_maps_have(stage, name):
    """Rotations can be applied where the table says rotations, and nowhere else."""
    checkpoint = stage(name)
    symmetry = stream_symmetry(checkpoint)
    assert name in SYMMETRIES[symmetry.group]
    assert symmetry.channels_are_privileged == (symmetry.group in ("permutations", "signed permutations"))
    assert (catalogue.ROTATE_STREAM.undefined(checkpoint) is None) == (not symmetry.channels_are_privileged)
    assert catalogue.PERMUTE_STREAM.undefined(checkpoint) is None


def test_a_norm_behind_a_branch_is_the_reason_where_there_is_one(stage):
    for name in ("gemma2", "gemma3", "olmo2"):
        assert "behind the branches" in stream_symmetry(stage(name)).why
    assert "is the embedding" in stream_symmetry(stage("gemma")).why


@pytest.mark.parametrize("name", TINY)
def test_a_map_that_an_architecture_has_is_defined_for_its_random_weights(stage, name):
    """Save plane rotation under q/k norms, whose random gains match in no plane, and rotation of a tied stream."""
    checkpoint = stage(name)
    listed = set(invariance.known_maps(checkpoint))
    defined = {change.name for change in catalogue.MAPS if change.undefined(checkpoint) is None}
    assert defined <= listed
    assert listed - defined <= {"plane rotation", "stream rotation"}
    assert listed


@pytest.mark.parametrize("fixes_one", [False, True])
def test_the_drawn_rotation_is_orthogonal_and_fixes_the_ones_where_it_must(fixes_one):
    rotation = stream._rotation(3, 24, fixes_one)
    ones = torch.ones(24, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(24, dtype=torch.float64), rtol=0, atol=1e-14)
    far = float((rotation @ ones - ones).abs().max())
    assert far <= 1e-14 if fixes_one else far > 0.1
    # A reflection may fix one more direction, by parity.
    assert torch.linalg.matrix_rank(rotation - torch.eye(24, dtype=torch.float64), tol=1e-6) >= 23 - fixes_one


def test_a_rotation_that_moves_the_ones_is_seen_by_a_layer_norm(stage):
    """What the fixed vector is for: a Haar rotation of the folded stream moves a LayerNorm model's logits."""
    checkpoint = catalogue.FOLD_GAINS.apply(stage("gpt_neox"), 0)
    before = logits(float64_model(checkpoint.folder, checkpoint))
    haar = spectra.haar(32, 32, torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_rotation", lambda seed, side, fixes_one: haar)
        turned = stream.ROTATE_FOLDED_STREAM.apply(checkpoint, 0)
        assert moved(logits(float64_model(checkpoint.folder, turned)), before) > 1e-2


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("exponent", [-12, 12])
def test_one_channel_of_a_gain_may_have_any_size(stage, name, exponent):
    checkpoint = stage(name)
    change = single_channel("input_ln", exponent=exponent)
    twin = change.apply(checkpoint, 1)
    for layer in range(4):
        ratio = twin.weight("input_ln", layer) / checkpoint.weight("input_ln", layer)
        assert sorted(ratio.log2().round(decimals=9).tolist())[0 if exponent < 0 else -1] == exponent
        assert (ratio != 1).sum() == 1
    before = logits(float64_model(checkpoint.folder))
    # Rounding of a channel 2^12 times larger or smaller than its neighbours.
    assert moved(logits(float64_model(checkpoint.folder, twin)), before) <= 1e-9

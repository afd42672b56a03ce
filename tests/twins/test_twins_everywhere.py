"""Twins of every family of the architecture table: what is fused is taken apart, changed role by role, put back."""

import math

import pytest
import scipy.stats
import torch
import transformers
from safetensors.torch import load_file, save_file

from analyses.forward import instrumented
from analyses.forward.calibration import Calibration
from analyses.forward.probe import Probe
from analyses.weights.architectures import MATRICES
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.twins.planted import adjacent_mixture, common_direction, query_key_mixture, truncated_residual
from checks.twins.roles import roles_of
from checks.twins.twins import INITIALISED, SHUFFLED, save
from tests.tiny import TINY, tiny_checkpoint

ROUNDING = 1e-12  # of products of a few hundred float64 entries, relative to their norms
TEXT = Calibration(name="two lines", texts=("Down to the sea in ships.", "The deep."), sha256="0" * 64, stream=False)
KINDS = (SHUFFLED, INITIALISED, adjacent_mixture(), query_key_mixture(), common_direction(), truncated_residual())


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = {}

    def build(name: str) -> Checkpoint:
        if name not in made:
            folder = tiny_checkpoint(tmp_path_factory.mktemp("everywhere"), name)
            made[name] = open_checkpoint(str(folder))
        return made[name]

    return build


def matrices(checkpoint: Checkpoint, family: str, layer: int) -> list[torch.Tensor]:
    """The family's matrix, or all its experts'."""
    weight = checkpoint.weight(family, layer)
    return list(weight) if checkpoint.experts(family) else [weight]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


@pytest.mark.parametrize("name", TINY)
def test_every_kind_of_twin_can_be_made_of_every_family_and_keeps_names_shapes_and_seeds(stage, name):
    checkpoint = stage(name)
    for kind in KINDS:
        one, again = kind.apply(checkpoint, 3), kind.apply(checkpoint, 3)
        tensors = {n: one.tensor(n) for n in sorted(checkpoint.files)}
        backwards = {n: again.tensor(n) for n in sorted(checkpoint.files, reverse=True)}
        assert all(torch.equal(tensors[n], backwards[n]) for n in tensors), kind.name
        assert all(tensors[n].shape == checkpoint.headers[n].shape for n in tensors), kind.name
        assert any(not torch.equal(tensors[n].double(), checkpoint.tensor(n).double()) for n in tensors), kind.name


@pytest.mark.parametrize("name", TINY)
def test_shuffling_stays_within_each_role_and_expert(stage, name):
    checkpoint = stage(name)
    twin = SHUFFLED.apply(checkpoint, 0)
    for family in checkpoint.families:
        for before, after in zip(matrices(checkpoint, family, 1), matrices(twin, family, 1), strict=True):
            assert torch.equal(before.flatten().sort().values, after.flatten().sort().values), family
            assert not torch.equal(before, after), family


@pytest.mark.parametrize("name", TINY)
def test_a_shuffled_twin_runs_like_the_same_weights_on_disk(stage, name, tmp_path):
    class Last(Probe):
        def layer(self, layer, states):
            self.output = states.output

    twin = SHUFFLED.apply(stage(name), 0)
    seen = []
    for source in (twin, open_checkpoint(str(save(twin, tmp_path))), stage(name)):
        probe = Last()
        instrumented.run(source, TEXT, [probe])
        assert probe.failure is None
        seen.append(probe.output)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("name", TINY)
def test_plants_have_their_size_in_every_role_and_expert(stage, name):
    checkpoint = stage(name)
    mixed, tied, common = (kind.apply(checkpoint, 0) for kind in (adjacent_mixture(), query_key_mixture(), KINDS[4]))
    for family in (f for f in MATRICES if f in checkpoint.families):
        for a, b in zip(matrices(mixed, family, 0), matrices(mixed, family, 1), strict=True):
            assert cosine(a, b) == pytest.approx(0.5, abs=ROUNDING), family
    keys = checkpoint.head_blocks("k_proj", 1)
    for head, query in enumerate(tied.head_blocks("q_proj", 1)):
        own = keys[head * checkpoint.shape.kv_heads // checkpoint.shape.heads]
        assert cosine(query, own) == pytest.approx(0.4, abs=ROUNDING), head
    planted = []
    for family in ("o_proj", "down_proj"):
        for before, after in zip(matrices(checkpoint, family, 1), matrices(common, family, 1), strict=True):
            u, sigma, v = torch.linalg.svd(after - before)
            assert sigma[1] <= ROUNDING * sigma[0], family
            factor = torch.linalg.lstsq(before.T, sigma[0] * v[0], driver="gelsd").solution  # √hidden·O, of O W alone
            assert sigma[0] * v[0] == pytest.approx(before.T @ factor, abs=1e-9 * float(sigma[0])), family
            size = float(factor.norm()) / math.sqrt(len(u))
            if torch.linalg.matrix_rank(before) == len(before):  # else only O's part in what W writes is seen
                assert size == pytest.approx(1, rel=1e-6), family  # the least squares' condition is below 1e6
            assert 0 < size < 1 + 1e-6, family
            planted.append(u[:, 0])
    assert all(abs(cosine(u, planted[0])) == pytest.approx(1, abs=ROUNDING) for u in planted)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_in_one_tensor_or_in_many_make_the_same_twin(stage, name, tmp_path):
    checkpoint = stage(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder)
    model.save_pretrained(tmp_path, save_original_format=False)
    stacked = open_checkpoint(str(tmp_path))
    for kind in KINDS:
        one, other = kind.apply(checkpoint, 2), kind.apply(stacked, 2)
        for family in checkpoint.families:
            assert torch.equal(one.weight(family, 1), other.weight(family, 1)), (kind.name, family)
        for expert in range(4):
            assert torch.equal(one.weight("up_proj", 1, expert=expert), other.weight("up_proj", 1, expert=expert))


def test_a_fused_tensor_and_its_parts_stored_apart_make_the_same_twin(stage, tmp_path):
    fused = stage("phi3")
    llama = stage("llama")
    tensors = load_file(llama.folder / "model.safetensors")
    for layer in range(3):
        for family in llama.families:
            (name,) = llama.names(family, layer)
            tensors[name] = fused.weight(family, layer).float().contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((llama.folder / "config.json").read_text())
    apart = open_checkpoint(str(tmp_path))
    for kind in KINDS:
        one, other = kind.apply(fused, 2), kind.apply(apart, 2)
        for family in apart.families:
            assert torch.equal(one.weight(family, 2), other.weight(family, 2)), (kind.name, family)


@pytest.mark.parametrize("name", TINY)
def test_a_fresh_initialisation_is_distributed_like_that_of_the_familys_own_class(name, tmp_path):
    folder = tiny_checkpoint(tmp_path / "base", name, tokenizer=False, pad_token_id=3)
    twin = INITIALISED.apply(open_checkpoint(str(folder)), 0)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForMaskedLM if twin.architecture.encoder else transformers.AutoModelForCausalLM
    kind.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "library")
    library = open_checkpoint(str(tmp_path / "library"))
    assert set(twin.files) == set(library.files)
    for tensor in twin.files:
        for role, ours, theirs in zip(
            roles_of(twin, tensor), *(parts(c, tensor) for c in (twin, library)), strict=True
        ):
            if ours.ndim == 1:  # gains and biases: no randomness, so exactly alike
                assert torch.equal(ours, theirs), (tensor, role)
                continue
            assert torch.equal((ours == 0).all(1), (theirs == 0).all(1)), tensor  # the padding token's row
            drawn = theirs != 0
            # Five standard errors of the difference of two normal samples' logarithmic standard deviations.
            ratio = math.log(float(ours[drawn].std() / theirs[drawn].std()))
            assert abs(ratio) < 5 / math.sqrt(int(drawn.sum())), (tensor, role, ratio)
            # Kolmogorov–Smirnov between the two samples; some 2,000 are looked at in all.
            assert scipy.stats.ks_2samp(ours[drawn].numpy(), theirs[drawn].numpy()).pvalue > 1e-7, (tensor, role)


def parts(checkpoint: Checkpoint, name: str) -> tuple[torch.Tensor, ...]:
    """What a tensor holds, role by role."""
    role = roles_of(checkpoint, name)[0]
    stored = checkpoint.tensor(name)
    return checkpoint.places[role.part].layout.split(stored, checkpoint.shape) if role.layer is not None else (stored,)

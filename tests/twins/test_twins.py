"""A twin keeps what it says it keeps, loses the rest, and reads the same each time."""

import dataclasses
import hashlib
import math
import os
import subprocess
import sys

import pytest
import scipy.stats
import torch
import transformers
from safetensors.torch import load_file, save_file

from analyses.forward import instrumented
from analyses.forward.calibration import Calibration
from analyses.forward.loading import load
from analyses.forward.probe import Probe
from analyses.null_residual.pairs import Chance, Side, likeness, with_rank
from analyses.weights.architectures import MATRICES
from analyses.weights.checkpoint import open_checkpoint
from checks.twins.planted import (
    _largest,
    _truncate_difference,
    adjacent_mixture,
    common_direction,
    query_key_mixture,
    truncated_residual,
)
from checks.twins.roles import roles_of
from checks.twins.twins import INITIALISED, SHUFFLED, save
from tests.tiny import MODEL_TYPES, tiny_checkpoint

PLANTED = (adjacent_mixture(), query_key_mixture(), common_direction(), truncated_residual())
ROUNDING = 1e-12  # of products of a few hundred float64 entries, relative to their norms
TEXT = Calibration(name="two lines", texts=("Down to the sea in ships.", "The deep."), sha256="0" * 64, stream=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("twins"), "qwen3", layers=4, attention_bias=True)
    return open_checkpoint(str(folder))


def same(a, b, names=None) -> bool:
    return all(torch.equal(a.tensor(name), b.tensor(name)) for name in names or a.files)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / torch.linalg.vector_norm(a) / torch.linalg.vector_norm(b))


def norm(a: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a))


# --- every twin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SHUFFLED, INITIALISED, *PLANTED], ids=lambda k: k.name)
def test_a_twin_depends_on_its_seed_only_and_not_on_the_order_of_reading(checkpoint, kind):
    one, again = kind.apply(checkpoint, 3), kind.apply(checkpoint, 3)
    forwards = {name: one.tensor(name) for name in sorted(checkpoint.files)}
    backwards = {name: again.tensor(name) for name in sorted(checkpoint.files, reverse=True)}
    assert all(torch.equal(forwards[name], backwards[name]) for name in forwards)
    assert not same(one, checkpoint)
    seeded = kind in (SHUFFLED, INITIALISED, PLANTED[2])
    assert same(one, kind.apply(checkpoint, 4)) != seeded


@pytest.mark.parametrize("kind", [SHUFFLED, *PLANTED], ids=lambda k: k.name)
def test_a_twin_runs_like_the_same_weights_on_disk(checkpoint, kind, tmp_path):
    class Last(Probe):
        def final(self, before, after):
            self.states = before, after

    twin = kind.apply(checkpoint, 0)
    on_disk = open_checkpoint(str(save(twin, tmp_path)))
    assert same(twin, on_disk) and twin.altered and not on_disk.altered
    seen = []
    for source in (twin, on_disk, checkpoint):
        probe = Last()
        instrumented.run(source, TEXT, [probe])
        seen.append(probe.states)
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0])


def test_a_checkpoint_without_the_base_models_prefix_makes_the_same_twin(tmp_path):
    folder = tiny_checkpoint(tmp_path / "with", "llama")
    bare = tiny_checkpoint(tmp_path / "without", "llama")
    tensors = load_file(bare / "model.safetensors")
    save_file({n.removeprefix("model."): t for n, t in tensors.items()}, bare / "model.safetensors", {"format": "pt"})
    one, other = (SHUFFLED.apply(open_checkpoint(str(f)), 2) for f in (folder, bare))
    settings = dict(dtype="float32", device="cpu", attention="eager", trust_remote_code=False)
    models = [load(twin, **settings) for twin in (one, other)]
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", [SHUFFLED, INITIALISED, *PLANTED], ids=lambda k: k.name)
def test_a_tensor_of_unknown_role_is_a_reason_not_to_make_a_twin(tmp_path, kind):
    folder = tiny_checkpoint(tmp_path, tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.layers.0.adapter": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(str(folder))
    assert "layers.0.adapter" in kind.undefined(checkpoint)
    with pytest.raises(ValueError, match="adapter"):
        kind.apply(checkpoint, 0)


def test_stored_rotary_frequencies_are_no_parameter_and_pass_through(tmp_path):
    folder = tiny_checkpoint(tmp_path, "llama", tokenizer=False)
    name, frequencies = "model.layers.0.self_attn.rotary_emb.inv_freq", torch.tensor([1.0, 0.1, 0.01, 0.001])
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: frequencies}, folder / "model.safetensors", {"format": "pt"})
    for kind in (SHUFFLED, INITIALISED):
        assert torch.equal(kind.apply(open_checkpoint(str(folder)), 0).tensor(name), frequencies)


# --- shuffled -------------------------------------------------------------------------------------


def test_shuffling_keeps_every_tensors_entries_and_dtype(checkpoint):
    twin = SHUFFLED.apply(checkpoint, 0)
    for name in checkpoint.files:
        before, after = checkpoint.tensor(name), twin.tensor(name)
        assert after.dtype == before.dtype and after.shape == before.shape
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values), name
        assert not torch.equal(before, after), name


def test_two_tensors_of_one_shape_are_shuffled_differently(checkpoint):
    twin = SHUFFLED.apply(checkpoint, 0)

    before, after = (
        {(f, layer): t.weight(f, layer).flatten() for f in ("gate_proj", "up_proj") for layer in (0, 1)}
        for t in (checkpoint, twin)
    )
    orders = {tuple(after[k].argsort()[before[k].argsort().argsort()].tolist()) for k in before}
    assert len(orders) == 4


def test_a_twin_is_the_same_in_another_process(checkpoint):
    name = sorted(checkpoint.files)[5]
    script = (
        "import hashlib, sys\n"
        "from analyses.weights.checkpoint import open_checkpoint; from checks.twins.twins import SHUFFLED\n"
        "twin = SHUFFLED.apply(open_checkpoint(sys.argv[1]), 7)\n"
        "print(hashlib.sha256(twin.tensor(sys.argv[2]).numpy().tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(checkpoint.folder), name]
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    here = SHUFFLED.apply(checkpoint, 7).tensor(name).numpy().tobytes()
    assert ran.stdout.strip() == hashlib.sha256(here).hexdigest()


# --- initialised ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_fresh_initialisation_is_distributed_like_the_librarys_own(tmp_path, model_type):
    biases = {"llama": dict(attention_bias=True, mlp_bias=True), "qwen3": dict(attention_bias=True)}.get(model_type, {})
    folder = tiny_checkpoint(tmp_path, model_type, tokenizer=False, pad_token_id=3, **biases)
    twin = INITIALISED.apply(open_checkpoint(str(folder)), 0)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    library = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).state_dict()
    for name in twin.files:
        ours, theirs = twin.tensor(name), library[name]
        if theirs.ndim == 1:  # gains and biases: no randomness, so exactly alike
            assert torch.equal(ours, theirs), name
            continue
        assert torch.equal((ours == 0).all(1), (theirs == 0).all(1)), name  # the padding token's row
        drawn = theirs != 0
        for sample in (ours[drawn], theirs[drawn]):
            # Five standard errors of a normal sample's mean and standard deviation, at initializer_range 0.2.
            assert abs(float(sample.mean())) < 5 * 0.2 / math.sqrt(sample.numel()), name
            assert abs(float(sample.std()) - 0.2) < 5 * 0.2 / math.sqrt(2 * sample.numel()), name
        # Kolmogorov–Smirnov between the two samples; about 60 tensors in all are looked at.
        assert scipy.stats.ks_2samp(ours[drawn].numpy(), theirs[drawn].numpy()).pvalue > 1e-5, name


def test_a_fresh_initialisation_knows_nothing_of_the_weights(checkpoint):
    once, twice = INITIALISED.apply(checkpoint, 0), INITIALISED.apply(SHUFFLED.apply(checkpoint, 1), 0)
    assert same(once, twice)


# --- planted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cos", [0.5, 0.1])
def test_adjacent_layers_of_the_mixture_have_exactly_the_planted_cosine(checkpoint, cos):
    twin = adjacent_mixture(cos=cos).apply(checkpoint, 0)
    for family in MATRICES:
        layers = [twin.weight(family, layer) for layer in range(checkpoint.shape.layers)]
        for layer, (a, b) in enumerate(zip(layers, layers[1:], strict=False)):
            assert cosine(a, b) == pytest.approx(cos, abs=ROUNDING), (family, layer)
        for layer, matrix in enumerate(layers):
            assert norm(matrix) == pytest.approx(norm(checkpoint.weight(family, layer)), rel=ROUNDING)
        assert torch.equal(layers[0], checkpoint.weight(family, 0))


def test_reading_a_layer_alone_gives_the_same_bytes_as_reading_all_in_order(checkpoint):
    for kind in (adjacent_mixture(), truncated_residual()):
        in_order = kind.apply(checkpoint, 0)
        layers = [in_order.weight("up_proj", layer) for layer in range(4)]
        assert torch.equal(kind.apply(checkpoint, 0).weight("up_proj", 3), layers[3])
        assert torch.equal(in_order.weight("up_proj", 1), layers[1])  # one step back


def test_a_matrix_that_is_zero_or_already_parallel_is_left_alone(tmp_path):
    folder = tiny_checkpoint(tmp_path, tokenizer=False, layers=4)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.{}.mlp.up_proj.weight".format
    tensors[name(1)] = 2 * tensors[name(0)]
    tensors[name(2)] = 0 * tensors[name(0)]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(str(folder))
    for kind in (adjacent_mixture(), truncated_residual()):
        assert same(kind.apply(checkpoint, 0), checkpoint, [name(layer) for layer in range(4)])


def test_each_query_head_has_exactly_the_planted_cosine_with_its_key_head(checkpoint):
    twin = query_key_mixture(cos=0.4).apply(checkpoint, 0)
    for layer in range(checkpoint.shape.layers):
        before, queries = checkpoint.head_blocks("q_proj", layer), twin.head_blocks("q_proj", layer)
        keys = checkpoint.head_blocks("k_proj", layer)
        for head, query in enumerate(queries):
            assert cosine(query, keys[head * 2 // 4]) == pytest.approx(0.4, abs=ROUNDING)
            assert norm(query) == pytest.approx(norm(before[head]), rel=ROUNDING)
    assert same(twin, checkpoint, [n for n in checkpoint.files if "q_proj.weight" not in n])


def test_the_planted_share_of_negative_curvature_is_below_a_fifth():
    """For unrelated queries and keys of equal norm in a wide space: (1 − 0.4)²/(2 + 2·0.4²) = 0.155."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.linalg.qr(torch.randn(400, 16, generator=generator, dtype=torch.float64)).Q.mT.split(8)
    mixed = 0.4 * k + math.sqrt(1 - 0.4**2) * q
    eigenvalues = torch.linalg.eigvalsh(k.mT @ mixed + mixed.mT @ k)
    share = float(eigenvalues.clamp(max=0).square().sum() / eigenvalues.square().sum())
    assert share == pytest.approx(0.6**2 / (2 + 2 * 0.4**2), abs=ROUNDING)


@pytest.mark.parametrize(("size", "rank"), [(1.0, 1), (0.25, 8)])
def test_every_write_gains_the_same_directions_each_a_linear_image_of_itself(checkpoint, size, rank):
    twin = common_direction(size=size, rank=rank).apply(checkpoint, 0)
    hidden, spans, images = checkpoint.shape.hidden, [], {}
    for family in ("o_proj", "down_proj"):
        for layer in range(checkpoint.shape.layers):
            before = checkpoint.weight(family, layer)
            added = (twin.weight(family, layer) - before) @ torch.linalg.pinv(before) if family == "down_proj" else None
            u, sigma, _ = torch.linalg.svd(twin.weight(family, layer) - before)
            assert float(sigma[rank - 1]) > 1e-3 * float(sigma[0]) and float(sigma[rank]) < 1e-12 * float(sigma[0])
            spans.append(u[:, :rank] @ u[:, :rank].T)
            if added is not None:  # down_proj has more columns than rows, so that the image is all there is to find
                images[layer] = added
                found = torch.linalg.svdvals(added)[:rank]
                assert found.tolist() == pytest.approx([size * math.sqrt(hidden / rank)] * rank, rel=1e-9)
    assert all(norm(span - spans[0]) < 1e-9 for span in spans)  # float64, through a division by the least of sigma
    assert abs(cosine(images[0], images[1])) < 0.9  # each layer's own image
    others = [n for n in checkpoint.files if roles_of(twin, n)[0].part not in ("o_proj", "down_proj")]
    assert same(twin, checkpoint, others)
    assert same(twin, checkpoint, [n for n in checkpoint.files if n.endswith(".bias")])


@pytest.mark.parametrize("rank", [1, 8])
def test_what_is_planted_has_the_length_of_the_write_whatever_the_layer_reads(checkpoint, generator, rank):
    """On inputs to which the matrix answers five times as strongly as a random one of its norm would."""
    matrix = checkpoint.weight("o_proj", 0)
    inputs = torch.linalg.svd(matrix).Vh[:4].T @ torch.randn(4, 200, generator=generator, dtype=torch.float64)
    own = matrix @ inputs
    plant = common_direction(rank=rank)
    planted = [(plant.apply(checkpoint, seed).weight("o_proj", 0) - matrix) @ inputs for seed in range(200)]
    shares = torch.stack([p.square().sum() for p in planted]) / own.square().sum()
    # χ² with at least three degrees of freedom in each of `rank` rows: a standard error of √(2/3/200) = 0.06 at most.
    assert float(shares.mean()) == pytest.approx(1, abs=0.2)


def test_the_residual_of_the_truncated_twin_has_lost_half_its_modes(checkpoint):
    twin = truncated_residual().apply(checkpoint, 0)
    for family in MATRICES:
        half = math.ceil(min(checkpoint.shape.of(family)) / 2)
        layers = [twin.weight(family, layer) for layer in range(checkpoint.shape.layers)]
        for layer in range(1, len(layers)):
            assert norm(layers[layer]) == pytest.approx(norm(checkpoint.weight(family, layer)), rel=ROUNDING)
            a, b = (w / norm(w) for w in layers[layer - 1 : layer + 1])
            sigma = torch.linalg.svdvals(b - a)
            assert float(sigma[half]) < ROUNDING and float(sigma[half - 1]) > 1e-3, (family, layer)


@pytest.mark.parametrize(("shape", "expected"), [((64, 64), 0.75), ((32, 64), 0.61)])
def test_only_the_truncated_residual_is_below_its_haar_null(shape, expected, generator):
    """Truncating each layer's own spectrum is no plant: its null is made of the same spectra."""
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    chance = Chance(*shape, generator, device="cpu")

    def ratio(a, b):
        a, b = Side(a), Side(b)
        return with_rank(likeness(a, b), a, b, chance).eff_rank_ratio

    # Over 40 Gaussian pairs of these sides the first lay within 0.02 of its mean and the second within 0.04 of 1.
    assert ratio(a, _truncate_difference(a, b, keep=0.5)) == pytest.approx(expected, abs=0.05)
    assert ratio(_largest(a, 0.5), _largest(b, 0.5)) == pytest.approx(1, abs=0.05)


def test_a_planted_twin_states_its_size():
    assert [kind.size for kind in PLANTED] == [0.5, 0.4, 1.0, 0.5]
    assert all(dataclasses.is_dataclass(kind) and kind.preserves and kind.destroys for kind in PLANTED)


def test_a_twin_of_a_pickle_is_saved_as_safetensors(tmp_path):
    folder = tiny_checkpoint(tmp_path / "base", tokenizer=False)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    twin = SHUFFLED.apply(open_checkpoint(str(folder)), 0)
    saved = open_checkpoint(str(save(twin, tmp_path / "twin")))
    assert all(path.suffix == ".safetensors" for path in saved.files.values())
    assert all(torch.equal(saved.tensor(name), twin.tensor(name)) for name in twin.files)

"""Power-law tails: planted exponents, the published package, exact maps, and what has no tail."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given

from analyses import weight_spectra
from analyses.null_residual.grams import branches, layer_grams
from analyses.records import plain, unexplained_nulls
from analyses.weight_spectra.power_law import against_itself, fit, fits
from analyses.weights.checkpoint import open_checkpoint
from checks.maps.catalogue import SCRAMBLE
from checks.maps.gains import RESCALE_GAINS
from tests.strategies import seeds
from tests.tiny import tiny_checkpoint


def pareto(alpha: float, size: int, seed: int = 0) -> np.ndarray:
    """x ≥ 1 of density ∝ x^−α."""
    return (1 - np.random.default_rng(seed).random(size)) ** (-1 / (alpha - 1))


def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (1 - rng.random(500)) ** (-1 / 1.5)
    mixed = np.concatenate([rng.random(500), 1 + (1 - rng.random(300)) ** (-1 / 2)])
    lognormal = np.exp(rng.normal(size=400))
    return {"pareto": x, "mixed": mixed, "lognormal": lognormal,
            "student": np.linalg.eigvalsh(np.cov(rng.standard_t(3, size=(120, 300))))}  # fmt: skip


# powerlaw 2.0.0, Fit(x, parameter_ranges={"alpha": [1, 1000]}): alpha, xmin, D, sigma.
PACKAGE = {
    "pareto": (2.4351622392560293, 1.340037568760313, 0.02132412859389854, 0.07671264848187646),
    "mixed": (4.29594573881737, 2.086789467721093, 0.03010453398402607, 0.21187141657642433),
    "lognormal": (2.6113494263647605, 1.9226894174227165, 0.0697026409240904, 0.1464863114877055),
    "student": (5.8191382614224665, 5.204858475453471, 0.09393023996521616, 1.1055861408679382),
}


@pytest.mark.parametrize("name", PACKAGE)
def test_the_fit_is_the_published_packages(name):
    """Its digits, from the same bytes: sums in another order, 1e-13; of eigenvalues those of LAPACK's builds."""
    found = fit(samples()[name])
    numbers = found.alpha, found.x_min, found.distance, found.error
    assert numbers == pytest.approx(PACKAGE[name], rel=1e-9 if name == "student" else 1e-12)


@pytest.mark.filterwarnings("ignore")  # the package warns of its own attributes
def test_the_installed_package_gives_the_same():
    powerlaw = pytest.importorskip("powerlaw")
    for name, sample in samples().items():
        other = powerlaw.Fit(sample, verbose=False, parameter_ranges={"alpha": [1, 1000]})
        found = fit(sample)
        assert (found.alpha, found.x_min) == pytest.approx((float(other.alpha), float(other.xmin)), rel=1e-9), name


@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0])
def test_a_planted_exponent_is_found_within_its_interval_and_not_ruled_out(alpha):
    sample = pareto(alpha, 2000)
    law = fit(sample)
    p, (low, high) = against_itself(sample, law, seed=0)
    assert low < alpha < high and law.alpha == pytest.approx(alpha, abs=4 * law.error) and p > 0.1


def test_samples_that_are_no_power_law_are_ruled_out():
    sample = np.random.default_rng(1).random(800) + 1
    p, _ = against_itself(sample, fit(sample), seed=0)
    assert fit(sample).alpha > 4 or p < 0.1
    exponential = np.random.default_rng(2).exponential(size=3000) + 0.1
    assert fit(exponential).alpha > 3.5  # an exponential has no exponent: its tail keeps getting steeper


def test_scale_and_order_change_no_exponent():
    sample = pareto(2.5, 300)
    one, two = fit(sample), fit(1024 * sample[::-1])
    assert two.alpha == pytest.approx(one.alpha, rel=1e-12) and two.distance == pytest.approx(one.distance, abs=1e-12)
    assert two.x_min == pytest.approx(1024 * one.x_min)


@pytest.mark.parametrize("candidates", [None, 20])
def test_samples_fitted_together_have_the_laws_of_each_alone_whatever_their_lengths_and_equal_values(candidates):
    rng = np.random.default_rng(3)
    mixed = [pareto(2.5, size, size) for size in (40, 90, 40, 12, 90)]
    mixed += [rng.choice(mixed[0], 40), np.floor(mixed[1]), np.ones(40), np.r_[np.zeros(50), mixed[2]]]
    together = fits(mixed, candidates=candidates)
    assert together == [law for sample in mixed for law in fits([sample], candidates=candidates)]
    assert [law is None for law in together] == [False] * 3 + [True] + [False] * 3 + [True, False]
    assert together[-1] == together[2]
    if candidates is None:
        assert [together[i].alpha for i in (0, 5)] == pytest.approx([exponent(mixed[i]) for i in (0, 5)], rel=1e-12)


@given(seeds)
def test_the_nearest_law_is_found_though_most_distances_are_bounded_only(seed):
    rng = np.random.default_rng(seed)
    sample = pareto(2.0 + rng.random(), int(rng.integers(16, 120)), seed) * rng.choice([1.0, 3.0])
    sample[: rng.integers(10)] = np.median(sample)  # some equal values
    assert fit(sample).alpha == pytest.approx(exponent(sample), rel=1e-12)


def test_too_few_values_or_equal_ones_have_no_tail():
    assert fit(np.arange(1.0, 16.0)) is None and fit(np.ones(100)) is None and fit(np.zeros(50)) is None


def planted(folder, alpha: float):
    """A checkpoint whose up and down matrices have σ² from a Pareto law."""
    from checks.twins.twins import Twin

    def change(twin, role, value):
        if role.bias or role.part not in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
            return value
        u, sigma, vt = torch.linalg.svd(value.double(), full_matrices=False)
        return u * torch.from_numpy(pareto(alpha, len(sigma), role.layer)).sqrt().sort(descending=True).values @ vt

    twin = Twin(name="heavy", preserves="", destroys="", change=change)
    return twin.apply(open_checkpoint(str(folder)), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = dict(layers=4, hidden_size=64, num_attention_heads=4, intermediate_size=64)
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama", tokenizer=False, **sizes)


def test_planted_spectra_are_found_in_stored_matrices_and_random_ones_are_not(folder):
    heavy = weight_spectra.measure(planted(folder, 2.5), seed=0, device="cpu", folded=False)
    assert heavy.metrics["stored_alpha"].value == pytest.approx(2.5, abs=0.5)  # 64 values: (α − 1)/√64 each
    assert heavy.identities["energy"].value < 1e-12 and unexplained_nulls(plain(heavy)) == []
    assert not heavy.metrics["folded_alpha"].applies


def test_exponents_asked_for_alone_are_the_same_and_no_sample_is_made(folder):
    checkpoint = open_checkpoint(str(folder))
    whole = weight_spectra.measure(checkpoint, seed=0, device="cpu", stored=False)
    alone = weight_spectra.measure(checkpoint, seed=0, device="cpu", stored=False, samples=False)
    assert alone.metrics["folded_alpha_off"] == whole.metrics["folded_alpha_off"]
    assert alone.metrics["folded_plausible"].value is None and whole.metrics["folded_plausible"].value is not None
    assert unexplained_nulls(plain(alone)) == []


def test_exponents_of_what_layers_read_stay_under_exact_maps_and_stored_ones_move(folder):
    base = open_checkpoint(str(folder))
    before = weight_spectra.measure(base, seed=0, device="cpu")
    for change in (SCRAMBLE, RESCALE_GAINS):
        after = weight_spectra.measure(change.apply(base, 3), seed=0, device="cpu")
        assert after.metrics["folded_alpha"].value == pytest.approx(before.metrics["folded_alpha"].value, rel=1e-6)
    assert after.metrics["stored_alpha"].value != pytest.approx(before.metrics["stored_alpha"].value, rel=1e-3)


# --- the class's own weights ----------------------------------------------------------------------------------------

PARTS = {
    "gpt2": {"o_proj": "attn.c_proj", "up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj"},
    "gpt_neox": {"o_proj": "attention.dense", "up_proj": "mlp.dense_h_to_4h", "down_proj": "mlp.dense_4h_to_h"},
}
GATED = {f"{x}_proj": f"self_attn.{x}_proj" for x in "qkvo"} | {f"{x}_proj": f"mlp.{x}_proj" for x in ("gate", "up")}


def exponent(values: np.ndarray) -> float:
    """The published fit in so many words: of every beginning of a tail the likeliest law, and of these the nearest."""
    x, found = np.sort(values), []
    for start in x[:-1]:
        tail = x[x >= start]
        alpha = 1 + len(tail) / np.log(tail / start).sum()
        law = 1 - (tail / start) ** (1 - alpha)
        found.append((np.abs(law - np.arange(len(tail)) / len(tail)).max(), alpha))
    return min(found)[1]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "gemma2"])
def test_exponents_are_those_of_the_classes_own_matrices_and_of_the_grams_of_its_layers(tmp_path, name):
    folder = tiny_checkpoint(tmp_path, name, tokenizer=False, layers=3)
    checkpoint = open_checkpoint(str(folder))
    found = weight_spectra.measure(checkpoint, seed=0, device="cpu", samples=False)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder).base_model
    for layer, block in enumerate(getattr(base, "layers", None) or base.h):
        for family, part in PARTS.get(name, GATED).items():
            sigma = np.linalg.svd(block.get_submodule(part).weight.detach().double().numpy(), compute_uv=False)
            assert found.stored[family][layer].alpha == pytest.approx(exponent(sigma**2), rel=1e-9), (family, layer)
        for branch in branches(checkpoint):
            for gram_of, gram in layer_grams(checkpoint, branch, layer, device="cpu").grams.items():
                values = np.linalg.eigvalsh(gram.numpy())
                values = values[values > 1e-12 * values[-1]]
                assert found.folded[gram_of][layer].alpha == pytest.approx(exponent(values), rel=1e-6), gram_of

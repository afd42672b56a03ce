"""Cosines of what adjacent layers write on the same states: dense truths, planted layers, and whole models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from analyses.delta_svd import DeltaProbe, measure
from analyses.delta_svd.functional import cosines
from analyses.forward.calibration import Calibration
from analyses.forward.instrumented import run
from analyses.numerics.prompt_groups import groups
from analyses.weights.checkpoint import open_checkpoint
from tests.by_hand import run_layer
from tests.tiny import byte_tokenizer, tiny_checkpoint

TEXT = "A branch is asked what it would write on the states that the branch before it has read."
LAYERS = 4


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = (x - x.mean(0) for x in (a, b))
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("centre_features", [False, True])
def test_with_every_group_left_out_it_is_the_dense_cosine_of_the_others(centre_features: bool):
    a = gaussian(0, 40, 6) + 3
    b = 0.5 * a + gaussian(1, 40, 6) - 2
    parts = groups([8, 1, 11, 20], 4).slices
    found = cosines(a.float(), b.float(), parts, centre_features=centre_features)
    a, b = a.float().double(), b.float().double()
    if centre_features:
        a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    kept = [torch.ones(40, dtype=torch.bool) for _ in range(len(parts) + 1)]
    for keep, part in zip(kept[1:], parts, strict=True):
        keep[part] = False
    expected = torch.tensor([dense(a[keep], b[keep]) for keep in kept], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)  # eps·terms


def test_identical_opposite_and_unrelated_writes():
    a, parts = gaussian(2, 400, 32), groups([400]).slices
    for other, cos in ((3 * a + gaussian(3, 32), 1.0), (-a, -1.0)):
        found = cosines(a, other, parts, centre_features=False)
        torch.testing.assert_close(found, torch.full_like(found, cos), rtol=0, atol=1e-12)
    unrelated = float(cosines(a, gaussian(4, 400, 32), parts, centre_features=False)[0])
    assert abs(unrelated) < 4 / np.sqrt(400 * 32)  # four standard deviations


def test_a_write_that_is_the_same_for_every_token_has_no_cosine():
    a, parts = gaussian(5, 30, 4), groups([30]).slices
    assert cosines(a, torch.full((30, 4), 0.1), parts, centre_features=False).isnan().all()
    assert cosines(torch.zeros(30, 4), a, parts, centre_features=False).isnan().all()


def measured(folder: Path, text: str = TEXT, **options):
    checkpoint = open_checkpoint(str(folder))
    record = checkpoint.architecture
    probe = DeltaProbe(layer_norm=record.layer_norm and not record.post_norm, branches_add=not record.post_norm)
    facts = run(checkpoint, Calibration(name="test", texts=(text,), sha256="0" * 64, stream=False), [probe], **options)
    return measure(checkpoint, probe, facts, seed=0, device="cpu")[0]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "opt, post-norm", "gpt_neox", "gemma2", "granite"])
def test_pairs_of_a_model_are_those_of_layers_applied_by_hand(tmp_path: Path, name: str):
    """From the stream that the library's own class shows: sequential, parallel, post-norm, norms behind branches."""
    import transformers

    folder = tiny_checkpoint(tmp_path / "model", name, layers=LAYERS)
    checkpoint = open_checkpoint(str(folder))
    record = checkpoint.architecture
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        states = model(torch.tensor([byte_tokenizer()(TEXT)["input_ids"]]), output_hidden_states=True).hidden_states
    pairs = measured(folder, dtype="float64").pairs
    assert len(pairs) == LAYERS - 1
    for layer, pair in enumerate(pairs):
        own = run_layer(checkpoint, layer, states[layer][0])
        other = run_layer(checkpoint, layer + 1, states[layer][0], middle=own.middle)
        for branch in ("attention", "feed_forward"):
            a, b = (getattr(x, f"{branch}_branch")[1:] for x in (own, other))  # the first token is dropped
            if record.layer_norm and not record.post_norm:
                a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
            # The classes compute norms and softmax in float32.
            assert getattr(pair, f"{branch}_cos") == pytest.approx(dense(a, b), abs=2e-6), (layer, branch)


def duplicated(folder: Path, target: Path) -> Path:
    """A copy whose layer 1 has the weights of layer 0."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for name in list(weights):
        if ".1." in name and ".0.".join(name.split(".1.", 1)) in weights:
            weights[name] = weights[".0.".join(name.split(".1.", 1))].clone()
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "gpt_neox", "mixtral", "olmo2"])
def test_a_layer_that_is_a_copy_writes_the_same_on_the_same_states(tmp_path: Path, name: str):
    record = measured(duplicated(tiny_checkpoint(tmp_path / "m", name, layers=LAYERS), tmp_path / "twice"))
    copy, others = record.pairs[0], record.pairs[1:]
    assert copy.attention_cos == pytest.approx(1, abs=1e-9) and copy.feed_forward_cos == pytest.approx(1, abs=1e-9)
    assert all(abs(pair.attention_cos) < 0.5 and abs(pair.feed_forward_cos) < 0.6 for pair in others)


def test_the_metric_is_the_worst_branchs_median_and_its_square_stands_beside(tmp_path: Path):
    record = measured(tiny_checkpoint(tmp_path / "m", "qwen3", layers=5))  # of three pairs a median has no interval
    metrics = record.metrics
    medians = {b: np.median([abs(getattr(p, f"{b}_cos")) for p in record.pairs]) for b in ("feed_forward", "attention")}
    for branch, value in medians.items():
        assert metrics["functional_cos"].members[branch].value == pytest.approx(value, rel=1e-15)
    worst = max(medians, key=medians.get)
    assert (metrics["functional_cos"].value, metrics["functional_cos"].where) == (medians[worst], worst)
    squares = [getattr(p, f"{worst}_cos") ** 2 for p in record.pairs]
    assert metrics["functional_cos_squared"].value == pytest.approx(np.median(squares), rel=1e-15)
    low, high = metrics["functional_cos"].interval
    assert low <= medians[worst] <= high and metrics["functional_cos"].n["pairs"] == 4
    assert record.text.standard_errors["functional_cos_attention"] > 0
    assert not record.text.whole_prompts  # there is one prompt only

"""Files as the published scripts wrote them, against a few lines of the published formulas on the class's states."""

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from analyses.records import read_json
from checks.cli import main
from tests.few_draws import few_draws
from tests.tiny import tiny_checkpoint

KINDS = ("llama", "gpt2")  # one under RMSNorm, one under LayerNorm, whose writes the records centre
TEXT = "The ferry leaves at nine, and nobody is on the quay.\n"
TOLERANCE = 2e-5  # float32 passes, one over whole batches; singular values of differences of states


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    model = tiny_checkpoint(root / "model", request.param, layers=4)
    (root / "text.txt").write_text(TEXT)
    text = ["--calibration", str(root / "text.txt")]
    with few_draws():
        assert main(["run", str(model), "--out", str(root / "out"), "--quiet", *text]) in (0, 1)
    result = root / "out" / "model"
    assert main(["export", str(result), "--as-published", "--model", str(model), "--quiet", *text]) == 0
    return model, result, result / "published"


@torch.no_grad()
def states(model) -> list[np.ndarray]:
    ids = transformers.AutoTokenizer.from_pretrained(model)(TEXT)["input_ids"]
    own = transformers.AutoModel.from_pretrained(model).eval()
    found = own(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return [h[0, 1:].double().numpy() for h in found]


def test_writes_are_differences_of_the_librarys_hidden_states_the_last_behind_the_final_norm(exported):
    model, _, folder = exported
    file, h = read_json(folder / "delta_svd.json"), states(model)
    keys = "L phase frob token_norm_mean token_norm_std h_norm_mean rel_step_mean rel_step_std parallel_frac "
    keys += "cos_delta_h_mean top_singvals eff_rank top1_frac top3_frac top10_frac"
    assert all(set(layer) == set(keys.split()) for layer in file["per_layer"])
    assert (file["num_layers"], file["hidden"], file["n_calib_tokens"]) == (4, h[0].shape[1], len(h[0]))
    tops = []
    for layer, (a, b) in zip(file["per_layer"], zip(h, h[1:], strict=False), strict=True):
        delta = b - a
        _, s, vt = np.linalg.svd(delta, full_matrices=False)
        p = s**2 / (s**2).sum()
        cos = (delta * a).sum(1) / np.linalg.norm(delta, axis=1) / np.linalg.norm(a, axis=1)
        rel = np.linalg.norm(delta, axis=1) / np.linalg.norm(a, axis=1)
        tops.append(vt[0])
        for key, truth in (
            ("frob", np.linalg.norm(delta)), ("rel_step_mean", rel.mean()), ("rel_step_std", rel.std()),
            ("parallel_frac", np.abs(cos).mean()), ("cos_delta_h_mean", cos.mean()), ("top1_frac", p[0]),
            ("top3_frac", p[:3].sum()), ("eff_rank", np.exp(-(p * np.log(p)).sum())),
        ):  # fmt: skip
            assert layer[key] == pytest.approx(truth, rel=TOLERANCE, abs=TOLERANCE), key
        assert layer["top_singvals"] == pytest.approx(s[:10].tolist(), rel=TOLERANCE)
    truth = [abs(a @ b) for a, b in zip(tops, tops[1:], strict=False)]
    assert file["top1_cos_adjacent"] == pytest.approx(truth, abs=1e-3)  # a direction errs by rounding over its gap


def heads(model, layer: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(W_k, W_q) of every query head, from the class's own weights."""
    own = transformers.AutoModel.from_pretrained(model)
    if hasattr(own, "h"):
        q, k, _ = own.h[layer].attn.c_attn.weight.detach().double().numpy().T.reshape(3, 4, 8, -1)
    else:
        attention = own.layers[layer].self_attn
        q, k = (getattr(attention, f"{x}_proj").weight.detach().double().numpy().reshape(-1, 8, 32) for x in "qk")
        k = k.repeat(len(q) // len(k), 0)
    return list(zip(k, q, strict=True))


def test_grams_have_the_published_norm_and_directions(exported):
    model, _, folder = exported
    file, found = read_json(folder / "grams.json"), load_file(folder / "grams_directions.safetensors")["directions"]
    assert set(file) == set("model num_layers num_heads head_dim hidden_size topk gram fro_sq".split())
    assert np.shape(file["gram"]) == (4, 4, 4) and tuple(found.shape) == (4, 4, file["topk"], file["hidden_size"])
    for layer in range(4):
        for h, (k, q) in enumerate(heads(model, layer)):
            assert file["fro_sq"][layer][h] == pytest.approx(np.linalg.norm(k @ q.T) ** 2, rel=1e-6)
            assert file["gram"][layer][layer][h] == pytest.approx(np.linalg.norm(k.T @ q) ** 2, rel=1e-6)
            pushed = np.linalg.svd(k @ q.T)[2] @ q
            pushed /= np.linalg.norm(pushed, axis=1, keepdims=True)
            cos = np.abs((pushed[: file["topk"]] * found[layer, h].numpy()).sum(1))
            assert cos == pytest.approx(np.ones(file["topk"]), abs=1e-4)  # a vector's sign is free; float32 directions


def test_residuals_and_attention_are_the_records_own_published_keys(exported):
    _, result, folder = exported
    record, file = read_json(result / "null_residual.json"), read_json(folder / "null_residual.json")
    assert set(file) == {"model", "pair_results", "scales", "fam_used"} | {
        f"scale_pca_{x}" for x in ("singvals", "loadings", "scores")
    }
    for pair, own in zip(file["pair_results"], record["pair_results"], strict=True):
        assert set(pair) == {"L", "L_next", "families"} and pair["L_next"] == pair["L"] + 1
        assert {f: x["cos"] for f, x in pair["families"].items()} == {f: x["cos"] for f, x in own["families"].items()}
    stats, record = read_json(folder / "static_dynamic.json"), read_json(result / "attention_stats.json")
    assert set(stats) == {"num_layers", "num_heads", "static", "dynamic"}
    for layer, own in zip(stats["dynamic"], record["dynamic"], strict=True):
        assert layer == {key: own[key] for key in ("mean_attention_entropy_per_head", "mean_logit_std_per_head")}

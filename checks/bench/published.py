"""Scripts of the published arithmetic, written for this bench from its formulae, to hold whole runs against.

As loose scripts do, each loads the whole model by the library's own class in float32 and loops over pairs of layers: no
chance levels, no spectra of residuals, no matching.

    null_residual   per family and adjacent pair â = a/‖a‖, b̂ = b/‖b‖ entry by entry: cosine, ‖b̂ − â‖, √(1 − cos²);
                    norms of all families over depth, and the principal components of their logarithms
    head_grams      per head A = W_k^ℓ W_k^ℓ'ᵀ, B = W_q^ℓ W_q^ℓ'ᵀ and Σ A∘B for every pair of layers; ‖W_k W_qᵀ‖²;
                    the eigenvalues of the unsymmetric J X Xᵀ; the SVD of W_k W_qᵀ, whose vectors W_q carries into the
                    stream
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

PLACES = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
DIRECTIONS = 8


def null_residual(folder: Path) -> dict[str, Any]:
    """Adjacent layers: cosines, residuals, and the principal components of scales."""
    layers, _ = _layers(folder)
    pairs = []
    for before, after in zip(layers, layers[1:], strict=False):
        row = {}
        for family in before:
            a, b = before[family].flatten().double(), after[family].flatten().double()
            a, b = a / a.norm(), b / b.norm()
            cos = float(a @ b)
            row[family] = {"cos": cos, "resid_norm": float((b - a).norm()), "scalar_resid": float((b - cos * a).norm())}
        pairs.append(row)
    scales = torch.tensor([[float(w.double().norm()) for w in layer.values()] for layer in layers])  # (layer, family)
    logs = scales.log()
    _, singvals, loadings = torch.linalg.svd(logs - logs.mean(0), full_matrices=False)
    families = dict(zip(layers[0], scales.T.tolist(), strict=True))
    return {"pairs": pairs, "scales": families, "singvals": singvals.tolist(), "loadings": loadings.tolist()}


def head_grams(folder: Path) -> dict[str, Any]:
    """The per-head metric: Grams over layers, eigenvalues, singular values and directions."""
    layers, config = _layers(folder)
    heads, dim = config.num_attention_heads, config.head_dim
    group = heads // config.num_key_value_heads
    queries = [layer["q_proj"].double().unflatten(0, (-1, dim)) for layer in layers]
    keys = [layer["k_proj"].double().unflatten(0, (-1, dim)) for layer in layers]
    gram = torch.zeros(len(layers), len(layers), heads, dtype=torch.float64)
    found: dict[str, Any] = {"fro_sq": [], "sym_eigs": [], "singvals": [], "directions": []}
    swap = torch.kron(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.eye(dim)).double()
    for i, (q, k) in enumerate(zip(queries, keys, strict=True)):
        for h in range(heads):
            key = k[h // group]
            for j in range(i, len(layers)):
                inner = ((key @ keys[j][h // group].mT) * (q[h] @ queries[j][h].mT)).sum()
                gram[i, j, h] = gram[j, i, h] = inner
            small, both = key @ q[h].mT, torch.cat([q[h], key])
            _, sigma, vt = torch.linalg.svd(small)
            found["fro_sq"].append(float(small.square().sum()))
            found["sym_eigs"].append(torch.linalg.eigvals(swap @ both @ both.mT).real.tolist())
            found["singvals"].append(sigma.tolist())
            found["directions"].append((vt[:DIRECTIONS] @ q[h]).tolist())
    return found | {"gram": gram.tolist()}


def _layers(folder: Path) -> tuple[list[dict[str, torch.Tensor]], Any]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    found = []
    for layer in model.layers:
        weights = {"input_ln": layer.input_layernorm.weight, "post_attn_ln": layer.post_attention_layernorm.weight}
        for place, names in PLACES.items():
            weights |= {name: getattr(getattr(layer, place), name).weight for name in names}
        found.append({name: weight.detach() for name, weight in weights.items()})
    return found, model.config


SCRIPTS: dict[str, Callable[[Path], dict[str, Any]]] = {"null_residual": null_residual, "head_grams": head_grams}

if __name__ == "__main__":
    name, folder, out = sys.argv[1:]
    Path(out).write_text(json.dumps(SCRIPTS[name](Path(folder))), encoding="utf-8")

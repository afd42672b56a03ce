"""The files that the published scripts wrote, key for key and shape for shape, by the published formulas.

null_residual and the statistics of attention stand in the records as published. The others' published numbers are made
here from the checkpoint: directions of head metrics that are no singular vectors of g, writes whose last one is taken
behind the final norm, and states that are never centred. They are for readers of those files; what is wrong with them,
the errata of the page say.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from analyses.delta_svd.phases import phase_ranges
from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.loading import load
from analyses.forward.tokens import sequences
from analyses.head_grams.one_head import Heads, published_directions
from analyses.records import plain, write_bytes, write_json
from analyses.weights.checkpoint import Checkpoint

TOP = 8  # directions of a head
LISTED = 10  # singular values of a write
Records = Mapping[str, Mapping[str, Any]]

RESIDUAL_KEYS = (
    "model", "scales", "scale_pca_singvals", "scale_pca_loadings", "scale_pca_scores", "fam_used",
)  # fmt: skip
PAIR_KEYS = ("cos", "resid_norm", "resid_eff_rank", "resid_spec_entropy", "scalar_resid")
STATIC, DYNAMIC = ("metric_singvals_per_head",), ("mean_attention_entropy_per_head", "mean_logit_std_per_head")


def write(found: Records, checkpoint: Checkpoint, text: Calibration, out: Path) -> list[Path]:
    """Write every file that the records and the checkpoint give; returns their paths.

    Raises
    ------
    InputError : where no record gives one.
    """
    made: dict[str, Mapping[str, Any]] = {}
    if "pair_results" in found.get("null_residual", {}):
        made["null_residual.json"] = residual(found["null_residual"])
    if "gram" in found.get("head_grams", {}):
        made["grams.json"] = grams(found["head_grams"])
    if "static" in found.get("attention_stats", {}):
        made["static_dynamic.json"] = attention(found["attention_stats"])
    if "layers" in found.get("delta_svd", {}):
        made["delta_svd.json"] = writes(checkpoint, hidden_states(checkpoint, text))
    if not made:
        raise InputError(f"{checkpoint.name}: no record of what the scripts published; run `fathom measure` first")
    for name, content in made.items():
        write_json(out / name, content)
    if "grams.json" in made:
        write_bytes(out / "grams_directions.safetensors", save({"directions": directions(checkpoint)}))
        made["grams_directions.safetensors"] = {}
    return [out / name for name in made]


def residual(record: Mapping[str, Any]) -> dict[str, Any]:
    """Cosines and residuals of adjacent layers, and the principal components of scales."""
    pairs = [
        {
            "L": pair["L"],
            "L_next": pair["L_next"],
            "families": {f: {key: of[key] for key in PAIR_KEYS} for f, of in pair["families"].items()},
        }
        for pair in record["pair_results"]
    ]
    return {key: record[key] for key in RESIDUAL_KEYS} | {"pair_results": pairs}


def attention(record: Mapping[str, Any]) -> dict[str, Any]:
    """Spectra of W_k W_qᵀ, and entropy and spread of attention."""
    found = {key: record[key] for key in ("num_layers", "num_heads")}
    found["static"] = [{key: layer[key] for key in STATIC} for layer in record["static"]]
    dynamic = record["dynamic"] or []
    return found | {"dynamic": [{key: layer[key] for key in DYNAMIC} for layer in dynamic]}


def grams(record: Mapping[str, Any]) -> dict[str, Any]:
    """Inner products of g at equal head index; `fro_sq` is ‖W_k W_qᵀ‖², as published."""
    layers, heads = np.shape(record["fro_sq"])
    return {
        "model": record["model"],
        "num_layers": layers,
        "num_heads": heads,
        "head_dim": record["head_dim"],
        "hidden_size": record["hidden"],
        "topk": min(TOP, record["head_dim"]),
        "gram": record["gram"],
        "fro_sq": record["fro_sq_published"],
    }


def directions(checkpoint: Checkpoint) -> torch.Tensor:
    """V of W_k W_qᵀ pushed through W_q and scaled to unit length: (layer, head, k, hidden) float32."""
    found = []
    for layer in range(checkpoint.shape.layers):
        keys, queries = (checkpoint.stored_heads(part, layer, device="cpu") for part in ("k_proj", "q_proj"))
        heads = Heads(keys=keys.double(), queries=queries.double())
        small = heads.queries @ heads.repeated_keys().mT
        found.append(published_directions(small, heads.queries, min(TOP, small.shape[-1])).float())
    return torch.stack(found)


@torch.no_grad()
def hidden_states(checkpoint: Checkpoint, text: Calibration) -> list[torch.Tensor]:
    """The library's own hidden states, first tokens dropped: (token, hidden) float64, an entry more than layers."""
    model = load(checkpoint, dtype="float32", device="cpu", attention="eager", trust_remote_code=False)
    rows: list[list[torch.Tensor]] = []
    for ids in sequences(checkpoint, text, False).ids:
        states = model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False).hidden_states
        rows.append([state[0, 1:].double() for state in states])
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


def writes(checkpoint: Checkpoint, states: list[torch.Tensor]) -> dict[str, Any]:
    """Spectra of δ = h_{ℓ+1} − h_ℓ over the library's hidden states; the last one lies behind the final norm."""
    layers = len(states) - 1
    phases = {layer: name for name, at in phase_ranges(layers).items() for layer in at}
    found, tops = [], []
    for layer, (h, after) in enumerate(zip(states, states[1:], strict=False)):
        described, top = _write(h, after - h)
        found.append({"L": layer, "phase": phases[layer]} | described)
        tops.append(top)
    adjacent = [abs(float(a @ b)) for a, b in zip(tops, tops[1:], strict=False)]
    return {
        "model": checkpoint.name,
        "num_layers": layers,
        "hidden": states[0].shape[1],
        "n_calib_tokens": len(states[0]),
        "per_layer": plain(found),
        "top1_cos_adjacent": adjacent,
    }


def _write(h: torch.Tensor, delta: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
    _, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
    energy = sigma.square() / sigma.square().sum()
    norms, before = delta.norm(dim=1), h.norm(dim=1)
    step, cos = norms / before, torch.nn.functional.cosine_similarity(delta, h, dim=1)
    return {
        "frob": float(delta.norm()),
        "token_norm_mean": float(norms.mean()),
        "token_norm_std": float(norms.std(correction=0)),
        "h_norm_mean": float(before.mean()),
        "rel_step_mean": float(step.mean()),
        "rel_step_std": float(step.std(correction=0)),
        "parallel_frac": float(cos.abs().mean()),
        "cos_delta_h_mean": float(cos.mean()),
        "top_singvals": sigma[:LISTED].tolist(),
        "eff_rank": float(torch.special.entr(energy).sum().exp()),
        **{f"top{k}_frac": float(energy[:k].sum()) for k in (1, 3, 10)},
    }, vt[0]

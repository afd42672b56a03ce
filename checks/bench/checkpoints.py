"""Random checkpoints of true dimensions, written a layer at a time, where disk and memory allow."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from analyses.errors import InputError

FLOAT64, STORED = 8, 2  # bytes
MATRICES_AT_ONCE = 8  # of the largest in float64, that the exact residual spectra hold at most: two layers, their
# residual in three forms, work space; as measured
VOCABULARY = 1000  # small: no stage's cost depends on it, and there is no head


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Dimensions of a Qwen3 decoder in bfloat16."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Name within a layer → (out, in)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (query, self.hidden),
            "self_attn.k_proj": (key, self.hidden),
            "self_attn.v_proj": (key, self.hidden),
            "self_attn.o_proj": (self.hidden, query),
            "mlp.gate_proj": (self.feed_forward, self.hidden),
            "mlp.up_proj": (self.feed_forward, self.hidden),
            "mlp.down_proj": (self.hidden, self.feed_forward),
        }

    @property
    def entries(self) -> int:
        """Of all matrices of all layers."""
        return self.layers * sum(math.prod(shape) for shape in self.matrices.values())

    def scaled(self, hidden: int) -> "Size":
        """The same shape of model at another width; heads keep their size and number."""
        return replace(self, hidden=hidden, feed_forward=self.feed_forward * hidden // self.hidden)


SIZES = {
    "tiny": Size(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, feed_forward=96),
    "0.6b": Size(layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, feed_forward=3072),
    "4b": Size(layers=36, hidden=2560, heads=32, kv_heads=8, head_dim=128, feed_forward=9728),
}


def require_space(size: Size, folder: Path, *, available: int) -> None:
    """Raise InputError unless the checkpoint fits on the disk and its largest matrices into memory.

    available : bytes of memory.
    """
    disk, free = size.entries * STORED, shutil.disk_usage(folder).free
    if disk * 1.1 > free:
        raise InputError(f"{folder}: {disk / 1e9:.1f} GB of weights do not fit into {free / 1e9:.1f} GB of free disk")
    memory = MATRICES_AT_ONCE * FLOAT64 * max(math.prod(shape) for shape in size.matrices.values())
    if memory > available:
        raise InputError(
            f"--size: {memory / 1e9:.1f} GB of memory are needed and {available / 1e9:.1f} GB available; choose another"
        )


def write(size: Size, folder: Path, *, seed: int = 0) -> Path:
    """A checkpoint of Gaussian weights, a shard for each layer; holds one layer in memory."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}

    def shard(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        save_file(dict(tensors), folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))

    for layer in range(size.layers):
        gains = {"input_layernorm": size.hidden, "post_attention_layernorm": size.hidden}
        gains |= {"self_attn.q_norm": size.head_dim, "self_attn.k_norm": size.head_dim}
        tensors = {name: 1 + 0.1 * torch.randn(side, generator=generator) for name, side in gains.items()}
        for name, shape in size.matrices.items():
            tensors[name] = torch.randn(shape, generator=generator) / math.sqrt(shape[1])
        named = {f"model.layers.{layer}.{name}.weight": tensor.bfloat16() for name, tensor in tensors.items()}
        shard(f"layer-{layer:03}.safetensors", named)
    rest = {"norm": torch.ones(size.hidden), "embed_tokens": torch.randn(VOCABULARY, size.hidden, generator=generator)}
    shard("rest.safetensors", {f"model.{name}.weight": tensor.bfloat16() for name, tensor in rest.items()})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(size)), encoding="utf-8")
    return folder


def _config(size: Size) -> dict[str, object]:
    names = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "feed_forward": "intermediate_size",
    }
    facts = {names.get(key, key): value for key, value in asdict(size).items()}
    return {"model_type": "qwen3", "vocab_size": VOCABULARY, "hidden_act": "silu", "rms_norm_eps": 1e-6} | facts

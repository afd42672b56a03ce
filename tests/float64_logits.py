"""Logits of the library's own model classes to full float64: their norms and softmax compute in float32."""

from functools import partial
from pathlib import Path
from unittest import mock

import torch
import transformers

from analyses.weights.checkpoint import Checkpoint, open_checkpoint

TOKENS = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(1))  # (sequence, token)


def float64_model(folder: Path, checkpoint: Checkpoint | None = None) -> transformers.PreTrainedModel:
    """The model in a folder, or of a twin of it, float64 throughout, with the softmax of `logits`."""
    config = transformers.AutoConfig.from_pretrained(folder)
    checkpoint = checkpoint or open_checkpoint(str(folder))
    # The library converts the names on disk to its own, whichever they are.
    model, loading = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None,
        config=config,
        state_dict={name: checkpoint.tensor(name) for name in checkpoint.files},
        dtype=torch.float64,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not any(loading.values()), loading
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)
    return model.eval()


def _rms_norm(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    stored_less_one = type(norm).__name__.startswith("Gemma")
    eps = norm.eps if stored_less_one else norm.variance_epsilon
    return (norm.weight + stored_less_one) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


@torch.no_grad()
def logits(model: transformers.PreTrainedModel, checkpoint: Checkpoint | None = None) -> torch.Tensor:
    """(sequence, token, vocabulary) on TOKENS, of the model or of a twin of its checkpoint."""
    if checkpoint is not None:
        model = float64_model(checkpoint.folder, checkpoint)
    # The library's eager attention takes its softmax in float32 whatever the dtype.
    with mock.patch("torch.nn.functional.softmax", lambda x, dim=-1, dtype=None: x.softmax(dim)):
        return model(input_ids=TOKENS, use_cache=False).logits


def moved(after: torch.Tensor, before: torch.Tensor) -> float:
    """Largest change, relative to the largest entry."""
    return float((after - before).abs().max() / before.abs().max())

"""Logits of the library's own model classes to full float64: their norms compute in float32 whatever the dtype."""

from pathlib import Path

import torch
import transformers

from analyses.checkpoint import Checkpoint

TOKENS = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(1))  # (sequence, token)


def float64_model(folder: Path) -> transformers.PreTrainedModel:
    """The model in a folder, float64 throughout; sdpa, because eager attention has a float32 softmax."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float64, attn_implementation="sdpa").eval()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, norm=module: (
                norm.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
            )
    return model


@torch.no_grad()
def logits(model: transformers.PreTrainedModel, checkpoint: Checkpoint | None = None) -> torch.Tensor:
    """(sequence, token, vocabulary) on TOKENS, after the parameters are set to the checkpoint's if one is given."""
    if checkpoint is not None:
        alter(model, checkpoint)
    return model(input_ids=TOKENS, use_cache=False).logits


@torch.no_grad()
def alter(model: transformers.PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Overwrite the parameters with what the checkpoint gives; a tied head follows its embedding."""
    layers = range(checkpoint.shape.layers)
    pending = {name for f in checkpoint.families for layer in layers for name in checkpoint.names(f, layer)}
    for name, parameter in model.named_parameters():
        on_disk = name if name in checkpoint.files else name.removeprefix(model.base_model_prefix + ".")
        if on_disk in checkpoint.files:
            parameter.copy_(checkpoint.tensor(on_disk))
            pending.discard(on_disk)
    assert not pending, f"the library keeps {min(pending)} under another name"


def moved(after: torch.Tensor, before: torch.Tensor) -> float:
    """Largest change, relative to the largest entry."""
    return float((after - before).abs().max() / before.abs().max())

"""Logits of the library's own model classes to full float64: their norms, softmaxes and routers compute in float32."""

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.maps.precision import NeverNarrowed

TOKENS = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(1))  # (sequence, token)


def float64_model(folder: Path, checkpoint: Checkpoint | None = None) -> transformers.PreTrainedModel:
    """The model in a folder, or of a twin of it, float64 throughout, to be run by `logits`."""
    config = transformers.AutoConfig.from_pretrained(folder)
    checkpoint = checkpoint or open_checkpoint(str(folder))
    encoder = checkpoint.architecture.encoder
    classes = transformers.MODEL_FOR_MASKED_LM_MAPPING if encoder else transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    # The library converts the names on disk to its own, whichever they are.
    model, loading = classes[type(config)].from_pretrained(
        None,
        config=config,
        state_dict={name: checkpoint.tensor(name) for name in checkpoint.files},
        dtype=torch.float64,
        attn_implementation="eager",
        experts_implementation="eager",  # the other knows no float64
        output_loading_info=True,
    )
    assert not any(loading.values()), loading
    return model.eval()


@torch.no_grad()
def logits(model: transformers.PreTrainedModel, checkpoint: Checkpoint | None = None) -> torch.Tensor:
    """(sequence, token, vocabulary) on TOKENS, of the model or of a twin of its checkpoint."""
    given = {} if checkpoint is None else {name: checkpoint.tensor(name).double() for name in checkpoint.files}
    if not takes(model, given):
        model, given = float64_model(checkpoint.folder, checkpoint), {}
    with NeverNarrowed():
        return torch.func.functional_call(model, given, kwargs={"input_ids": TOKENS}).logits


def takes(model: transformers.PreTrainedModel, given: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are all parameters of a model under its own names, none of them twice: then it need not be built."""
    own = dict(model.named_parameters(remove_duplicate=False))
    if not given:
        return True
    if not all(name in own and own[name].shape == tensor.shape for name, tensor in given.items()):
        return False
    named = [id(own[name]) for name in given]
    return len(set(named)) == len(named) and {*named} == {id(each) for each in own.values()}


def moved(after: torch.Tensor, before: torch.Tensor) -> float:
    """Largest change, relative to the largest entry."""
    return float((after - before).abs().max() / before.abs().max())

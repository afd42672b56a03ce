"""The queries, keys, mask, bias and scaling that a model's attention functions receive.

Most classes call their attention through the library's attention interface: our function stands in
for theirs, calls the model's own eager or sdpa function, with the mask that the library makes for
that one, and passes what it was given to the probes. What a module computes by itself is read off its operations
(`softmaxes`); Falcon's, which may call torch's fused function, is read where it splits queries and keys into heads and
turned by its own rotary function.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import transformers
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs
from analyses.forward.softmaxes import calls_interface, watched
from analyses.weights.checkpoint import Checkpoint

WHOLE = 1e-6  # a sum of probabilities this near to 1 leaves nothing for a sink
TAP = "fathom_tap"  # the name of our function in the library's attention interface

Feed = Callable[[AttentionInputs], None]


@contextmanager
def tapped(base: transformers.PreTrainedModel, checkpoint: Checkpoint, feed: Feed, attention: str) -> Iterator[None]:
    """Hand every layer's attention inputs to `feed`, for this pass only; the model computes what it always does.

    Parameters
    ----------
    attention : which of the model's functions runs, "eager" or "sdpa".
    """
    record = checkpoint.architecture
    layers = base.get_submodule(record.layers)
    modules = [layers[i].get_submodule(record.attention) for i in checkpoint.layers_with("q_proj", "k_proj")]
    own_way = INSIDE.get(type(modules[0]).__name__) or (None if calls_interface(modules[0]) else watched)
    if own_way is None:
        with _through_interface(base, feed, attention):
            yield
        return
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(own_way(module, feed))
        yield


@contextmanager
def _through_interface(base: transformers.PreTrainedModel, feed: Feed, attention: str) -> Iterator[None]:
    def tap(module, query, key, value, attention_mask, **keywords):
        softcap, scaling = keywords.get("softcap"), keywords.get("scaling")
        assert softcap is None or attention == "eager", "sdpa does not cap"
        given = keywords.get("is_causal")
        causal = getattr(module, "is_causal", True) if given is None else given
        function = transformers.AttentionInterface()["sdpa"] if attention == "sdpa" else _eager(module)
        output, weights = function(module, query, key, value, attention_mask, **keywords)
        sinks = keywords.get("s_aux")
        if sinks is not None and weights is not None and bool((weights[0, :, 0].sum(-1) - 1).abs().max() < WHOLE):
            weights = None  # they are those before the sinks have taken their share
        feed(
            AttentionInputs(
                query=query,
                key=key,
                mask=_biased(_mask(attention_mask, query, causal=causal), keywords.get("position_bias")),
                scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
                softcap=softcap,
                weights=weights,
                sinks=sinks,
                value=value,
                output=output,
            )
        )
        return output, weights

    before = base.config._attn_implementation
    transformers.AttentionInterface.register(TAP, tap)
    AttentionMaskInterface.register(TAP, sdpa_mask if attention == "sdpa" else eager_mask)
    try:
        base.set_attn_implementation(TAP)
        yield
    finally:
        base.set_attn_implementation(before)
        transformers.AttentionInterface._global_mapping.pop(TAP)
        AttentionMaskInterface._global_mapping.pop(TAP)


def _eager(module: torch.nn.Module) -> Callable:
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        raise InputError(f"{type(module).__name__} has no eager attention function; use --attention sdpa")
    return function


def _mask(mask: torch.Tensor | None, query: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """A mask as the probes are shown it; None stands for no padding and, under causal attention, no window."""
    if mask is not None:
        return mask
    sequences, _, tokens, _ = query.shape
    every = query.new_ones(sequences, 1, tokens, tokens, dtype=torch.bool)
    return every.tril_() if causal else every


def _biased(mask: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A mask with learned logits of positions, (1 or sequence, head, token, token), added where it shows a key."""
    if bias is None:
        return mask
    least = torch.finfo(bias.dtype).min
    shown = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    added = bias if mask.dtype == torch.bool else bias + mask
    return torch.where(shown, added, least)


# --- classes whose modules compute attention themselves -----------------------------------------


@contextmanager
def _falcon(module: torch.nn.Module, feed: Feed) -> Iterator[None]:
    def read(fused: torch.Tensor, keywords: dict, weights: torch.Tensor | None) -> AttentionInputs:
        # (sequence, token, head or kv_head, head_dim), the keys of grouped heads already repeated
        query, key = (part.transpose(1, 2) for part in module._split_heads(fused)[:2])
        bias = keywords["alibi"]
        if bias is None:
            turn = sys.modules[type(module).__module__].apply_rotary_pos_emb
            query, key = turn(query, key, *keywords["position_embeddings"])
        elif weights is not None:
            bias = bias.view(*query.shape[:2], 1, -1) * module.inv_norm_factor
        else:
            bias = None  # sdpa takes it from the mask
        return AttentionInputs(
            query=query,
            key=key,
            mask=_mask(keywords["attention_mask"], query, causal=True),
            bias=bias,
            scaling=module.inv_norm_factor,
            weights=weights,
        )

    with _fused(module, read, feed):
        yield


@contextmanager
def _fused(module: torch.nn.Module, read: Callable, feed: Feed) -> Iterator[None]:
    """Hook a module that projects queries, keys and values at once; `read` makes the inputs of what was seen."""
    seen: list[torch.Tensor] = []

    def leave(_, args, keywords, output) -> None:
        feed(read(seen.pop(), keywords, output[1]))

    handles = (
        module.query_key_value.register_forward_hook(lambda _, args, output: seen.append(output)),
        module.register_forward_hook(leave, with_kwargs=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


INSIDE = {"FalconAttention": _falcon, "DisentangledSelfAttention": partial(watched, first=True)}
"""Attention class → how to watch it."""

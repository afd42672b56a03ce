"""Names of tensors without the modules that training wraps around a model or its blocks."""

WRAPPERS = frozenset({
    "_orig_mod",  # torch.compile
    "module",  # data parallelism, and averages of weights
    "_module",  # gradients by sample
    "_forward_module",  # Lightning's Fabric
    "_fsdp_wrapped_module",
    "_fpw_module",  # the same, of old
    "_checkpoint_wrapped_module",  # activation checkpointing
})  # fmt: skip
"""Attributes under which a wrapper keeps what it wraps: no part of the model's own names, wherever they stand."""


def unwrapped(name: str) -> str:
    """The name that a tensor has in the model itself.

    >>> unwrapped("module.model.layers.0._orig_mod.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    return ".".join(word for word in name.split(".") if word not in WRAPPERS) or name

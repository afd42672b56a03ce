"""The queries, keys and logits of attention modules that compute everything themselves, read off their operations.

A module that does not call its attention through the library's interface multiplies queries with keys, adds what it
adds, takes a softmax, and multiplies with the values. Its own forward pass runs under a mode that keeps the operands of
the last product before its softmax (of the first one where others, with positions, follow it), the softmax' input and
output, and the product behind it: the logits that the statistics are made of are then the module's own, with its
scale, mask and biases in them.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs

Feed = Callable[[AttentionInputs], None]

INTERFACE = ("attention_interface", "ALL_ATTENTION_FUNCTIONS")  # in the source of a class that calls it
FACTORS = ("batch1", "batch2", "mat2", "other")  # keywords of these functions
PRODUCTS = {"matmul": 0, "bmm": 0, "__matmul__": 0, "baddbmm": 1}  # function → where its two factors begin


def calls_interface(module: torch.nn.Module) -> bool:
    """Whether a module's class gives its attention to the library's interface."""
    try:
        source = inspect.getsource(type(module))
    except (OSError, TypeError):
        return True
    return any(word in source for word in INTERFACE)


class _Operations(TorchFunctionMode):
    """Keeps the operands of one attention; of its products before the softmax those of the last, or of the first."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.factors: tuple[torch.Tensor, torch.Tensor] | None = None
        self.logits: torch.Tensor | None = None
        self.weights: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.mixed: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            named = [kwargs[key] for key in FACTORS if key in (kwargs or {})]
            first, second = (*args[PRODUCTS[name] :], *named)[:2]
            if self.logits is None:
                self.factors = self.factors if self.first and self.factors else (first, second)
            elif self.values is None:
                self.values, self.mixed = second, result
        elif name == "softmax" and self.logits is None and self.factors is not None:
            self.logits, self.weights = args[0], result
        return result


@contextmanager
def watched(module: torch.nn.Module, feed: Feed, *, first: bool = False) -> Iterator[None]:
    """Feed what each pass of a module multiplies and takes the softmax of.

    Parameters
    ----------
    first : whether queries meet keys in the first of its products, rather than in the last before the softmax.
    """
    own = module.forward

    def forward(*args: Any, **keywords: Any) -> Any:
        with _Operations(first=first) as seen:
            output = own(*args, **keywords)
        if seen.logits is None:
            raise InputError(f"{type(module).__name__}: no softmax of a product was seen; its code is not supported")
        hidden = args[0] if args else keywords.get("hidden_states")
        feed(_inputs(seen, len(hidden)))
        return output

    module.forward = forward  # on this instance, over its class's method
    try:
        yield
    finally:
        del module.forward


def _inputs(seen: _Operations, sequences: int) -> AttentionInputs:
    def by_sequence(value: torch.Tensor) -> torch.Tensor:
        """(sequence, head, token, …) of what may have sequences and heads as one axis."""
        return value if value.ndim == 4 else value.unflatten(0, (sequences, -1))

    query, key = seen.factors
    logits = by_sequence(seen.logits)
    least = torch.finfo(logits.dtype).min
    found = {"value": None, "output": None}
    if seen.values is not None and seen.values.ndim >= 3:
        found = {"value": by_sequence(seen.values), "output": by_sequence(seen.mixed).transpose(1, 2)}
    return AttentionInputs(
        query=by_sequence(query),
        key=by_sequence(key).mT,
        mask=logits.where(logits > least / 2, least),  # with the products in it, so that these count 0 times
        scaling=0.0,
        weights=by_sequence(seen.weights),
        **found,
    )

"""What does each layer show as the pass goes through the model? Hooks collect it and hand it on.

A layer's states are given to the probes as soon as the next layer begins and dropped before it
ends, so that the memory does not grow with depth. What a branch adds is the output of the module
that the architecture's record names: behind a norm of the branch where there is one, in front of
the addition where the module itself would add the stream, times the config's multiplier.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from analyses.errors import InputError
from analyses.forward.probe import AttentionInputs, LayerStates, Probe
from analyses.weights.checkpoint import Checkpoint


class Tour:
    """Where the pass stands: the layer it is in, and what that layer has shown so far."""

    def __init__(self, probes: Sequence[Probe], real: torch.Tensor):
        self.probes = probes
        self.real = real.flatten().nonzero().squeeze(1)  # numbers of the tokens that are no padding
        self.current: int | None = None
        self.seen: dict[str, torch.Tensor] = {}

    def feed(self, call: Callable[[Probe], None]) -> None:
        for probe in self.probes:
            if probe.failure is None:
                try:
                    call(probe)
                except Exception as error:  # kept, and raised again when this probe's analysis is asked
                    probe.failure = error

    def rows(self, states: Any) -> torch.Tensor:
        """Real tokens of a (sequence, token, hidden) output as (token, hidden), a copy."""
        states = states[0] if isinstance(states, tuple) else states
        if states.ndim == 3:  # some feed-forwards see all tokens as rows
            states = states.flatten(0, 1)
        rows = states.index_select(0, self.real.to(states.device))
        return rows.to(torch.promote_types(states.dtype, torch.float32))

    def enter(self, layer: int, hidden: torch.Tensor) -> None:
        hidden = self.rows(hidden)
        self.leave(hidden)
        self.current = layer
        self.seen = {"hidden": hidden}

    def attend(self, inputs: AttentionInputs) -> None:
        self.feed(lambda probe: probe.attention(self.current, inputs))

    def leave(self, next_input: torch.Tensor) -> None:
        if self.current is None:
            return
        if missing := {"attention", "feed_forward", "output"} - set(self.seen):
            where = f"layer {self.current}: its {min(missing)} was not seen"
            raise InputError(f"{where}; this model's code is not supported")
        states = LayerStates(**self.seen, next_input=next_input.to(self.seen["output"].device))
        self.seen = {}
        self.feed(lambda probe: probe.layer(self.current, states))
        self.current = None

    def finish(self, before: torch.Tensor, after: torch.Tensor) -> None:
        before, after = self.rows(before), self.rows(after)
        self.feed(lambda probe: probe.final(before, after))
        self.leave(before)


def hooks(base: torch.nn.Module, checkpoint: Checkpoint, tour: Tour) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Hook every layer of a base model, and its final norm or the last layer where it has none."""
    record = checkpoint.architecture
    attention, feed_forward = record.branches
    factor = checkpoint.config.get(record.residual_multiplier, 1.0) if record.residual_multiplier else 1.0

    def keep(name: str, factor: float = 1.0) -> Callable:
        def hook(module, args, output) -> None:
            rows = tour.rows(output)
            tour.seen[name] = rows if factor == 1 else rows * factor

        return hook

    def entrance(layer: int) -> Callable:
        def hook(module, args, kwargs) -> None:
            tour.enter(layer, args[0] if args else kwargs["hidden_states"])

        return hook

    layers = base.get_submodule(record.layers)
    for index, layer in enumerate(layers):
        yield layer.register_forward_pre_hook(entrance(index), with_kwargs=True)
        yield layer.get_submodule(attention).register_forward_hook(keep("attention", factor))
        yield layer.get_submodule(feed_forward).register_forward_hook(keep("feed_forward", factor))
        yield layer.register_forward_hook(keep("output"))
    if (norm := final_norm(base, record.final_norm)) is not None:
        yield norm.register_forward_hook(lambda _, args, output: tour.finish(args[0], output))
    else:
        yield layers[-1].register_forward_hook(lambda _, args, output: tour.finish(output, output))


def final_norm(base: torch.nn.Module, name: str | None) -> torch.nn.Module | None:
    """The norm behind the last layer; None where the record names none or this config leaves it out."""
    if name is None:
        return None
    parent, _, leaf = name.rpartition(".")
    return getattr(base.get_submodule(parent), leaf)

"""Hooks that collect each layer's states during the pass and hand them to the probes.

A layer's states are given to the probes as soon as the next layer begins and dropped before it
ends, so that the memory does not grow with depth. What a branch adds is the output of the module
that the architecture's record names: behind a norm of the branch where there is one, in front of
the addition where the module itself would add the stream, times the config's multiplier.

Where a probe asks what the next layer's branches write on this layer's states, the next layer is
called once more, with its own mask and positions, before the model itself calls it: its attention reads
this layer's input, and before its feed-forward reads, what its attention wrote is replaced by what this
layer's attention wrote. So each branch, with the norms in front of it and behind it, reads exactly the
stream that this layer's branch read, whether the two stand one behind the other or side by side. In a
post-norm layer the stream between the branches is itself normalised, and it is that stream which is replaced.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from analyses.errors import InputError, first_line
from analyses.forward.probe import AttentionInputs, LayerStates, Probe, Seen
from analyses.weights.checkpoint import Checkpoint

Watch = Callable[[int, AttentionInputs, torch.Tensor, torch.Tensor], Seen]
STATES = ("hidden", "attention", "feed_forward", "output")
BRANCHES = ("attention", "feed_forward")
OTHER_KIND = "the two layers are of different kinds"


class Collector:
    """What the current layer of the pass has shown so far; hands it to the probes when the next layer begins."""

    def __init__(
        self,
        probes: Sequence[Probe],
        real: torch.Tensor,
        *,
        factor: float = 1.0,
        branches: Sequence[tuple[str | None, str | None]] = (),
        alike: Sequence[tuple[bool, bool]] = (),
        watch: Watch | None = None,
    ):
        """
        Parameters
        ----------
        factor : of the config, on what each branch adds.
        branches : of each layer, its attention and feed-forward; None where it has none.
        alike : whether these are of the kind of the next layer's.
        watch : is given each layer's attention, beside what enters the layer and its attention module.
        """
        self.probes = probes
        self.places = real.flatten().nonzero().squeeze(1)  # of the tokens that are no padding
        self.factor = factor
        self.branches, self.alike, self.watch = branches, alike, watch
        self.next_branches = any(probe.next_branches for probe in probes)
        self.current: int | None = None
        self.seen: dict[str, torch.Tensor] = {}
        self.aside: dict[str, torch.Tensor] | None = None  # what a layer shows while it runs on another's states
        self.refused = ""  # why a layer could not run on another's states

    def feed(self, call: Callable[[Probe], None]) -> None:
        """Show the probes something. A mode that watches the model's operations is not for theirs, which are many."""
        with _disable_current_modes():
            for probe in self.probes:
                if probe.failure is None:
                    try:
                        call(probe)
                    except Exception as error:  # kept, and raised again when this probe's analysis is asked
                        probe.failure = error

    def rows(self, states: Any) -> torch.Tensor:
        """Real tokens of a (sequence, token, hidden) output as (token, hidden), a copy."""
        states = _first(states)
        if states.ndim == 3:  # some feed-forwards see all tokens as rows
            states = states.flatten(0, 1)
        rows = states.index_select(0, self.places.to(states.device))
        return rows.to(torch.promote_types(states.dtype, torch.float32))

    def in_place_of(self, output: Any, name: str, factor: float = 1.0) -> Any:
        """An output with the current layer's rows, times a factor, in place of its own, zeros on padding."""
        states = _first(output)
        flat = states.new_zeros(states.shape).flatten(0, -2)
        flat.index_copy_(0, self.places.to(states.device), (self.seen[name] * factor).to(states))
        other = flat.view(states.shape)
        return (other, *output[1:]) if isinstance(output, tuple) else other

    def enter(self, layer: int, module: torch.nn.Module, args: tuple, keywords: Mapping[str, Any]) -> None:
        hidden = args[0] if args else keywords["hidden_states"]
        rows = self.rows(hidden)
        wanted = self.next_branches and self.current is not None and not self.refused
        self.leave(rows, self.call_aside(module, args, keywords) if wanted else None)
        self.current = layer
        self.seen = {"hidden": rows}

    def call_aside(self, module: torch.nn.Module, args: tuple, keywords: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What a layer's branches write on the states that the current layer's branches read."""
        self.require()
        before = self.in_place_of(args[0] if args else keywords["hidden_states"], "hidden")
        self.aside = {}
        try:
            if args:
                module(before, *args[1:], **keywords)
            else:
                module(**dict(keywords) | {"hidden_states": before})
            return {f"next_{name}": self.aside[name] * self.factor for name in self.comparable()}
        except Exception as error:  # of a model's own code; the pass itself goes on
            self.refused = f"the next layer cannot be run on these states ({first_line(error)})"
            return {}
        finally:
            self.aside = None

    def comparable(self) -> list[str]:
        """The branches of the current layer that the next layer has too, of the same kind."""
        if not self.branches:
            return list(BRANCHES)
        of_one_kind = zip(BRANCHES, self.branches[self.current], self.alike[self.current], strict=True)
        return [name for name, module, alike in of_one_kind if module and alike]

    def attend(self, inputs: AttentionInputs) -> None:
        if self.aside is None:
            self.feed(lambda probe: probe.attention(self.current, inputs))
            if self.watch is not None and "read" in self.seen:  # a layer whose heads the record describes
                seen = self.watch(self.current, inputs, self.seen["hidden"], self.seen["read"])
                self.feed(lambda probe: probe.witnessed(self.current, seen))

    def require(self) -> None:
        for name, module in zip(BRANCHES, self.branches[self.current] if self.branches else (), strict=False):
            if module is None:  # what is not there adds nothing
                self.seen[name] = torch.zeros_like(self.seen["hidden"])
        if missing := set(STATES) - set(self.seen):
            where = f"layer {self.current}: its {min(missing)} was not seen"
            raise InputError(f"{where}; this model's code is not supported")

    def leave(self, next_input: torch.Tensor, written: Mapping[str, torch.Tensor] | None = None) -> None:
        if self.current is None:
            return
        self.require()
        seen = {name: self.seen[name] for name in STATES}
        if self.factor != 1:
            seen |= {name: seen[name] * self.factor for name in ("attention", "feed_forward")}
        device = seen["output"].device
        next_branches = {name: rows.to(device) for name, rows in (written or {}).items()}
        refused = self.refused or (OTHER_KIND if written is not None and len(written) < len(BRANCHES) else "")
        states = LayerStates(**seen, next_input=next_input.to(device), next_refused=refused, **next_branches)
        self.seen = {}
        self.feed(lambda probe: probe.layer(self.current, states))
        self.current = None

    def finish(self, before: torch.Tensor, after: torch.Tensor) -> None:
        if self.aside is None:
            before, after = self.rows(before), self.rows(after)
            self.feed(lambda probe: probe.final(before, after))
            self.leave(before)


def hooks(
    base: torch.nn.Module, checkpoint: Checkpoint, collector: Collector
) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Hook every layer of a base model, and its final norm or the last layer where it has none."""
    record = checkpoint.architecture
    between = _between(record.tensors["post_attn_ln"].name) if record.post_norm else None

    def keep(name: str, *, replaced: bool = False, factor: float = 1.0, first: bool = True) -> Callable:
        def hook(module, args, output) -> Any:
            seen = collector.seen if collector.aside is None else collector.aside
            rows = collector.rows(output) if factor == 1 else collector.rows(output) * factor
            seen[name] = rows if first else seen[name] + rows
            if collector.aside is None or not replaced:
                return None
            return collector.in_place_of(output, name, 1 / factor if first else 0.0)

        return hook

    def reads(module, args, keywords) -> None:
        if collector.aside is None:
            collector.seen["read"] = collector.rows(args[0] if args else keywords["hidden_states"])

    def entrance(layer: int) -> Callable:
        def hook(module, args, keywords) -> None:
            if collector.aside is None:
                collector.enter(layer, module, args, keywords)

        return hook

    layers = base.get_submodule(record.layers)
    for index, layer in enumerate(layers):
        yield layer.register_forward_pre_hook(entrance(index), with_kwargs=True)
        attention, feed_forward = checkpoint.branches(index)
        if collector.watch is not None and checkpoint.has("q_proj", index):
            yield layer.get_submodule(record.attention).register_forward_pre_hook(reads, with_kwargs=True)
        for name, factor, first in terms(attention, checkpoint.config):
            hook = keep("attention", replaced=True, factor=factor, first=first)
            yield layer.get_submodule(name).register_forward_hook(hook)
        if between is not None and collector.next_branches:
            yield layer.get_submodule(between).register_forward_hook(keep("between", replaced=True))
        for name, factor, first in terms(feed_forward, checkpoint.config):
            yield layer.get_submodule(name).register_forward_hook(keep("feed_forward", factor=factor, first=first))
        yield layer.register_forward_hook(keep("output"))
    if (norm := final_norm(base, record.final_norm)) is not None:
        yield norm.register_forward_hook(lambda _, args, output: collector.finish(args[0], output))
    else:
        yield layers[-1].register_forward_hook(lambda _, args, output: collector.finish(output, output))


def terms(branch: str | None, config: Mapping[str, Any]) -> list[tuple[str, float, bool]]:
    """(module, factor, whether it runs first) of what a branch adds up, from a record's words; none for no branch.

    >>> terms("mixer*scale+mlp", {"scale": 0.5})
    [('mixer', 0.5, True), ('mlp', 1.0, False)]
    """
    found = []
    for number, term in enumerate(branch.split("+") if branch else ()):
        module, _, key = term.partition("*")
        found.append((module, float(config.get(key, 1.0)) if key else 1.0, number == 0))
    return found


def multiplier(checkpoint: Checkpoint) -> float:
    """The config's factor on what each branch adds."""
    key = checkpoint.architecture.residual_multiplier
    return checkpoint.config.get(key, 1.0) if key else 1.0


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output


def _between(name: str) -> str:
    """Module of a norm under its layer, from the name of its gain: what stands behind the layer's number."""
    return name.partition(".{}.")[2].rpartition(".")[0]


def final_norm(base: torch.nn.Module, name: str | None) -> torch.nn.Module | None:
    """The norm behind the last layer; None where the record names none or this config leaves it out."""
    if name is None:
        return None
    parent, _, leaf = name.rpartition(".")
    return getattr(base.get_submodule(parent), leaf)

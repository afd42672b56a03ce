"""Each layer's change of the residual stream, reduced to its statistics during the forward pass.

The probe turns a layer's states into a `LayerWrite`, its top directions and the errors of two
identities, so that the memory does not grow with depth. Identities are read off a few tokens at a
time; in float64 the layer's input and its write are held, and nothing else of their size beyond
what `layer_write` needs. The first token of each sequence is
dropped: it attends to nothing but itself, and in many models it carries a huge constant state.
"""

import torch

from analyses.delta_svd.writes import LayerWrite, layer_write
from analyses.errors import InputError
from analyses.forward.probe import LayerStates, Probe

TOKENS = 256  # compared at a time, in float64


class DeltaProbe(Probe):
    """Reduces every layer's states to a `LayerWrite`, its top directions and its identities' errors."""

    def __init__(self, *, layer_norm: bool, branches_add: bool = True):
        self.layer_norm = layer_norm  # adding c·1 to a write is then an exact symmetry: centre over features
        self.branches_add = branches_add  # False where the stream is normalised behind each branch
        self.writes: dict[int, LayerWrite] = {}
        self.directions: dict[int, torch.Tensor] = {}  # (mode, hidden)
        self.centred: dict[int, torch.Tensor] = {}
        self.chain_error: dict[int, float] = {}  # max |output − next input| / max |h|
        self.branch_error: dict[int, float] = {}  # max |δ − attention − feed-forward| / max |h|
        self.published_last: LayerWrite | None = None
        self._after: torch.Tensor | None = None

    def begin(self, real: torch.Tensor) -> None:
        position = torch.arange(real.shape[1]).expand_as(real)
        self.later = position[real] > 0  # (token,)
        if not self.later.any():
            raise InputError("every sequence of the text is a single token; delta_svd drops each sequence's first")

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self._after = after

    def layer(self, layer: int, states: LayerStates) -> None:
        if not torch.stack(states.next_input.aminmax()).isfinite().all():  # both are NaN if any is
            raise InputError(f"layer {layer}: hidden states are not finite; use a wider --dtype")
        stream, chain, branches = _largest(states)
        scale = stream if stream > 0 else 1.0
        self.chain_error[layer] = chain / scale
        if self.branches_add:
            self.branch_error[layer] = branches / scale
        h = self._centred(self._later(states.hidden).double())
        self.writes[layer], directions, centred = layer_write(h, self._write(states, states.next_input))
        self.directions[layer], self.centred[layer] = directions.cpu(), centred.cpu()
        if self._after is not None:  # the final norm has run, so this layer is the last
            self.published_last = layer_write(h, self._write(states, self._after.to(states.hidden.device)))[0]
            self._after = None

    def _later(self, x: torch.Tensor) -> torch.Tensor:
        """All tokens but the first of each sequence, where float64 can be had."""
        x = x[self.later.to(x.device)]
        return x.cpu() if x.device.type == "mps" else x

    def _write(self, states: LayerStates, following: torch.Tensor) -> torch.Tensor:
        return self._centred(self._later(following).double().sub_(self._later(states.hidden)))

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        return x.sub_(x.mean(1, keepdim=True)) if self.layer_norm else x


def _largest(states: LayerStates) -> tuple[float, float, float]:
    """Largest entries, NaN if there is one: of the stream; of output − next input; of δ − attention − feed-forward."""
    worst = torch.zeros(3, dtype=torch.float64)
    for first in range(0, len(states.hidden), TOKENS):
        rows = slice(first, first + TOKENS)
        names = ("hidden", "attention", "feed_forward", "output", "next_input")
        hidden, attention, feed_forward, output, next_input = (_float64(getattr(states, n)[rows]) for n in names)
        # The stream between the branches is a hidden state too; its rounding is in δ.
        stream = torch.stack([x.abs().max() for x in (hidden, hidden + attention, next_input)]).max()
        branches = (next_input - hidden - attention - feed_forward).abs().max()
        worst = torch.maximum(worst, torch.stack([stream, (output - next_input).abs().max(), branches]).cpu())
    return tuple(worst.tolist())


def _float64(x: torch.Tensor) -> torch.Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64

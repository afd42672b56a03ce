"""How does one layer change the residual stream, reduced before the next layer is done?

The probe turns a layer's states into a `LayerWrite`, its top directions and the errors of two
identities, so that the memory does not grow with depth. The first token of each sequence is
dropped: it attends to nothing but itself, and in many models it carries a huge constant state.
"""

import torch

from analyses.errors import InputError
from analyses.probe import LayerStates, Probe
from analyses.writes import LayerWrite, layer_write


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
        hidden, next_input = _float64(states.hidden), _float64(states.next_input)
        attention, feed_forward = _float64(states.attention), _float64(states.feed_forward)
        if not next_input.isfinite().all():
            raise InputError(f"layer {layer}: hidden states are not finite; use a wider --dtype")
        delta = next_input - hidden
        # The stream between the branches is a hidden state too; its rounding is in δ.
        stream = max(float(x.abs().max()) for x in (hidden, hidden + attention, next_input))
        scale = stream if stream > 0 else 1.0
        self.chain_error[layer] = float((_float64(states.output) - next_input).abs().max()) / scale
        if self.branches_add:
            self.branch_error[layer] = float((delta - attention - feed_forward).abs().max()) / scale
        del attention, feed_forward
        h, delta = self._rows(hidden), self._rows(delta)
        self.writes[layer], directions, centred = layer_write(h, delta)
        self.directions[layer], self.centred[layer] = directions.cpu(), centred.cpu()
        if self._after is not None:  # the final norm has run, so this layer is the last
            published = _float64(self._after).to(hidden.device) - hidden
            self.published_last = layer_write(h, self._rows(published))[0]
            self._after = None

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        x = x[self.later.to(x.device)]
        return x - x.mean(1, keepdim=True) if self.layer_norm else x


def _float64(x: torch.Tensor) -> torch.Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64

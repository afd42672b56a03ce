"""Each layer's change of the residual stream, reduced to its statistics during the forward pass.

The probe turns a layer's states into a `LayerWrite`, its top directions, the errors of two identities, the cosines
of its branches with the next layer's on the same states, its write's covariance with the layer's before, and
the sums of its normal equations. Only these sums grow with depth (`shared_map` says by how much), and of the layer
before no more is held than `covariances` needs. Identities and cosines are read off some tokens at a
time; in float64 the layer's input and its write are held, and nothing else of their size beyond
what `layer_write` needs. The first token of each sequence is
dropped: it attends to nothing but itself, and in many models it carries a huge constant state.
"""

import torch

from analyses.delta_svd.annealing import OF_MAPS
from analyses.delta_svd.covariances import Covariance, alignment, covariance
from analyses.delta_svd.functional import BRANCHES, cosines
from analyses.delta_svd.overlaps import Frames, directions_of, overlap
from analyses.delta_svd.shared_map import Sums, sums
from analyses.delta_svd.writes import DIRECTIONS, LayerWrite, layer_write
from analyses.errors import InputError
from analyses.forward.probe import LayerStates, Probe
from analyses.numerics.prompt_groups import FOLDS, groups

TOKENS = 256  # compared at a time, in float64

FUNCTIONAL = ("functional_cos", "functional_cos_squared")
BETWEEN = ("write_alignment", "write_overlap", "median_adjacent_abs_cos_centred")
"""Metrics that need the next layer's branches, and the write of the layer before."""
OF_FORM = {
    "plain": ("median_top1_frac", "phase_p_published"),
    "unit_rows": ("median_top1_frac_unit_rows",),
    "without_outliers": ("median_top1_frac_without_outliers",),
}
"""Form of a write → the metrics that are made of it."""


class DeltaProbe(Probe):
    """Reduces every layer's states to a `LayerWrite`, its top directions and its identities' errors."""

    @property
    def next_branches(self) -> bool:
        return self.asks(*FUNCTIONAL)

    def __init__(self, *, layer_norm: bool, branches_add: bool = True):
        self.layer_norm = layer_norm  # adding c·1 to a write is then an exact symmetry: centre over features
        self.branches_add = branches_add  # False where the stream is normalised behind each branch
        self.writes: dict[int, LayerWrite] = {}
        self.directions: dict[int, torch.Tensor] = {}  # (mode, hidden)
        self.centred: dict[int, torch.Tensor] = {}
        self.chain_error: dict[int, float] = {}  # max |output − next input| / max |h|
        self.branch_error: dict[int, float] = {}  # max |δ − attention − feed-forward| / max |h|
        self.published_last: LayerWrite | None = None
        # branch → first layer of a pair → (1 + group,)
        self.functional: dict[str, dict[int, torch.Tensor]] = {branch: {} for branch in BRANCHES}
        self.refused = ""  # why the next layer's branches could not be had
        self.alignments: dict[int, torch.Tensor] = {}  # second layer of a pair → (1 + group,)
        self.overlaps: dict[int, torch.Tensor | None] = {}  # second layer of a pair → (2, 1 + group), see `overlap`
        self.maps: dict[int, Sums | None] = {}
        self._after: torch.Tensor | None = None
        self._before: tuple[int, Covariance, Frames] | None = None  # of the layer before

    def begin(self, real: torch.Tensor) -> None:
        position = torch.arange(real.shape[1]).expand_as(real)
        self.later = position[real] > 0  # (token,)
        if not self.later.any():
            raise InputError("every sequence of the text is a single token; delta_svd drops each sequence's first")
        lengths = (real.sum(1) - 1).clamp_min(0).tolist()
        self.groups, self.folds = groups(lengths), groups(lengths, FOLDS)
        self._before = None

    def final(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self._after = after

    def layer(self, layer: int, states: LayerStates) -> None:
        if not torch.stack(states.next_input.aminmax()).isfinite().all():  # both are NaN if any is
            raise InputError(f"layer {layer}: hidden states are not finite; use a wider --dtype")
        whole = self.asked is None  # identities, and what was published of the last layer, are no metrics
        if whole:
            self._compare_sums(layer, states)
        self._compare_branches(layer, states)
        h = self._centred(self._later(states.hidden).double())
        write = self._write(states, states.next_input)
        forms = {form for form, metrics in OF_FORM.items() if self.asks(*metrics)}
        self.writes[layer], directions, centred = layer_write(h, write, self.groups.slices, forms)
        self.directions[layer], self.centred[layer] = directions[:DIRECTIONS].cpu(), centred[:DIRECTIONS].cpu()
        if self.asks(*OF_MAPS):
            self.maps[layer] = sums(h, write, self.folds.slices, single=states.hidden.dtype == torch.float32)
        if whole and self._after is not None:  # the final norm has run, so this layer is the last
            after = self._write(states, self._after.to(states.hidden.device))
            self.published_last = layer_write(h, after, forms={"plain"})[0]
            del after
        self._after = None
        del h
        self._compare_with_before(layer, write.sub_(write.mean(0)), centred)

    def _compare_sums(self, layer: int, states: LayerStates) -> None:
        stream, chain, branches = _largest(states)
        scale = stream if stream > 0 else 1.0
        self.chain_error[layer] = chain / scale
        if self.branches_add:
            self.branch_error[layer] = branches / scale

    def _compare_branches(self, layer: int, states: LayerStates) -> None:
        self.refused = self.refused or states.next_refused
        for branch in BRANCHES:
            if (other := getattr(states, f"next_{branch}")) is not None:
                own = self._later(getattr(states, branch))
                self.functional[branch][layer] = cosines(
                    own, self._later(other), self.groups.slices, centre_features=self.layer_norm
                )

    def _compare_with_before(self, layer: int, centred_write: torch.Tensor, span: torch.Tensor) -> None:
        if len(self.groups.slices) < 2 or not self.asks(*BETWEEN):
            return
        dimensions = centred_write.shape[1] - self.layer_norm
        own = covariance(centred_write, self.groups.slices, dimensions=dimensions)
        frames = directions_of(span, self.writes[layer].centred_without)
        if self._before is not None and self._before[0] == layer - 1:
            _, before, frames_before = self._before
            self.alignments[layer] = alignment(before, own).cpu()
            self.overlaps[layer] = overlap(frames_before, frames, dimensions=dimensions)
        self._before = (layer, own, frames)

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

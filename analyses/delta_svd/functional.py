"""Cosines between what adjacent layers' branches write on the same states.

Two layers that do the same thing write the same on the same input, in whatever coordinates their weights are
stored. So the feed-forward of layer ℓ+1, with the norms that belong to it, is evaluated on the states that the
feed-forward of layer ℓ read, and what the two write, (token × hidden) matrices A and B centred over tokens, is
compared by cos = ⟨A, B⟩/(‖A‖‖B‖), the Frobenius inner product; likewise attention. Its square is the share that
one scalar multiple of a layer's branch explains of the next one's. A choice of experts is one branch, its router
included. In a pre-norm model with LayerNorm both are centred over features too: what reads the stream does not see
a constant there.

Only sums over groups of prompts are kept: ⟨A,B⟩, ‖A‖², ‖B‖² and the column sums, so that the cosine with a group
left out is exact.
"""

from collections.abc import Sequence

import torch

BRANCHES = ("feed_forward", "attention")


def cosines(a: torch.Tensor, b: torch.Tensor, groups: Sequence[slice], *, centre_features: bool) -> torch.Tensor:
    """cos of two centred writes, of all tokens and with each group left out.

    Parameters
    ----------
    a, b : (token, hidden), of any precision; upcast a group at a time.
    groups : runs of tokens that together are all of them.

    Returns
    -------
    (1 + group,) float64, from −1 to 1; NaN where a write does not vary over tokens.
    """
    parts = [_sums(a[part], b[part], centre_features) for part in groups]
    counts = torch.tensor([float(part.stop - part.start) for part in groups], dtype=torch.float64)
    products = torch.stack([products for products, _, _ in parts])  # (group, [⟨a,a⟩, ⟨b,b⟩, ⟨a,b⟩])
    sums_a, sums_b = (torch.stack([part[i] for part in parts]) for i in (1, 2))  # (group, hidden)
    counts, products, sums_a, sums_b = (_all_and_without(x) for x in (counts, products, sums_a, sums_b))
    means = torch.stack([(x * y).sum(1) for x, y in ((sums_a, sums_a), (sums_b, sums_b), (sums_a, sums_b))], 1)
    aa, bb, ab = (products - means / counts[:, None]).unbind(1)
    # A write that does not vary leaves rounding of its own size, squared.
    varies = (aa > ROUNDING * products[:, 0]) & (bb > ROUNDING * products[:, 1])
    return torch.where(varies, ab / (aa * bb).sqrt(), torch.nan)


ROUNDING = 1e-14  # of sums of squares in float64, times a few dozens


def _sums(a: torch.Tensor, b: torch.Tensor, centre_features: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b = _float64(a), _float64(b)
    if centre_features:
        a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    products = torch.stack([(a * a).sum(), (b * b).sum(), (a * b).sum()])
    return products.cpu(), a.sum(0).cpu(), b.sum(0).cpu()


def _all_and_without(parts: torch.Tensor) -> torch.Tensor:
    """(group, …) sums → (1 + group, …): over all groups, and over all but each one."""
    total = parts.sum(0, keepdim=True)
    return torch.cat([total, total - parts])


def _float64(x: torch.Tensor) -> torch.Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64

"""What an attention mask shows each query, in the blocks of short sequences and queries that are worked on together.

Masks are the same for all layers, or for every other one, so that what is found here serves a whole pass. Sequences are
taken in the order of their length.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

PADDING = 0.1  # of the tokens of sequences that go together at most


class Part(NamedTuple):
    """Some queries of sequences that are worked on together, and the keys that any of them sees, key 0 left out."""

    which: torch.Tensor | slice  # the sequences
    sequences: slice  # the same, in the order of `Shown`
    queries: slice
    keys: slice
    near: slice  # of these keys, those that are hidden from some of the queries or have something added to a logit
    added: torch.Tensor  # (sequence, 1 or head, query, near) float64: −∞ where hidden, else the mask's finite part

    def cut(self, per_pair: torch.Tensor, heads: slice) -> torch.Tensor:
        """The part's entries of a (sequence, head, query, key) array in the order of the text."""
        return per_pair[:, heads, self.queries, self.keys][self.which]

    def of(self, heads: slice) -> torch.Tensor:
        """`added` of some heads."""
        return self.added if self.added.shape[1] == 1 else self.added[:, heads]


class Shown:
    """What a mask shows, part by part, and of all queries how many keys they see."""

    def __init__(self, mask: torch.Tensor, real: torch.Tensor, *, queries: int, most: int):
        """
        Parameters
        ----------
        mask : (sequence, 1 or head, token, token), see `AttentionInputs`. real : (sequence, token), on one device.
        queries : worked on at a time. most : pairs of a query and a key of several sequences together.
        """
        self.mask, self.real, self.queries = mask.expand(len(real), *mask.shape[1:]), real, queries
        lengths = real.sum(1).tolist()
        self.together = alike(lengths, most)
        order = [number for group in self.together for number in group]
        self.order = None if order == list(range(len(order))) else torch.tensor(order, device=real.device)
        ranks = torch.tensor(order, device=real.device).argsort()
        tokens = torch.arange(real.shape[1], device=real.device)
        self.places = (ranks[:, None] * len(tokens) + tokens)[real]  # (query,) of all real ones, in this order
        shape = (len(order), *mask.shape[1:3])  # (sequence, 1 or head, token), in this order
        self.left = torch.zeros(shape, dtype=torch.float64, device=real.device)  # visible keys other than key 0
        self.sees_zeroth = torch.zeros(shape, dtype=torch.bool, device=real.device)
        self.added_to_zeroth = torch.zeros(shape, dtype=torch.float64, device=real.device)
        self.kept: list[Part] | None = None

    def parts(self) -> Iterator[Part]:
        """All parts; `left`, `sees_zeroth` and `added_to_zeroth` are known behind the last. A mask is read once.

        One that differs between heads is as large as all logits, and nothing of it is kept.
        """
        if self.kept is not None:
            yield from self.kept
            return
        if self.mask.shape[1] > 1:
            yield from self._read()
            return
        self.kept = list(self._read())
        del self.mask
        yield from self.kept

    def in_order(self, states: torch.Tensor) -> torch.Tensor:
        """Sequences of the text in the order of the parts."""
        return states if self.order is None else states[self.order.to(states.device)]

    def _read(self) -> Iterator[Part]:
        first = 0
        for group in self.together:
            rows = slice(first, first + len(group))
            first = rows.stop
            which = slice(group[0], group[0] + 1) if len(group) == 1 else torch.tensor(group)
            real = self.real[which]
            tokens = int(real.sum(1).max())
            visible, finite = _read(self.mask[which].to(real.device), real, tokens)
            zeroth = self.sees_zeroth[rows, :, :tokens] = visible[..., 0]
            self.added_to_zeroth[rows, :, :tokens] = 0 if finite is None else finite[..., 0].double() * zeroth
            visible[..., 0] = False
            self.left[rows, :, :tokens] = visible.sum(-1).double()  # as whole numbers they would divide into float32
            for start in range(0, tokens, self.queries):
                queries = slice(start, min(start + self.queries, tokens))
                keys = _span(visible[:, :, queries].flatten(0, 2).any(0))
                hidden = ~visible[:, :, queries, keys]
                more = hidden if finite is None else hidden | (finite[:, :, queries, keys] != 0)
                near = _span(more.flatten(0, 2).any(0))
                added = torch.zeros(hidden[..., near].shape, dtype=torch.float64, device=real.device)
                if finite is not None:
                    added += finite[:, :, queries, keys][..., near]
                yield Part(which, rows, queries, keys, near, added.masked_fill_(hidden[..., near], -torch.inf))


def _read(mask: torch.Tensor, real: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A mask of some sequences, of so many tokens at most: (what is visible, what it adds to the logits, if anything).

    real : (sequence, token). Of padding, keys are hidden, and what its queries see counts for nothing.
    """
    shown = mask.clone() if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    if (shown & real[:, None, :, None] & ~real[:, None, None]).any():
        raise ValueError("a query sees padding: the attention mask was not read as the model reads it")
    shown = (shown & real[:, None, None])[..., :tokens, :tokens]
    if mask.dtype == torch.bool:
        return shown, None
    finite = mask[..., :tokens, :tokens].masked_fill(~shown, 0)
    return shown, finite if finite.any() else None


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Sequences of similar length that are worked on together, by number; a long one alone.

    Parameters
    ----------
    lengths : of all sequences.
    most : pairs of a query and a key, padding included, of several together.

    >>> alike([3, 50, 3, 4, 52], 10_000)
    [[0, 2], [3], [1, 4]]
    """
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest, last = lengths[number], found[-1] if found else []
        together = len(last) + 1
        padding = together * longest - sum(lengths[i] for i in last) - longest
        if last and together * longest**2 <= most and padding <= PADDING * together * longest:
            last.append(number)
        else:
            found.append([number])
    return found


def _span(true: torch.Tensor) -> slice:
    """From the first true entry to the last; the first entry alone if none is true.

    >>> _span(torch.tensor([False, True, False, True, False]))
    slice(1, 4, None)
    """
    (where,) = true.nonzero(as_tuple=True)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 1)

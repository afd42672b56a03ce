"""The table of supported architectures for docs/families.md, and their names for the README."""

import textwrap
from collections.abc import Iterable

from analyses.weights.architectures import ARCHITECTURES, Architecture

HEADINGS = ("family", "`model_type`", "norms", "positions", "q, k, v on disk", "feed-forward", "other layers")


def markdown() -> str:
    """One line a family, or stack of one; forms of one family together."""
    families: dict[tuple[str, str], list[Architecture]] = {}
    for record in ARCHITECTURES:
        if not record.refused:
            families.setdefault((record.model_types[0], record.stack), []).append(record)
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(_line, families.values())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def names() -> str:
    """The families as a wrapped list, in the order of the table."""
    found = dict.fromkeys(record.name.partition(",")[0] for record in ARCHITECTURES if not record.refused)
    return "\n".join(textwrap.wrap(", ".join(found) + ".", 120, break_on_hyphens=False, break_long_words=False))


def _line(records: list[Architecture]) -> tuple[str, ...]:
    usual = records[-1]
    return (
        usual.name if usual.stack else usual.name.partition(",")[0],
        ", ".join(f"`{name}`" for name in usual.model_types),
        _each(map(_norms, records)),
        _each(map(_positions, records)),
        _each("products of two factors" if r.latent else r.tensors["q_proj"].layout.name for r in records),
        _each(map(_feed_forward, records)),
        "; ".join(dict.fromkeys(kind.name for record in records for kind in record.kinds)),
    )


def _each(words: Iterable[str]) -> str:
    """What the forms of a family say, each once, the usual form first."""
    return "; or ".join(dict.fromkeys(reversed(list(words))))


def _norms(record: Architecture) -> str:
    kind = "LayerNorm" if record.layer_norm else "RMSNorm"
    if record.gain_offset:
        kind += f" (gain {record.gain_offset:g} + w)"
    if record.bare_norms:
        kind += " without parameters"
    if record.post_norm:
        return f"{kind} of the stream, behind each branch"
    if "attn_out_ln" in record.further:
        before = "before and " if "input_ln" in record.tensors else ""
        kind += f" {before}behind each branch"
    return kind + (f", q/k {record.qk_norm}" if record.qk_norm else "")


def _positions(record: Architecture) -> str:
    if record.unplaced:
        return "none"
    words = {"halves": "rotary", "pairs": "rotary, pairs", None: "not rotary"}[record.rotary]
    return words + (", in windows only" if record.turned_in else "")


def _feed_forward(record: Architecture) -> str:
    kind = "gated" if record.gated else "plain"
    return kind + (", experts" if record.experts else "") + (", parallel" if record.parallel else "")

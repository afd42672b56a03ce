"""Corrections and limits of one analysis as one list: every thing once, with the claims that it concerns.

Published formulas beside the right ones, errata of the gates, what the numbers cannot say, and notes of the
measurement come from different places and overlap: a sentence that two errata share is told once, and a note that
only restates what the list says already is left to the record.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from checks.report import words
from checks.sections.section import Comparison

RESTATED = 0.6  # share of a note's longer words that one other remark has, from which on it says nothing new
LONGER = 4  # letters of a word that counts


def remarks(
    published: Sequence[Comparison], claims: Sequence[Mapping[str, Any]], limits: Sequence[str], notes: Sequence[str]
) -> list[dict[str, str]]:
    """The list: each remark its text and the claims that it concerns, "" for none or all."""
    told = [
        {"subject": row.quantity, "text": f"{row.published}. Here: {row.corrected}.", "claims": ""} for row in published
    ]
    concerned: dict[str, list[str]] = {}
    for claim in claims:
        for sentence in _sentences(claim["errata"]):
            concerned.setdefault(sentence, []).append(claim["id"])
    # Sentences that concern the same claims stay together: one may need the other to be understood.
    together: dict[tuple[str, ...], list[str]] = {}
    for sentence, ids in concerned.items():
        together.setdefault(tuple(ids), []).append(sentence)
    told += [
        {"subject": "", "text": " ".join(sentences), "claims": ", ".join(ids)} for ids, sentences in together.items()
    ]
    told += [{"subject": "", "text": words.sentence(limit), "claims": ""} for limit in limits]
    for note in notes:
        if not any(restates(note, f"{remark['subject']} {remark['text']}") for remark in told):
            told.append({"subject": "", "text": words.sentence(note), "claims": ""})
    return told


def restates(note: str, other: str) -> bool:
    """Whether most of a note's longer words stand in another remark.

    >>> restates("the order of heads is free", "The order of heads is a free permutation."), restates("first", "last")
    (True, False)
    """
    own, known = _words(note), _words(other)
    return bool(own) and len(own & known) >= RESTATED * len(own)


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) >= LONGER}


def _sentences(text: str) -> list[str]:
    """A text cut after its full stops that a capital letter follows."""
    return [words.sentence(part) for part in re.split(r"(?<=\.) (?=[A-Z])", text) if part.strip()]

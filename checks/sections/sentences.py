"""Each claim in a few words, and what is found where it holds or does not: the sentences of masthead and overview.

A claim whose id is not here is told in the words of its gate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A claim in a few words, and as a finding."""

    short: str  # for a line of the overview; understood without the lines around it
    holds: str
    fails: str


def _of(short: str, holds: str, fails: str) -> Sentence:
    return Sentence(short=short, holds=holds, fails=fails)


SENTENCES: Mapping[str, Sentence] = {
    "NR1": _of(
        "adjacent layers do unrelated things",
        "Adjacent layers do unrelated things.",
        "Adjacent layers do related things.",
    ),
    "NR1m": _of(
        "weights unrelated, neurons and heads matched",
        "Weights of adjacent layers are unrelated even with their neurons and heads matched.",
        "Weights of adjacent layers are related once their neurons and heads are matched.",
    ),
    "NR2": _of(
        "one layer does not explain the next",
        "One layer’s weights explain almost nothing of the next one’s.",
        "One layer’s weights explain some of the next one’s.",
    ),
    "NR3": _of(
        "adjacent layers use different directions",
        "Adjacent layers read and write in different directions.",
        "Adjacent layers read and write in shared directions.",
    ),
    "NR4": _of(
        "all scales of a layer move as one",
        "The scales of a layer’s parts move as one over depth.",
        "The scales of a layer’s parts do not move as one over depth.",
    ),
    "NR5": _of(
        "adjacent layers favour the same directions",
        "Adjacent layers favour the same directions of the stream.",
        "Adjacent layers do not favour the same directions of the stream.",
    ),
    "SF1": _of(
        "scales follow a smooth schedule",
        "The scales of a layer’s parts follow a smooth schedule over depth.",
        "The scales of a layer’s parts follow no smooth schedule over depth.",
    ),
    "SF2": _of(
        "measured temperature cools exponentially",
        "Measured temperature follows an exponential cooling law.",
        "Measured temperature follows no exponential cooling law.",
    ),
    "SF3": _of(
        "measured temperature falls with depth",
        "Measured temperature falls with depth.",
        "Measured temperature does not fall with depth.",
    ),
    "SF4": _of(
        "exponential cooling beats other laws",
        "Of all cooling laws the exponential one fits measured temperature best.",
        "Exponential cooling does not fit measured temperature better than other laws.",
    ),
    "SF5": _of(
        "size of the main write is exponential in depth",
        "The size of a layer’s main write changes exponentially with depth.",
        "The size of a layer’s main write does not change exponentially with depth.",
    ),
    "HG1": _of(
        "heads of adjacent layers are unrelated",
        "Heads of adjacent layers are unrelated.",
        "Heads of adjacent layers are related.",
    ),
    "HG2": _of(
        "heads of adjacent layers share top directions",
        "Heads of adjacent layers look for the same directions.",
        "Heads of adjacent layers share few directions beyond those that their layers read anyway.",
    ),
    "HG3": _of(
        "most heads both attract and repel",
        "Most heads both attract and repel like directions.",
        "Many heads only attract or only repel like directions.",
    ),
    "HE1": _of(
        "a head’s spectrum predicts its entropy",
        "A head’s spectrum predicts its attention entropy.",
        "A head’s spectrum does not predict its attention entropy.",
    ),
    "HE2": _of(
        "a spectrum predicts entropy inside a layer too",
        "Among the heads of a layer, the spectrum predicts attention entropy.",
        "Among the heads of a layer, the spectrum does not predict attention entropy.",
    ),
    "HE3": _of(
        "a spectrum predicts entropy in unseen layers",
        "Spectra of some layers’ heads predict the attention entropy of other layers’ heads.",
        "Spectra of some layers’ heads do not predict the attention entropy of other layers’ heads.",
    ),
    "DS1": _of(
        "a layer writes one direction",
        "A typical layer writes essentially one direction.",
        "A typical layer writes many directions, not one.",
    ),
    "DS2": _of(
        "a layer writes one direction, its mean removed",
        "A typical layer writes essentially one direction also with its mean write removed.",
        "With its mean write removed, a typical layer does not write one direction.",
    ),
    "DS3": _of(
        "adjacent layers write different directions",
        "Adjacent layers write nearly orthogonal directions.",
        "Adjacent layers write related directions.",
    ),
    "DS4": _of(
        "published phases share a subspace",
        "Layers of one published phase write more alike than layers of two.",
        "Layers of one published phase write no more alike than layers of two.",
    ),
    "DS5": _of(
        "steps shrink with depth",
        "Relative steps shrink with depth.",
        "Relative steps do not shrink with depth.",
    ),
    "AN1": _of(
        "phase C writes by one shared map",
        "The layers of phase C write by one shared map.",
        "The layers of phase C do not write by one shared map.",
    ),
    "AN2": _of(
        "beyond that map, one direction a layer",
        "Beyond a shared map, each layer of phase C writes one direction.",
        "Beyond a shared map, the layers of phase C write many directions each.",
    ),
    "AN3": _of(
        "phase C writes into few dimensions",
        "The layers of phase C write into few dimensions.",
        "The layers of phase C do not write into few dimensions.",
    ),
    "AN4": _of(
        "each layer of phase E writes its own direction",
        "Each layer of phase E writes a direction of its own.",
        "The layers of phase E share the directions that they write.",
    ),
    "AN5": _of(
        "phase C shares more than phase E",
        "The layers of phase C share more directions than those of phase E.",
        "The layers of phase C share no more directions than those of phase E.",
    ),
    "RS1": _of(
        "a few tokens have massive states",
        "In some layers a few tokens have massive states.",
        "No layer has tokens with massive states.",
    ),
    "RS2": _of(
        "massive tokens and attention sinks go together",
        "Massive tokens and attention sinks rise and fall together over depth.",
        "Massive tokens and attention sinks do not rise and fall together over depth.",
    ),
    "RS2r": _of(
        "sinks do not follow the size of massive tokens",
        "Among layers with massive tokens, the sink does not follow their size.",
        "Among layers with massive tokens, the sink follows their size.",
    ),
    "RS3": _of(
        "massive tokens alone compress middle layers",
        "Middle layers compress their states because of massive tokens alone.",
        "Middle layers do not compress their states because of massive tokens alone.",
    ),
    "RS4": _of(
        "later layers write half as much",
        "Relative to what is there, later layers write half as much as earlier ones.",
        "Relative to what is there, later layers write more than half as much as earlier ones.",
    ),
    "RS4r": _of(
        "writes fall as unrelated ones would",
        "Relative writes fall as those of unrelated layers would.",
        "Relative writes do not fall as those of unrelated layers would.",
    ),
    "RS5": _of(
        "states grow exponentially",
        "The length of states grows exponentially with depth.",
        "The length of states does not grow exponentially with depth.",
    ),
    "RS5r": _of(
        "states grow as the root of depth",
        "The length of states grows as the root of depth.",
        "The length of states does not grow as the root of depth.",
    ),
    "RS6": _of(
        "writes are linear in the state",
        "What a layer writes is a linear function of its states.",
        "What a layer writes is no linear function of its states.",
    ),
    "RS7": _of(
        "deep blocks are redundant",
        "Blocks of deep layers turn their states little.",
        "Blocks of deep layers turn their states much.",
    ),
    "RS8": _of(
        "states point alike, more so with depth",
        "States of different tokens point in like directions, more so with depth.",
        "States of different tokens do not point in ever more like directions with depth.",
    ),
    "HG4": _of(
        "queries and keys are directional",
        "A head’s queries and keys are directional, hardly more symmetric than unrelated ones.",
        "A head’s queries and keys are more symmetric than unrelated ones.",
    ),
    "HG4e": _of(
        "an encoder’s queries and keys are symmetric",
        "What attends to what is attended to: queries and keys are symmetric.",
        "Queries and keys are not symmetric.",
    ),
    "HG5": _of(
        "heads’ products are of low rank",
        "Heads’ products are of lower rank than their factors need.",
        "Heads’ products are of no lower rank than their factors need.",
    ),
    "HG6": _of(
        "large queries and keys turn slowly",
        "Large queries and keys sit in the rotary planes that turn slowly.",
        "Large queries and keys do not sit in the rotary planes that turn slowly.",
    ),
    "AT1": _of(
        "a good part of the heads are sinks",
        "A good part of the heads give the first token much of their attention.",
        "Few heads give the first token much of their attention.",
    ),
    "WS1": _of(
        "spectra have heavy tails",
        "The spectra of what layers read and write have heavy tails.",
        "The spectra of what layers read and write have no heavy tails as stated.",
    ),
}

FIRST = ("DS3", "DS1", "SF3", "HE2", "HG2", "NR1", "HG1", "NR5")
"""Findings that a masthead tells before others, because a reader needs no further word to understand them."""

MOST = 3  # findings of either kind that a masthead names


def short(claim: Mapping[str, Any]) -> str:
    """A claim in a few words; the gate's own sentence where there are none."""
    known = SENTENCES.get(claim["id"].removesuffix(".stored"))
    return known.short if known else claim["claim"]


def findings(claims: Sequence[Mapping[str, Any]], verdict: str) -> list[str]:
    """Up to MOST findings with this verdict, "holds" or "does not hold", from as many sections as there are."""
    decided = [c for c in claims if c["verdict"] == verdict and c["id"] in SENTENCES]
    decided.sort(key=lambda c: FIRST.index(c["id"]) if c["id"] in FIRST else len(FIRST))  # else in the page's order
    chosen: list[Mapping[str, Any]] = []
    for again in (False, True):  # first one of every section, then more of any
        for claim in decided:
            seen = any(claim["analysis"] == c["analysis"] for c in chosen)
            if len(chosen) < MOST and claim not in chosen and (again or not seen):
                chosen.append(claim)
    return [SENTENCES[c["id"]].holds if verdict == "holds" else SENTENCES[c["id"]].fails for c in chosen]

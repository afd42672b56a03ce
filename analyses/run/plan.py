"""The plan of a measurement: what it would read, cost and leave out, from headers alone without reading a tensor.

Of a repository of the hub only its config and the headers of its files are fetched.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analyses.forward.calibration import load_calibration
from analyses.run.costs import Cost, costs, tokens
from analyses.weights import hub
from analyses.weights.checkpoint import Checkpoint, assemble
from analyses.weights.schema import FAMILIES, MATRICES, Header

NO_TEXT = "the checkpoint holds no tokenizer, so no text can be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known of a model before it is measured."""

    model: str
    revision: str | None  # commit of a hub model; None for a folder
    remote: bool  # whether its weights would be fetched first
    architecture: str
    recognised: str  # how
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    experts: int  # per layer; 0 without a choice
    parameters: int  # stored ones, each once
    weight_files: int
    weight_bytes: int  # to read once to check and hash them; of a remote model also to fetch
    dtypes: Mapping[str, int]  # type → parameters stored in it
    present: tuple[str, ...]  # families
    absent: Mapping[str, str]  # family → why
    text: str  # name of the calibration text
    tokens: int  # about how many it has
    costs: Mapping[str, Cost]  # analysis, and "forward" for the pass that two of them share
    skipped: Mapping[str, str]  # analysis, or part of one → why
    notes: tuple[str, ...]


def plan(source: str) -> Plan:
    """The plan of a folder, a hub id or `id@revision`.

    Raises InputError in one line for whatever would keep the model from being measured.
    """
    described = hub.describe(source)
    checkpoint = assembled(described)
    shape, text = checkpoint.shape, load_calibration(None)
    stored = [header for header in checkpoint.headers.values() if header.shares is None]
    return Plan(
        model=checkpoint.name,
        revision=checkpoint.revision,
        remote=described.remote,
        architecture=checkpoint.architecture.name,
        recognised=checkpoint.note or f"by its model_type, {checkpoint.config['model_type']}",
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        feed_forward=shape.feed_forward,
        experts=shape.experts,
        parameters=checkpoint.parameters(),
        weight_files=len(set(checkpoint.files.values())),
        weight_bytes=sum(header.bytes for header in stored),
        dtypes=_dtypes(stored),
        present=checkpoint.families,
        absent={family: checkpoint.absent[family] for family in FAMILIES if family in checkpoint.absent},
        text=text.name,
        tokens=tokens(text),
        costs=costs(checkpoint, text, dtype="float32"),
        skipped=_skipped(checkpoint, described.has_tokenizer),
        notes=checkpoint.architecture.notes,
    )


def assembled(described: hub.Description) -> Checkpoint:
    """The checkpoint that is described; of one that is not here yet, no tensor can be read."""
    return assemble(
        name=described.name,
        folder=described.folder,
        revision=described.revision,
        config=described.config,
        stored=described.stored,
    )


def _dtypes(stored: Iterable[Header]) -> dict[str, int]:
    """Type → number of parameters, the most frequent first."""
    count: Counter[str] = Counter()
    for header in stored:
        count[header.dtype] += math.prod(header.shape)
    return dict(count.most_common())


def _skipped(checkpoint: Checkpoint, has_tokenizer: bool) -> dict[str, str]:
    skipped = {}
    if not has_tokenizer:
        skipped = {
            "delta_svd": NO_TEXT,
            "head_geometry": NO_TEXT,
            "attention_stats, of the text": NO_TEXT,
            "schedule_fit, of the measured temperature": NO_TEXT,
        }
    if "input_ln" not in checkpoint.families:
        skipped["schedule_fit, of the input gain"] = checkpoint.absent["input_ln"]
    missing = [family for family in MATRICES if family not in checkpoint.families]
    if missing:
        skipped["null_residual, of " + ", ".join(missing)] = "; ".join(
            dict.fromkeys(checkpoint.absent[f] for f in missing)
        )
    return skipped

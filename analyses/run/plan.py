"""The plan of a measurement: what it would read, cost and leave out, from headers alone without reading a tensor.

Of a repository of the hub only its config and the headers of its files are fetched.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analyses.errors import InputError
from analyses.forward.calibration import Calibration, load_calibration
from analyses.forward.foreign import foreign
from analyses.forward.inputs import Settings, Skipped
from analyses.forward.tokens import Sequences, sequences
from analyses.null_residual.pairs import settled
from analyses.registry import NAMES
from analyses.run.costs import Cost, costs, tokens
from analyses.run.measure import require_filters, wanted_tokens
from analyses.run.suite import restricted
from analyses.weights import hub
from analyses.weights.checkpoint import Checkpoint, assemble
from analyses.weights.schema import FAMILIES, MATRICES, Header

OF_TEXT = (
    "delta_svd", "head_geometry", "residual_stream", "attention_stats, of the text",
    "schedule_fit, of the measured temperature",
)  # fmt: skip
"""Analyses, or parts of one, that need a text."""

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


def plan(source: str, settings: Settings | None = None) -> Plan:
    """The plan of a folder, a hub id or `id@revision`, with the layers, families and text of these settings.

    Of a folder with a tokenizer the text's tokens are counted, and how many are unknown to it; of a repository they are
    estimated.

    Raises InputError in one line for whatever would keep the model from being measured.
    """
    settings = settings or Settings(tokens=None)
    described = hub.describe(source)
    checkpoint = assembled(described, settings.stack)
    require_filters(checkpoint, settings)
    text = load_calibration(settings.calibration, tokens=wanted_tokens(settings, checkpoint))
    skipped = _skipped(checkpoint, settings, text, described.has_tokenizer)
    read, unread = _read(checkpoint, text, described)
    whole, checkpoint = checkpoint, checkpoint.restricted(layers=settings.layers)
    compared = checkpoint.restricted(families=settings.families)
    shape, spectra = checkpoint.shape, settled(settings.spectra, checkpoint.shape.hidden)
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
        present=compared.families,
        absent={family: compared.absent[family] for family in FAMILIES if family in compared.absent},
        text=text.name,
        tokens=sum(map(len, read.ids)) if read else tokens(text),
        costs=costs(checkpoint, text, dtype="float32", spectra=spectra)
        | {"null_residual": costs(compared, text, dtype="float32", spectra=spectra)["null_residual"]},
        skipped=skipped | unread,
        notes=(*whole.architecture.notes, *whole.remarks),
    )


def _read(checkpoint: Checkpoint, text: Calibration, described: hub.Description) -> tuple[Sequences | None, dict]:
    """(the text in tokens, what it keeps from being decided), of a folder that can read it."""
    if described.remote or checkpoint.no_pass or not (described.has_tokenizer or text.ids):
        return None, {}
    try:
        read = sequences(checkpoint, text, False)
    except InputError as error:
        return None, dict.fromkeys(OF_TEXT, str(error))
    why = foreign({} if read.unknown is None else {"unknown_share": read.unknown})
    return read, {"every claim that reads the text (undecided)": why} if why else {}


def assembled(described: hub.Description, stack: str | None = None) -> Checkpoint:
    """The checkpoint that is described; of one that is not here yet, no tensor can be read."""
    return assemble(
        name=described.name,
        folder=described.folder,
        revision=described.revision,
        config=described.config,
        stored=described.stored,
        stack=stack,
    )


def _dtypes(stored: Iterable[Header]) -> dict[str, int]:
    """Type → number of parameters, the most frequent first."""
    count: Counter[str] = Counter()
    for header in stored:
        count[header.dtype] += math.prod(header.shape)
    return dict(count.most_common())


def _skipped(checkpoint: Checkpoint, settings: Settings, text: Calibration, has_tokenizer: bool) -> dict[str, str]:
    skipped = {}
    for name in NAMES:
        try:
            restricted(name, checkpoint, settings)
        except Skipped as reason:
            skipped[name] = str(reason)
    if checkpoint.no_pass:
        skipped |= dict.fromkeys(OF_TEXT, checkpoint.no_pass)
    elif not has_tokenizer and not text.ids:
        skipped |= dict.fromkeys(OF_TEXT, NO_TEXT)
    checkpoint = checkpoint.restricted(families=settings.families)
    if "input_ln" not in checkpoint.families:
        skipped["schedule_fit, of the input gain"] = checkpoint.absent["input_ln"]
    missing = [family for family in MATRICES if family not in checkpoint.families]
    if missing:
        skipped["null_residual, of " + ", ".join(missing)] = "; ".join(
            dict.fromkeys(checkpoint.absent[f] for f in missing)
        )
    return skipped

"""The files beside a model's records, `gates.json`, `controls.json` and `manifest.json`: their types, and reading them.

Whatever reads one of them reads it here, so that a file which was received, damaged or written by hand is refused in
one line. Keys that an earlier version did not write may be missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from analyses import records, shapes
from checks.claims.gate import DECISIVE, Comparator, Status

Word = Literal[
    "holds", "does not hold", "uninformative", "undecided", "not applicable", "coordinate-dependent", "error"
]
Known = dict[str, str | int | float | bool | None | list[str]]


class FoundMember(TypedDict):
    """One family of a worst."""

    value: float | None
    interval: NotRequired[tuple[float, float] | None]
    bonferroni: NotRequired[tuple[float, float] | None]
    n: NotRequired[dict[str, float]]
    reason: NotRequired[str | None]


class Found(TypedDict):
    """One condition, compared."""

    path: str
    quantity: str
    status: Status
    observed: float | None
    interval: tuple[float, float] | None
    comparator: Comparator
    threshold: float | None
    interval_bound: float | None
    margin: NotRequired[float | None]
    unit: NotRequired[str]
    n: NotRequired[dict[str, float]]
    where: NotRequired[str | None]
    reason: NotRequired[str | None]
    members: NotRequired[dict[str, FoundMember]]
    test: NotRequired[bool]
    p: NotRequired[float | None]


class Asked(TypedDict):
    """One gate's answer; a recorded one is without its findings."""

    id: str
    analysis: str
    claim: str
    status: Status
    findings: NotRequired[list[Found]]
    reason: NotRequired[str | None]
    kind: NotRequired[str]
    row: NotRequired[str]
    minimum: NotRequired[dict[str, float]]
    p: NotRequired[float | None]
    why: NotRequired[str]
    errata: NotRequired[str]


class Raw(TypedDict):
    """A verdict before it was corrected for the number of claims."""

    verdict: Word
    reason: NotRequired[str | None]


class TwinRun(TypedDict):
    """One twin."""

    name: str
    seed: NotRequired[int]
    status: NotRequired[Status]
    observed: list[float | None]
    where: NotRequired[str | None]
    findings: NotRequired[list[Status]]


class Evidenced(TypedDict):
    """What a control showed."""

    answer: str
    detail: str
    runs: NotRequired[list[TwinRun]]
    p: NotRequired[dict[str, float] | None]
    bands: NotRequired[list[float | None]]


class Controlled(TypedDict):
    """A claim's controls; null where one was not run."""

    control: NotRequired[Evidenced | None]
    noise: NotRequired[Evidenced | None]


class ModelRow(Asked):
    """A row about the model."""

    verdict: Word
    verdict_reason: NotRequired[str | None]
    raw: NotRequired[Raw]
    p_adjusted: NotRequired[float | None]
    controls: Controlled | None


class Reached(TypedDict):
    """The range of a stored number over exact maps."""

    low: float | None
    high: float | None
    value: float | None
    witness: str
    at_witness: float | None


class StoredRow(Asked):
    """A row about the stored coordinates."""

    verdict: Word
    meets: Literal["yes", "no", "undecided", "not asked", "failed"]
    orbits: NotRequired[list[Reached | None]]


class Counts(TypedDict):
    """How often each word was the answer."""

    claims: dict[str, int]
    integrity: dict[str, int]


class Gates(TypedDict):
    """`gates.json`."""

    schema_version: int
    model: NotRequired[str]
    integrity: list[Asked]
    claims: list[ModelRow]
    stored: NotRequired[list[StoredRow]]
    claim_set: NotRequired[int]
    own: NotRequired[dict[str, Any] | None]
    counts: NotRequired[Counts]
    verdicts: NotRequired[dict[str, str]]
    reading: NotRequired[str]


class Compared(TypedDict):
    """A statistic under an exact map."""

    path: str
    difference: float | None
    tolerance: float


class Controls(TypedDict):
    """`controls.json`."""

    schema_version: NotRequired[int]
    model: NotRequired[str]
    claims: NotRequired[dict[str, Controlled]]
    invariance: NotRequired[dict[str, list[Compared]]]
    orbits: NotRequired[dict[str, Reached | None]]
    records: NotRequired[dict[str, str]]
    code: NotRequired[str]
    own: NotRequired[str]
    parts: NotRequired[list[str]]


class Architected(TypedDict):
    """The model as it was read."""

    model_type: NotRequired[str]
    family: NotRequired[str]
    layers: NotRequired[int]
    hidden: NotRequired[int]
    heads: NotRequired[int]
    kv_heads: NotRequired[int]
    head_dim: NotRequired[int]
    feed_forward: NotRequired[int]
    experts: NotRequired[int]
    parameters: NotRequired[int]
    stored_dtype: NotRequired[str]
    notes: NotRequired[list[str]]
    record: NotRequired[str]


class Set(TypedDict):
    """The settings."""

    device: Literal["cpu", "cuda", "mps"]
    dtype: Literal["float64", "float32", "float16", "bfloat16"]
    attention: Literal["eager", "sdpa"]
    seed: int
    spectra: NotRequired[Literal["exact", "sampled", "none"]]
    matching: NotRequired[Literal["auto", "none"]]
    analyses: NotRequired[list[str]]
    stack: NotRequired[Literal["encoder", "decoder", "text", "vision"]]
    layers: NotRequired[str]
    families: NotRequired[str]
    batch: NotRequired[str]
    calibration: NotRequired[list[str]]
    tokens: NotRequired[int]
    trust_remote_code: NotRequired[bool]


class Versioned(TypedDict):
    """An analysis, as it ran."""

    version: int
    code: str
    key: str


class Text(TypedDict):
    """The calibration text."""

    name: str
    sha256: str


class Manifest(TypedDict):
    """`manifest.json`."""

    schema_version: NotRequired[int]
    model: str
    revision: NotRequired[str | None]
    absent: NotRequired[dict[str, str]]
    files: NotRequired[dict[str, str]]
    tensors: NotRequired[str]
    records: NotRequired[dict[str, str]]
    architecture: Architected
    settings: NotRequired[Set]
    calibration: NotRequired[Text]
    claims: NotRequired[dict[str, Any]]
    forward: NotRequired[dict[str, str | int | float | bool | None | list[str] | dict[str, float]]]
    analyses: NotRequired[dict[str, Versioned]]
    invariance: NotRequired[dict[str, dict[str, dict[str, bool]]]]
    source: NotRequired[Known]
    versions: NotRequired[dict[str, str]]
    machine: NotRequired[Known]
    determinism: NotRequired[Known]
    command: str
    date: NotRequired[str | None]
    timings: NotRequired[dict[str, float]]


TYPES = {"gates.json": "Gates", "controls.json": "Controls", "manifest.json": "Manifest"}


def read(path: Path) -> dict[str, Any]:
    """One of these files, by its name; raises InputError on what has not its type."""
    return checked(path.name, records.read_json(path), str(path))


def checked(name: str, tree: dict[str, Any], where: str) -> dict[str, Any]:
    """The content of one of these files, or of a record, wherever it was read; raises InputError as `read`."""
    if name in TYPES:
        shapes.require(shapes.shape(__name__, TYPES[name]), tree, where)
    else:
        records.require_record(tree, where)
    return tree


def deciding(claim: Mapping[str, Any]) -> int:
    """Which of a written claim's conditions gives its answer: of those of the worst status, the first.

    >>> deciding({"findings": [{"status": "pass"}, {"status": "fail"}, {"status": "inconclusive"}]})
    1
    """
    statuses = [DECISIVE.index(finding["status"]) for finding in claim["findings"]]
    return statuses.index(min(statuses))

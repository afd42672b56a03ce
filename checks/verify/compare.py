"""Two runs compared: what newly fails, what is mended, what moved, and what cannot be compared, and why.

A claim is compared only where both runs asked the same question of the same model: the keys of their
records say so. A difference between two models is a finding, not a regression, so their verdicts and
numbers stand side by side and are called neither failure nor drift. Two checkpoints of one training are
asked the same question too; what differs between them is what training did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses import records, registry
from analyses.errors import InputError, received
from checks.claims import written
from checks.claims.judge import judge
from checks.claims.sets import LATEST, VERSIONS
from checks.verify import comparable
from checks.verify.differences import Leaf, Tolerance, leaf
from checks.verify.embedded import NAMES, extract
from checks.verify.tolerances import rounding

FAILURE, FIX, LOST, GAINED, CHANGED, DRIFT, UNLIKE, SAME = (
    "new failure",
    "fix",
    "holds no longer",
    "holds now",
    "other verdict",
    "drift",
    "not comparable",
    "unchanged",
)
GROUPS = (FAILURE, FIX, LOST, GAINED, CHANGED, DRIFT, UNLIKE, SAME)
"""What can become of a claim, in the order in which a reader should see it."""

QUESTION = (
    "weights",
    "config",
    "tokenizer",
    "calibration",
    "dtype",
    "layers",
    "families",
    "spectra",
    "analysis_version",
)
"""Parts of a record's key that make another question; a difference in any other part is what a comparison is for: the
code, its libraries, the device, the number of threads, the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One run: a folder of records, or a page that carries them."""

    name: str
    judged: Mapping[str, Any]
    manifest: Mapping[str, Any]
    found: Mapping[str, Mapping[str, Any]]  # analysis → record
    doubted: frozenset[str] = frozenset()  # claims whose verdict is not what the records give


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One claim in both runs."""

    id: str
    analysis: str
    claim: str
    group: str  # of GROUPS
    reasons: tuple[str, ...]  # why it cannot be compared
    a: str | None  # verdicts; None where the claim was not asked
    b: str | None
    numbers: tuple[Leaf, ...]  # of its conditions
    trained: bool = False  # of two checkpoints of one training, whose numbers may move


def read_side(path: Path) -> Side:
    """A model's folder or its page.

    Raises InputError where there is neither, or the folder holds several models.
    """
    if path.is_dir():
        if not (path / "manifest.json").exists():
            raise InputError(f"{path}: no manifest.json; give one model's folder of records, or its report.html")
        trees = {name: records.read_json(path / name) for name in NAMES if (path / name).exists()}
    else:
        trees = {name: records.parse_json(data, f"{path}: {name}") for name, data in extract(path).items()}
    if "gates.json" not in trees:
        raise InputError(f"{path}: not judged yet; run `fathom report` on it first")
    for name, tree in trees.items():
        written.checked(name, tree, f"{path}: {name}")
    if any("findings" not in row for row in rows(trees["gates.json"])):
        why = "its gates.json has no numbers beside the verdicts, as the recorded results, which are kept short"
        raise InputError(f"{path}: {why}; `fathom verify recorded` measures them again")
    found = {name: trees[f"{name}.json"] for name in registry.NAMES if f"{name}.json" in trees}
    judged, manifest = trees["gates.json"], trees["manifest.json"]
    _require_whole(path, found, manifest)
    return Side(
        name=judged.get("model", manifest["model"]),
        judged=judged,
        manifest=manifest,
        found=found,
        doubted=_doubted(judged, found, trees.get("controls.json", {})),
    )


def _require_whole(path: Path, found: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
    """Raise InputError unless the records are those of the manifest, unchanged since they were written."""
    for name, known in manifest.get("records", {}).items():
        if name not in found:
            raise InputError(f"{path}: its manifest names {name}, which is not there; measure again")
        changed = "shortened" not in found[name] and records.checksum(found[name]) != found[name]["checksum"]
        if changed or found[name]["checksum"] != known:
            raise InputError(f"{path}: {name}.json is not as it was written (its checksum differs); measure again")


def _doubted(
    judged: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]], controls: Mapping[str, Any]
) -> frozenset[str]:
    """Claims whose numbers or verdict, under the same limits, are not those that their records give."""
    if not found:
        return frozenset()
    with received("gates.json"):
        version = judged.get("claim_set", LATEST)
        if version not in VERSIONS:
            raise InputError(f"gates.json: claim_set: there is no version {version} of the claims here")
        again = {row["id"]: row for row in rows(judge(found, controls, claim_set=version))}
    return frozenset(
        row["id"]
        for row in rows(judged)
        if any(_observed(f, found) != f["observed"] for f in row.get("findings", ()))
        or (row["id"] in again and _limits(row) == _limits(again[row["id"]]) and _told(row) != _told(again[row["id"]]))
    )


def _observed(finding: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> float | None:
    """A finding's number as the record has it."""
    analysis, _, rest = finding["path"].partition(".")
    if analysis not in registry.NAMES:
        return finding["observed"]  # of a claim of one's own, which is made from several records
    section, _, name = rest.partition(".")
    return found.get(analysis, {}).get(section, {}).get(name, {}).get("value")


def _told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row answers, before it is corrected for how many claims there are."""
    return row["status"], row.get("meets"), (row.get("raw") or row)["verdict"]


def rows(judged: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows about the model and those about the stored coordinates; results of version 1 have no second list."""
    return [*judged["claims"], *judged.get("stored", ())]


def compare(a: Side, b: Side) -> list[Pair]:
    """Every claim that either run asked, in the order of GROUPS, and in each group other verdicts first.

    Raises InputError where the two were judged by other versions of the built-in claims.
    """
    sets = [side.judged.get("claim_set") for side in (a, b)]
    if None not in sets and sets[0] != sets[1]:
        raise InputError(
            f"{a.name} was judged by claim set {sets[0]}, {b.name} by {sets[1]}; judge both by one: "
            f"`fathom report DIR --claim-set {min(sets)}`"
        )
    left, right = ({claim["id"]: claim for claim in rows(side.judged)} for side in (a, b))
    pairs = [_pair(id, left.get(id), right.get(id), a, b) for id in dict.fromkeys([*left, *right])]
    return sorted(pairs, key=lambda pair: (GROUPS.index(pair.group), pair.a == pair.b))


def differences(a: Side, b: Side) -> list[tuple[str, str, str]]:
    """(part, value in A, value in B) of everything in which the keys of the two runs' records differ."""
    values: dict[str, tuple[str, str]] = {}
    for name in registry.NAMES:
        left, right = (side.found.get(name, {}).get("key", {}) for side in (a, b))
        for part in dict.fromkeys([*left, *right]):
            if part not in ("inputs", "model") and left and right and left.get(part) != right.get(part):
                values.setdefault(part, (str(left.get(part, "–")), str(right.get(part, "–"))))
    return [(part.replace("_", " "), *pair) for part, pair in values.items()]


def metrics(a: Side, b: Side, analysis: str) -> list[Leaf]:
    """Every metric of one analysis that both runs have, with the tolerance that it was held against."""
    left, right = (side.found.get(analysis, {}).get("metrics", {}) for side in (a, b))
    bands = _bands(a, b)
    return [
        _number(
            name, left[name]["value"], right[name]["value"], bands.get(f"{analysis}.metrics.{name}"), a.found[analysis]
        )
        for name in left
        if name in right
    ]


def _pair(id: str, left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, a: Side, b: Side) -> Pair:
    claim = left or right
    assert claim
    reasons = _reasons(left, right, a, b)
    trained = comparable.one_training(a.manifest, b.manifest)
    if trained:
        reasons = tuple(reason for reason in reasons if reason != comparable.OTHER["weights"])
    bands = _bands(a, b)
    numbers = ()
    if left and right:
        findings = {finding["path"]: finding for finding in right["findings"]}
        numbers = tuple(
            _number(
                f["quantity"],
                f["observed"],
                findings[f["path"]]["observed"],
                bands.get(f["path"]),
                a.found.get(_analysis(f), {}),
            )
            for f in left["findings"]
            if f["path"] in findings
        )
    return Pair(
        id=id,
        analysis=claim["analysis"],
        claim=claim["claim"],
        group=_group(left, right, numbers, reasons, trained=trained),
        trained=trained,
        reasons=reasons,
        a=left and left["verdict"],
        b=right and right["verdict"],
        numbers=numbers,
    )


def _group(
    left: Mapping[str, Any] | None,
    right: Mapping[str, Any] | None,
    numbers: Sequence[Leaf],
    reasons: Sequence[str],
    *,
    trained: bool,
) -> str:
    if reasons or not left or not right:
        return UNLIKE
    before, after = left["verdict"], right["verdict"]
    if before != after and trained and after != "error":
        return LOST if before == "holds" else GAINED if after == "holds" else CHANGED
    if before != after:
        return FAILURE if before == "holds" or after == "error" else FIX if after == "holds" else CHANGED
    return DRIFT if not trained and any(number.drifts for number in numbers) else SAME


def _analysis(finding: Mapping[str, Any]) -> str:
    """The analysis whose record has the number, which need not be that of the claim's section."""
    return finding["path"].partition(".")[0]


def _reasons(left: Mapping[str, Any] | None, right: Mapping[str, Any] | None, a: Side, b: Side) -> tuple[str, ...]:
    """Why this claim cannot be compared; () where it can."""
    if not left or not right:
        return (f"only {'A' if left else 'B'} asks this claim",)
    # An error in B is what a comparison must show, so it is never put down to being unlike.
    skipped = [name for name, claim in (("A", left), ("B", right)) if claim["verdict"] == "not applicable"]
    if len(skipped) == 1:
        return (f"not asked in {skipped[0]}: {(left if skipped == ['A'] else right)['verdict_reason']}",)
    reasons = [f"the verdict of {name} is not what its record gives" for name, side in (("A", a), ("B", b))
               if left["id"] in side.doubted]  # fmt: skip
    if _limits(left) != _limits(right):
        reasons.append("another limit")
    if left["status"] == right["status"] and left["verdict"] != right["verdict"] and _run(left) != _run(right):
        # The gate answers the same; what turned the verdict is evidence that one run alone asked for.
        reasons.append("other controls were run")
    for analysis in dict.fromkeys(map(_analysis, left["findings"])):
        keys = [side.found.get(analysis, {}).get("key") for side in (a, b)]
        if all(keys):
            parts = comparable.differing(QUESTION, *keys, a.manifest, b.manifest)
            reasons += [comparable.other(part) for part in parts]
        elif "error" not in (left["verdict"], right["verdict"]):
            reasons.append("a record without a key, of an earlier Fathom")
    return tuple(dict.fromkeys(reasons))


def _run(claim: Mapping[str, Any]) -> set[str]:
    """The controls that were run on a claim."""
    return {name for name, evidence in (claim.get("controls") or {}).items() if evidence}


def _limits(claim: Mapping[str, Any]) -> list[tuple]:
    return [(f["path"], f["comparator"], f["threshold"], f["interval_bound"]) for f in claim["findings"]]


def _bands(a: Side, b: Side) -> dict[str, float]:
    """Path of a gate's number → how far noise moved it, the larger of both runs."""
    bands: dict[str, float] = {}
    for side in (a, b):
        for claim in side.judged["claims"]:
            measured = ((claim["controls"] or {}).get("noise") or {}).get("bands") or ()
            for finding, band in zip(claim["findings"], measured, strict=False):
                if band is not None:
                    bands[finding["path"]] = max(band, bands.get(finding["path"], 0.0))
    return bands


def _number(name: str, a: float | None, b: float | None, band: float | None, record: Mapping[str, Any]) -> Leaf:
    dtype = record.get("dtype", "float32")
    bound = rounding(dtype, max(abs(a or 0.0), abs(b or 0.0)))
    if band is not None and band >= bound:
        return leaf(name, a, b, Tolerance(size=band, source="measured noise"))
    return leaf(name, a, b, Tolerance(size=bound, source=f"rounding of {dtype}"))

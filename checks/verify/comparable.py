"""Whether two records answer the same question, and if so, what may have moved the answer.

Other weights, another text or another precision make another question. Another number of threads, library or machine
leaves it as it is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from checks.tables.across import STEP

OTHER = {
    "weights": "other weights",
    "config": "another configuration",
    "calibration": "another calibration text",
    "dtype": "another precision",
    "layers": "other layers",
    "families": "other families",
    "spectra": "spectra had another way",
    "analysis_version": "another version of the analysis",
    "libraries": "other libraries",
    "code": "other code",
    "inputs": "other code of what it reads",
    "threads": "another number of threads",
}
"""A part of a key that differs, where "another" and its name are not the words."""


def differing(
    parts: Iterable[str],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    then: Mapping[str, Any],
    now: Mapping[str, Any],
) -> list[str]:
    """Those of `parts` in which two keys differ, without what only names or stores the same tensors in another way.

    Parameters
    ----------
    before, after : keys of two records of one analysis.
    then, now : the manifests beside them.
    """
    found = [part for part in parts if before.get(part) != after.get(part)]
    files = {"weights", "config", "tokenizer"}
    if then.get("tensors") and then["tensors"] == now.get("tensors"):
        same = {"weights", "model"} | ({"revision"} if not {"config", "tokenizer"} & set(found) else set())
        return [part for part in found if part not in same]
    if files & set(found) and not _from_hub(before, after):
        return [part for part in found if part not in ("revision", "model")]
    return found


def causes(
    old: Mapping[str, Any], new: Mapping[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """What makes two records answers to other questions, and what only makes them other answers, in words."""
    from analyses.run import keys

    before, after = old["key"], new["key"]
    questions = {*keys.INPUTS, *keys.SETTINGS, "analysis", "analysis_version"}
    parts = differing(keys.PARTS, before, after, then, now)
    inputs = [_changed(part, before, after) for part in parts if part in questions]
    environment = [_changed(part, before, after) for part in parts if part not in questions]
    for part in ("processor", "instructions", "blas", "gpu", "driver"):
        one, other = then.get("machine", {}).get(part), now.get("machine", {}).get(part)
        if one != other:
            environment.append(f"{part} {other}, then {one}")
    return inputs, environment


def other(part: str) -> str:
    """A part of a key that differs, in words."""
    if part in OTHER:
        return OTHER[part]
    from analyses.run.keys import WORDS

    return f"another {WORDS.get(part, part)}"


def one_training(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two manifests are of two checkpoints of one training, as far as their names tell.

    Of a repository it is any two revisions, of folders those whose names differ in a step alone. Weights that differ
    where configuration and tokenizer do not are for the keys to say.

    >>> folder = {"revision": None, "tensors": "a"}
    >>> one_training(folder | {"model": "run-step400"}, folder | {"model": "run-step800", "tensors": "b"})
    True
    >>> one_training(folder | {"model": "plain"}, folder | {"model": "other", "tensors": "b"})
    False
    """
    names = [str(manifest.get("model")) for manifest in (then, now)]
    if then.get("tensors") == now.get("tensors"):
        return False
    if then.get("revision") and now.get("revision"):
        return names[0] == names[1] and then["revision"] != now["revision"]
    steps = [STEP.search(name) for name in names]
    return all(steps) and steps[0][1] != steps[1][1] and STEP.sub("", names[0]) == STEP.sub("", names[1])


def _from_hub(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return any(not str(key.get("revision")).startswith("sha256:") for key in (before, after))


def _changed(part: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    old, new = str(before.get(part, "none")), str(after.get(part, "none"))
    if len(old) >= 40 and len(new) >= 40 and part != "libraries":
        old, new = old.removeprefix("sha256:")[:12], new.removeprefix("sha256:")[:12]
    return f"{other(part)} ({new}, then {old})"


def identity(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Whether the models are one, whatever they are called."""
    called = [f"{m['model']}@{m['revision'][:12]}" if m["revision"] else m["model"] for m in (then, now)]
    same = then.get("tensors") == now.get("tensors")
    if same and called[0] != called[1]:
        yield f"{called[1]} holds the same tensors as {called[0]}"
    elif same and then["files"] != now["files"]:
        names = sorted(n for n in {*then["files"], *now["files"]} if then["files"].get(n) != now["files"].get(n))
        yield f"the same tensors; other files: {', '.join(names)}"
    elif not same:
        names = sorted(n for n in {*then["files"], *now["files"]} if then["files"].get(n) != now["files"].get(n))
        yield f"other tensors than those recorded, in {', '.join(names) or 'files of the same bytes'}"

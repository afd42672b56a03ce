"""A received page rendered again from its own records, and held against what was received, byte for byte.

The gates are judged again by the built-in claims; page, JUnit XML and summary follow from them, from the records and
from what the manifest says. Where a page was made shorter, the arrays that it lacks are those of the new measurement:
then a number in a figure may differ in its last place, and nothing else.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from analyses import records
from analyses.errors import InputError, received
from checks.claims.judge import checksums, judge
from checks.own.registered import NAME
from checks.report.page import render_page
from checks.report.side_files import side_files
from checks.verify.accept import slim
from checks.verify.asked_again import asked_again
from checks.verify.embedded import Carried, copy_of, links, unpack
from checks.verify.results import Result
from checks.verify.sentences import alike

AROUND = 40  # characters of the first difference
LINK = re.compile(r'href="data:application/gzip;base64,[^"]*"')


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was found when everything was written again."""

    faults: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()


def again(result: Result, found: Mapping[str, Mapping[str, Any]]) -> Rendered:
    """Judge and render a received result again; `found` are the records of the new measurement."""
    if result.judged is None or result.damaged:
        return Rendered(unverified=("the words of the page: its gates or a record are missing",))
    if result.kind == "recorded":
        return _kept(result)
    filled, lacking = _filled(result, found)
    if lacking:
        told = f"{', '.join(lacking)} left arrays out and was not measured again"
        return Rendered(unverified=(f"the words of the page and its gates: {told}",))
    try:
        with received("the result"):
            judged, faults = _judged(result, filled)
            faults += _stated(result)
            faults += _pages(result, filled, judged, exact=filled == result.found)
    except InputError as error:
        return Rendered(faults=(str(error),))
    controls = json.loads(result.files.get("controls.json", b"{}"))
    believed = [f"what the controls showed: run them again with --controls {','.join(controls['parts'])}"] if (
        controls.get("parts")
    ) else []  # fmt: skip
    if result.judged.get("own"):
        believed.append("when claims of one's own were stated: whoever has their file can write another time")
    words = "the verdicts by the claims of this Fathom, and every word of the page and its side files"
    if filled != result.found:
        words += ", but for the last place of numbers drawn from arrays that the page left out"
    return Rendered(tuple(faults), () if faults else (words,), tuple(believed))


def _kept(result: Result) -> Rendered:
    """Of a recorded result, which has no page: the verdicts by the built-in claims."""
    try:
        with received("the result"):
            controls = {row["id"]: row["controls"] for row in result.judged["claims"] if row["controls"]}
            given = slim(records.plain(judge(result.found, {"claims": controls})))
    except InputError as error:
        return Rendered(faults=(str(error),))
    said, again = (_by_id(tree | {"integrity": _measured(tree)}) for tree in (result.judged, given))
    faults = [_line(*found) for found in _differences(said, again, ())][:1]
    believed = ("what the controls showed, and what was asked under exact maps: it is kept without the runs",)
    return Rendered(tuple(faults), () if faults else ("the verdicts by the claims of this Fathom",), believed)


def _measured(judged: Mapping[str, Any]) -> list[Any]:
    """Identities without those that controls ask."""
    return [row for row in judged["integrity"] if not row["id"].startswith("invariance.")]


def _line(path: tuple[str, ...], said: Any, given: Any) -> str:
    return f"gates.json: {'.'.join(path)}: {_short(said)}, by the records {_short(given)}"


def _filled(
    result: Result, found: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """The received records, with what they left out taken from the new measurement; and those that cannot be had."""
    filled, lacking = {}, []
    for name, record in result.found.items():
        if "shortened" not in record:
            filled[name] = record
        elif found.get(name, {}).get("checksum") == record["checksum"]:
            filled[name] = found[name]
        elif "metrics" in found.get(name, {}):
            whole = {key: value for key, value in record.items() if key != "shortened"}
            whole["absent"] = {k: v for k, v in record["absent"].items() if k not in record["shortened"]}
            for pattern in record["shortened"]:
                _fill(whole, found[name], pattern.split("."))
            filled[name] = whole
        else:
            lacking.append(name)
    return filled, lacking


def _fill(holder: Any, source: Any, path: list[str]) -> None:
    """Put what `source` has at a pattern into `holder`, which is changed."""
    key, *rest = path
    places: Any = range(min(len(holder), len(source))) if key == "*" else [key]
    for place in places:
        if not rest:
            holder[place] = source[place]
        else:
            holder[place] = holder[place].copy()
            _fill(holder[place], source[place], rest)


def _judged(result: Result, filled: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The gates by the built-in claims, and where the received ones differ."""
    controls = json.loads(result.files.get("controls.json", b"{}"))
    if controls.get("records") != checksums(result.found):
        controls = {}
    judged = json.loads(records.as_json(records.plain(asked_again(result.judged, filled, controls))))
    bare = json.loads(json.dumps(judged))
    for claim in bare["claims"]:
        for evidence in (claim["controls"] or {}).values():
            if evidence:
                evidence["runs"] = []
    if result.judged in (judged, bare if result.kind == "page" else judged):
        return judged, []
    other_order = (("claims",), "another order of rows", "that of the built-in claims")
    return judged, [_line(*next(_differences(_by_id(result.judged), _by_id(judged), ()), other_order))]


def _stated(result: Result) -> Iterator[str]:
    """Whether the claims of one's own that lie in a folder are those that the gates name."""
    path = result.folder / NAME
    if result.kind == "folder" and (records.read_json(path) if path.exists() else None) != result.judged.get("own"):
        yield f"{NAME}: it is not what gates.json says of claims of one's own"


def _by_id(judged: Mapping[str, Any]) -> dict[str, Any]:
    lists = ("integrity", "claims", "stored")
    return {k: {row["id"]: row for row in v} if k in lists else v for k, v in judged.items()}


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(key, "missing"), new.get(key, "not asked"), (*path, key))
        if old == new:
            return
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, (*path, str(i)))
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _pages(
    result: Result, filled: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Any], *, exact: bool
) -> Iterator[str]:
    whole = {name: _bytes(name, data, filled, judged) for name, data in result.files.items()}
    if result.kind == "folder":
        for name, data in side_files(judged).items():
            path = result.folder / name
            if path.is_file() and path.stat().st_size <= 2 * len(data) + AROUND:
                yield from _compared(name, _text(path.read_bytes()), _text(data), exact=True)
            elif path.exists():
                yield f"{name}: garbled; it is no file of ours"
    if result.page is None:
        return
    carried: dict[str, Carried] = {}
    for name, href in links(result.page):
        found = copy_of(name, whole[name], unpack(href), href) if name in whole else None
        if found is None and exact:
            yield f"report.html: carries {name} otherwise than it lies beside it, or shortened where nothing was"
            found = Carried(name=name, href=href, size=len(whole.get(name, b"")))
        carried[name] = found or Carried(name=name, href=href, size=len(whole.get(name, b"")))
    if lost := sorted(set(whole) - set(carried)):
        yield f"report.html: does not carry {', '.join(lost)}"
        return
    text = render_page(filled, judged, result.manifest, whole, carried).encode(errors="replace").decode()
    yield from _compared("report.html", result.page, text, exact=exact)


def _bytes(name: str, data: bytes, filled: Mapping[str, Any], judged: Mapping[str, Any]) -> bytes:
    """A file as it lay beside the page."""
    if name == "gates.json":
        return records.as_json(judged)
    stem = name.removesuffix(".json")
    return records.as_json(filled[stem]) if stem in filled else data


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _compared(name: str, said: str, given: str, *, exact: bool) -> Iterator[str]:
    """A line where two texts differ: by their characters, or but for the last place of their numbers."""
    if said == given:
        return
    one, other = (LINK.sub("href", text) for text in (said, given))
    if not exact and alike(one, other):
        return
    at = next((i for i, (a, b) in enumerate(zip(said, given, strict=False)) if a != b), min(len(said), len(given)))
    start = max(0, at - AROUND // 2)
    there, here = (" ".join(text[start : start + AROUND].split()) for text in (said, given))
    yield f"{name}: its words are not those of its records: “{there}” where they give “{here}”"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= AROUND else f"{text[:AROUND]}…"

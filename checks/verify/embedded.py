"""The records that a page carries, so that somebody who has only the page can check it.

Each file is gzipped into a `data:` link, which any browser saves without a network or a script, and
which `extract` reads again. Where the files do not fit beside the page, long arrays of numbers are
left out. The copy then has a null and its reason in place of each, lists them under `shortened`, and
keeps the checksum of the whole file, which a new measurement can be held against. What judges a
claim, the metrics and identities, is never left out.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from analyses import registry
from analyses.errors import InputError

SCHEME = "data:application/gzip;base64,"
NAMES = (*(f"{name}.json" for name in registry.NAMES), "gates.json", "controls.json", "manifest.json")
FLOAT, OTHER = 12.0, 2.0  # bytes in a page of a number with 17 digits, and of another number
BEST = 0.7  # of that, where digits pack better than they do at random
CHEAPEST = 384.0  # bytes; a smaller array costs less than the words that would stand for it
LEVEL = 6  # of gzip: on digits, 9 takes three times as long for nothing
LARGEST = 1 << 26  # bytes that the files of a received page may unpack to together: some thirty times a whole page
PAGE = 1 << 25  # bytes of a page; those of ours have a megabyte

Keys = tuple[str, ...]
"""A path in a record, with `*` for any place in a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One file as a page carries it."""

    name: str
    href: str
    size: int  # bytes of the file on disk
    left_out: tuple[str, ...] = ()  # arrays that this copy lacks, each with its length


def embed(name: str, data: bytes) -> str:
    """The link that carries this file; the same bytes make the same link."""
    assert name in NAMES, f"{name} is no file of a model's folder"
    return SCHEME + base64.b64encode(gzip.compress(data, LEVEL, mtime=0)).decode()


def extract(page: Path) -> dict[str, bytes]:
    """Every file that a page carries, by name.

    Raises InputError where the file is no page, carries nothing, or what it carries is damaged.
    """
    found, room = {}, LARGEST
    for name, href in links(read_page(page)):
        if name in found:
            raise InputError(f"{page}: carries {name} twice; ask for the page again")
        found[name] = _unpack(page, name, href, room)
        room -= len(found[name])
    if "manifest.json" not in found:
        raise InputError(f"{page}: carries no records; give a report.html that `fathom report` wrote, or a folder")
    return found


def read_page(page: Path) -> str:
    """A page's text; raises InputError where it is no file, no text, or far larger than a page."""
    try:
        if page.exists() and not page.is_file():
            raise InputError(f"{page}: not a file; give a report.html")
        if page.stat().st_size > PAGE:
            raise InputError(f"{page}: more than {PAGE >> 20} MiB, no page of ours; give a report.html")
        return page.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{page}: cannot be read as a page ({error}); give a report.html") from error


def carry(files: Mapping[str, bytes], size: int) -> dict[str, Carried]:
    """Links for these files that fill at most `size` bytes of a page, as far as leaving out arrays can do it."""
    trees = {name: tree for name, data in files.items() if "metrics" in (tree := json.loads(data))}
    waiting = sorted(
        ((cost, name, path) for name, tree in trees.items() for path, cost in _arrays(tree).items()), reverse=True
    )
    left_out: dict[str, list[str]] = {}
    links: dict[str, str] = {}
    # What cannot fit however well it packs is left out before anything is packed.
    excess, stale = BEST * sum(cost for cost, _, _ in waiting) - size, set(files)
    repeated = {"controls.json", "gates.json"} <= set(files)
    contents = dict(files)
    while stale:
        if excess > 0 and repeated:
            contents["gates.json"], repeated = _without_evidence(files["gates.json"]), False
            left_out["gates.json"] = ["runs of the controls"]
            stale.add("gates.json")
        while excess > 0 and waiting:
            # The shortest that makes room enough, else the longest.
            cost, name, path = waiting.pop(max(0, sum(cost >= excess for cost, _, _ in waiting) - 1))
            left_out.setdefault(name, []).append(_drop(trees[name], path))
            stale.add(name)
            excess -= cost
        contents |= {name: _written(trees[name]) for name in stale if name in left_out and name in trees}
        links |= {name: embed(name, contents[name]) for name in stale}
        excess, stale = sum(map(len, links.values())) - size, set()
        if excess > 0 and (repeated or waiting):
            stale.add("gates.json" if repeated else waiting[0][1])
    return {
        name: Carried(name=name, href=links[name], size=len(data), left_out=tuple(sorted(left_out.get(name, ()))))
        for name, data in files.items()
    }


def copy_of(name: str, data: bytes, received: bytes, href: str) -> Carried | None:
    """How a page carries this file as `received`; None where that is no copy of it, whole or shortened."""
    if received == data:
        return Carried(name=name, href=href, size=len(data))
    tree = json.loads(data)
    if name == "gates.json":
        shorter, left_out = _without_evidence(data), ["runs of the controls"]
    elif patterns := json.loads(received).get("shortened"):
        costly = {".".join(path): path for path in _arrays(tree)}
        left_out = [_drop(tree, costly[pattern]) for pattern in patterns if pattern in costly]
        shorter = _written(tree)
    else:
        return None
    if shorter != received:
        return None
    return Carried(name=name, href=href, size=len(data), left_out=tuple(sorted(left_out)))


def _without_evidence(gates: bytes) -> bytes:
    """The gates without each run of their controls, which `controls.json` carries already."""
    tree = json.loads(gates)
    for claim in tree["claims"]:
        for evidence in (claim["controls"] or {}).values():
            if evidence:
                evidence["runs"] = []
    return _written(tree)


def _arrays(tree: Mapping[str, Any]) -> dict[Keys, float]:
    """Bytes in a page that every array of numbers takes, about, under its path with `*` for the places in a list."""
    costs: dict[Keys, float] = {}
    for path, value in _lists(tree, ()):
        costs[path] = costs.get(path, 0) + _cost(value)
    return {path: cost for path, cost in costs.items() if cost >= CHEAPEST}


def _cost(value: Any) -> float:
    if isinstance(value, list):
        return sum(map(_cost, value))
    return FLOAT if isinstance(value, float) else OTHER


def _lists(value: Any, path: Keys) -> Iterator[tuple[Keys, list]]:
    """Every list that holds numbers, nulls and such lists alone, and its path."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if path or key not in ("metrics", "identities"):
                yield from _lists(child, (*path, key))
    elif isinstance(value, list):
        if value and _numeric(value):
            yield path, value
        else:
            for child in value:
                yield from _lists(child, (*path, "*"))


def _numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_numeric, value))
    return value is None or isinstance(value, (int, float))


def _length(value: Any) -> int:
    return sum(map(_length, value)) if isinstance(value, list) else 1


def _drop(tree: dict[str, Any], path: Keys) -> str:
    """Put a null with its reason where an array was; returns the array's name and length."""
    *above, last = path
    count, pattern = 0, ".".join(path)
    for holder in _holders(tree, above):
        for index in range(len(holder)) if last == "*" else [last]:
            count += _length(holder[index])
            holder[index] = None
    reason = f"{count:,} numbers left out of the page for their size; {tree['analysis']}.json has them"
    tree["absent"] = tree["absent"] | {pattern: reason}
    tree["shortened"] = sorted([*tree.get("shortened", ()), pattern])
    return f"{pattern} ({count:,} numbers)"


def _holders(value: Any, keys: Sequence[str]) -> Iterator[Any]:
    if not keys:
        if value is not None:
            yield value
    elif keys[0] == "*":
        for child in value if isinstance(value, list) else ():
            yield from _holders(child, keys[1:])
    elif isinstance(value, Mapping) and keys[0] in value:
        yield from _holders(value[keys[0]], keys[1:])


def _written(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def links(page: str) -> list[tuple[str, str]]:
    """(name, address) of the files that a page carries, in its order."""
    return [(name, href) for name, href in _Links(page).found if name in NAMES]


def unpack(href: str, room: int = LARGEST) -> bytes:
    """What a link carries; raises ValueError or zlib.error where that is damaged, or more bytes than `room`."""
    packed = base64.b64decode(href.removeprefix(SCHEME), validate=True)
    unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header
    data = unpacker.decompress(packed, room)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"cut short, followed by something else, or more than {LARGEST >> 20} MiB")
    return data


def _unpack(page: Path, name: str, href: str, room: int) -> bytes:
    try:
        data = unpack(href, room)
    except (ValueError, zlib.error) as error:
        raise InputError(f"{page}: its {name} is damaged ({error}); ask for the page again") from error
    return data


class _Links(HTMLParser):
    """Names and addresses of the links that carry a file."""

    def __init__(self, source: str):
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        name, href = given.get("data-record"), given.get("href")
        if tag == "a" and name and href and href.startswith(SCHEME):
            self.found.append((name, href))

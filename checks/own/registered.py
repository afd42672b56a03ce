"""When a file of claims was first seen, kept beside the records and shown on the page.

`claims.json` in a model's folder is written before anything is measured there: the text of the file, its hash, the
time, and whether the folder held records already. Another file later takes its place and is told to come after.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from analyses import records, registry, shapes
from analyses.errors import InputError
from checks.own.statement import File, parse, problems_of

NAME = "claims.json"
Content = dict[str, Any]


class Registered(TypedDict):
    """`claims.json`."""

    sha256: str
    first_seen: str
    before_measurement: bool
    earlier: list[dict[str, str]]
    text: str


def line(file: File, at: str) -> str:
    """What a preregistration needs: the hash, the number of claims and the time, in one line."""
    return f"fathom claims sha256:{file.sha256} ({counted(file)}), {at}"


def counted(file: File) -> str:
    """How many claims, in words."""
    return f"{len(file.claims)} claim{'s' * (len(file.claims) != 1)}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def register(folder: Path, file: File) -> Callable[[], None]:
    """Write `claims.json` into a model's folder; returns what takes that back if the model cannot be measured.

    A file that was seen there before keeps its time.
    """
    path = folder / NAME
    before, there = path.read_bytes() if path.exists() else None, folder.exists()
    known = records.read_json(path) if before else {}
    if known.get("sha256") != file.sha256:
        measured = any((folder / f"{name}.json").exists() for name in registry.NAMES)
        seen = {key: known[key] for key in ("sha256", "first_seen") if key in known}
        records.write_json(
            path,
            {
                "schema_version": records.SCHEMA_VERSION,
                "sha256": file.sha256,
                "first_seen": now(),
                "before_measurement": not measured,
                "earlier": [*known.get("earlier", []), *([seen] if seen else [])],
                "text": file.text,
            },
        )

    def undo() -> None:
        if before is None:
            path.unlink(missing_ok=True)
            if not there and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        elif path.read_bytes() != before:
            records.write_bytes(path, before)

    return undo


def registered(folder: Path) -> tuple[File, Content] | None:
    """The claims that a folder's records are judged by beside the built-in ones; None where there are none.

    Raises InputError where they are not as they were registered.
    """
    path = folder / NAME
    if not path.exists():
        return None
    content = records.read_json(path)
    return sound(content, str(path)), content


def sound(content: Content, where: str) -> File:
    """The claims in what `register` wrote; raises InputError where it was changed since, or is none."""
    shapes.require(shapes.shape(__name__, "Registered"), content, where)
    text = content["text"]
    if problems_of(text):
        raise InputError(f"{where}: holds no sound file of claims; run with --claims again")
    file = parse(text)
    if content.get("sha256") != file.sha256:
        raise InputError(f"{where}: changed since it was registered (its hash differs); run with --claims again")
    return file


def stated(content: Content) -> str:
    """In words, when these claims were first seen."""
    when = "before the model was measured" if content["before_measurement"] else "after the model had been measured"
    return f"Stated {when}: first seen {content['first_seen']}, sha256 {content['sha256'][:12]}"


def with_claims(own: tuple[File, Content] | None) -> Content:
    """What the manifest says of these claims."""
    return {"claims": {key: value for key, value in own[1].items() if key != "text"}} if own else {}

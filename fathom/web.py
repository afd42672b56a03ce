"""Fetching a result from an address: only when asked, only its JSON files or its page, and no more than a cap."""

import urllib.error
import urllib.request
from pathlib import Path

from analyses import registry
from analyses.errors import InputError

MOST = 200_000_000  # bytes of one file; the records of a 70B model are below 100 MB
FILES = ("manifest.json", "gates.json")


def fetched(address: str, folder: Path) -> Path:
    """A page, or the files of a folder of records, under `folder`; raises InputError where the first is not there."""
    if address.endswith(".html"):
        page = folder / "report.html"
        page.write_bytes(_read(address))
        return page
    for name in FILES:
        (folder / name).write_bytes(_read(f"{address.rstrip('/')}/{name}"))
    for name in registry.NAMES:
        try:
            (folder / f"{name}.json").write_bytes(_read(f"{address.rstrip('/')}/{name}.json"))
        except InputError:  # not every analysis was measured; the manifest says which were
            continue
    return folder


def _read(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            data = answer.read(MOST + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InputError(f"{address}: cannot be fetched ({error}); give a folder of records or a page") from error
    if len(data) > MOST:
        raise InputError(f"{address}: more than {MOST:,} bytes; download it and load the file")
    return data

"""sha256 of files that were hashed before: kept by path, size, inode and time of change."""

import os
from collections.abc import Iterable
from pathlib import Path

from analyses import records
from analyses.errors import InputError


class Hashes:
    """What is known; `keep` writes it down."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.known = records.read_json(path)
        except InputError:
            self.known = {}

    def of(self, paths: Iterable[Path]) -> dict[str, str]:
        from analyses.weights.files import sha256

        found = {}
        for path in paths:
            facts = os.stat(path)
            signature = f"{path} {facts.st_size} {facts.st_ino} {facts.st_mtime_ns}"
            if signature not in self.known:
                self.known[signature] = sha256(path)
            found[path.name] = self.known[signature]
        return found

    def keep(self) -> None:
        records.write_json(self.path, self.known)

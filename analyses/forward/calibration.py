"""The calibration text: prompts and documents of our own, or texts of the user's.

The prompts (calibration.json) are 46 short ones over prose, code, dialogue and maths, each its own sequence, so that a
statistic does not hang on one document. They have about 1,300 tokens. Where a model's width asks for more, whole
documents (documents.json: 50 over the same kinds, some 16,000 tokens) are read in their place, until there are
enough. A user's files are streams, cut into sequences, or token ids where there is no tokenizer. The hash goes into
every record: numbers on different text are different numbers.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyses.errors import InputError

BUILT_IN = Path(__file__).with_name("calibration.json")
DOCUMENTS = Path(__file__).with_name("documents.json")
STREAM_TOKENS = 2048  # of one sequence of a file at most: attention is square in the tokens of a sequence
PER_DIMENSION = 2  # tokens that claims about writes need for each dimension of the stream
SHORT = 1_200  # tokens that the prompts have at least, in vocabularies of 30,000 pieces and more
LARGEST = 20_000_000  # bytes of all files of a text together: a hundred times what any claim needs, read whole
IDS = ".ids.jsonl"  # ends the name of a file of token ids
TEXTS = (".txt", ".md", ".text", IDS)  # endings of what is read of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Texts to read, each a sequence of its own."""

    name: str  # "fathom-calibration 1", or the names of the files or of their folder
    texts: tuple[str, ...]
    sha256: str  # of the file's bytes; of several the digest of theirs
    stream: bool  # a user's files: each cut into sequences of STREAM_TOKENS
    ids: tuple[tuple[int, ...], ...] = ()  # sequences of token ids, in place of texts
    tokens: int = 0  # sequences are read until so many tokens have one before them; 0: each text's first sequence
    read: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # as models' tokens

    @property
    def digest(self) -> str:
        """All that determines which tokens are read, but for the tokenizer."""
        return f"{self.sha256}, {self.tokens} tokens" if self.tokens else self.sha256


def tokens_for(hidden: int, *, own: bool) -> int:
    """How many tokens a model of this width needs, as `load_calibration` takes it.

    Parameters
    ----------
    own : whether the text is the user's.

    >>> tokens_for(128, own=False), tokens_for(1024, own=False), tokens_for(128, own=True)
    (0, 2048, 1200)
    """
    needed = PER_DIMENSION * hidden
    return max(needed, SHORT) if own else needed if needed > SHORT else 0


def load_calibration(paths: Path | Sequence[Path] | None = None, *, tokens: int = 0) -> Calibration:
    """The prompts or documents that ship, or the user's files, each a stream or sequences of ids.

    Parameters
    ----------
    paths : UTF-8 texts, files of ids (one list of them a line), and folders of such files; None: what ships.
    tokens : how many to read; 0 for the prompts, or for the first sequence of each file.

    Raises
    ------
    InputError if a file is missing, is not UTF-8, or holds nothing but white space; if a folder holds no text; if
    texts and ids are mixed; and if there is far more than any claim needs.
    """
    if paths is None:
        data = (DOCUMENTS if tokens else BUILT_IN).read_bytes()
        tree = json.loads(data)
        texts = tuple(each["text"] for each in tree["documents" if tokens else "prompts"])
        name = f"{tree['name']} {tree['version']}"
        return Calibration(name=name, texts=texts, sha256=_sha256(data), stream=False, tokens=tokens)
    files = [file for path in ([paths] if isinstance(paths, Path) else paths) for file in _files(path)]
    _require_size(files)
    contents = [_read(file) for file in files]
    of_ids = {file.name.endswith(IDS) for file in files}
    if len(of_ids) > 1:
        raise InputError(f"{files[0]}: texts and token ids ({IDS}) are mixed; give the one or the other")
    digests = [_sha256(data) for data in contents]
    digest = digests[0] if len(digests) == 1 else _sha256("\n".join(digests).encode())
    name = _named([paths] if isinstance(paths, Path) else paths, files)
    if of_ids == {True}:
        ids = tuple(ids for file, data in zip(files, contents, strict=True) for ids in _ids(file, data))
        return Calibration(name=name, texts=(), ids=ids, sha256=digest, stream=False, tokens=tokens)
    texts = tuple(_text(file, data) for file, data in zip(files, contents, strict=True))
    return Calibration(name=name, texts=texts, sha256=digest, stream=True, tokens=tokens)


def _named(paths: Sequence[Path], files: Sequence[Path]) -> str:
    if len(files) == 1:
        return files[0].name
    if len(paths) == 1:
        return f"{paths[0].resolve().name}, {len(files)} files"
    return f"{files[0].name} and {len(files) - 1} more"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.endswith(TEXTS) and file.is_file())
    if not found:
        raise InputError(f"{path}: a folder without texts; expected files that end in {', '.join(TEXTS)}")
    return found


def _require_size(files: Sequence[Path]) -> None:
    """Raise InputError for texts that would be read whole for the small part of them that is needed."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    if size > LARGEST:
        what = f"{files[0]}: {size / 1e6:.0f} MB of text" + (f" in {len(files)} files" if len(files) > 1 else "")
        raise InputError(f"{what}; expected at most {LARGEST / 1e6:.0f} MB: give a part of it")


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: text cannot be read (not a file); give a UTF-8 text file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: text cannot be read ({error.strerror}); give a UTF-8 text file") from error


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); calibration text must be UTF-8") from error


def _text(path: Path, data: bytes) -> str:
    text = _decoded(path, data)
    if not text.strip():
        raise InputError(f"{path}: calibration text is empty; give at least a few hundred words")
    return text


def _ids(path: Path, data: bytes) -> list[tuple[int, ...]]:
    """Sequences of a file of ids; a sequence has at least two, since the first token has nothing before it."""
    found = []
    for number, line in enumerate(_decoded(path, data).splitlines(), 1):
        if not line.strip():
            continue
        try:
            ids = json.loads(line)
        except (ValueError, RecursionError):
            ids = None
        if not isinstance(ids, list) or len(ids) < 2 or not all(type(i) is int and i >= 0 for i in ids):
            raise InputError(f"{path}, line {number}: expected a list of two or more token ids, such as [1, 345, 20]")
        found.append(tuple(ids))
    if not found:
        raise InputError(f"{path}: holds no token ids; expected a list of them on each line")
    return found

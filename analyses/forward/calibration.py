"""The calibration text: fixed prompts of our own, or a file of the user's.

The built-in text (calibration.json) is 46 short prompts over prose, code, dialogue and maths, each
its own sequence, so that a statistic does not hang on one document. A file is one stream. The hash
goes into every record: numbers on different text are different numbers.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from analyses.errors import InputError

BUILT_IN = Path(__file__).with_name("calibration.json")
STREAM_TOKENS = 2048  # of a file at most: attention is square in the tokens of one sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Texts to read, each a sequence of its own."""

    name: str  # "fathom-calibration 1", or the file's name
    texts: tuple[str, ...]
    sha256: str  # of the file's bytes
    stream: bool  # a user's file: one sequence, cut at STREAM_TOKENS


def load_calibration(path: Path | None = None) -> Calibration:
    """The built-in prompts, or a UTF-8 file as one stream.

    Raises InputError if the file is missing, is not UTF-8, or holds nothing but white space.
    """
    try:
        data = (path or BUILT_IN).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: text cannot be read ({error.strerror}); give a UTF-8 text file") from error
    digest = hashlib.sha256(data).hexdigest()
    if path is None:
        tree = json.loads(data)
        texts = tuple(prompt["text"] for prompt in tree["prompts"])
        return Calibration(name=f"{tree['name']} {tree['version']}", texts=texts, sha256=digest, stream=False)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); calibration text must be UTF-8") from error
    if not text.strip():
        raise InputError(f"{path}: calibration text is empty; give at least a few hundred words")
    return Calibration(name=path.name, texts=(text,), sha256=digest, stream=True)

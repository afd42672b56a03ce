"""A tokenizer under limits: it is a file that somebody wrote, and what it does with a text is that file's doing.

A call that fails in whatever way, the panic of a library in another language included, or that takes too long is one
line. What runs too long cannot be stopped from outside: it is left behind on a thread that ends with the process.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from analyses.errors import InputError, first_line

Result = TypeVar("Result")

SECONDS = 30.0  # that loading a tokenizer, or reading the short texts that ship, may take: a hundred times what it does
PER_MEGABYTE = 3.0  # seconds more for each megabyte of text; the slowest tokenizers in use need about 2
LARGEST = 100_000_000  # bytes of a tokenizer's file; the largest in use have a third of it
ERROR_STREAM = 2  # number of the system's
MOST_GROWTH = 64.0  # times as long as it was: what normalising may make of a text


def limited(folder: Path, what: str, call: Callable[[], Result], *, characters: int = 0) -> Result:
    """What a call of a folder's tokenizer returns.

    Parameters
    ----------
    what : the call does, for the message. characters : of the text that it reads.

    Raises
    ------
    InputError where it takes too long, and where it ends in a panic; other exceptions are passed on.
    """
    seconds = SECONDS + PER_MEGABYTE * characters / 1e6
    found: list[Result] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # of a library in another language, or of the model's own code
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    with _silent():
        thread.start()
        thread.join(seconds)
    if failed:
        if isinstance(failed[0], Exception):
            raise failed[0]
        told = f"{type(failed[0]).__name__}: {first_line(failed[0])}"
        raise InputError(f"{folder}: the tokenizer breaks off while it {what} ({told}); its files are damaged")
    if not found:
        advice = "a pattern of it may run away on this text; give token ids instead (.ids.jsonl)"
        raise InputError(f"{folder}: the tokenizer {what} for more than {seconds:.0f} s; {advice}")
    return found[0]


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing on the error stream, where a library in another language writes of its panic by itself."""
    try:
        kept, nowhere = os.dup(ERROR_STREAM), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no such stream
        yield
        return
    try:
        os.dup2(nowhere, ERROR_STREAM)
        yield
    finally:
        os.dup2(kept, ERROR_STREAM)
        os.close(kept)
        os.close(nowhere)


def require_sound(path: Path) -> None:
    """Raise InputError for a tokenizer.json that is too large, or whose rules make a text many times as long."""
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"{path}: {size / 1e6:.0f} MB, and no tokenizer has more than {LARGEST / 1e6:.0f} MB")
    if path.name != "tokenizer.json":
        return
    try:
        tree = json.loads(path.read_bytes())
        growth = _growth(tree["normalizer"]) * _growth(tree["pre_tokenizer"]) * _repeats(tree["post_processor"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # not of that form: the library says what is wrong with it
    if growth > MOST_GROWTH:
        raise InputError(f"{path}: its rules make a text up to {growth:.2g} times as long, as no tokenizer in use does")


def _growth(rule: Any) -> float:
    """How many times as long a rule may make a text: of rules one behind the other, the product."""
    if rule is None:
        return 1.0
    inner = rule.get("normalizers") or rule.get("pretokenizers")
    if inner is not None:
        product = 1.0
        for each in inner:
            product *= _growth(each)
        return product
    if rule["type"] == "Replace":
        found, content = rule["pattern"], rule["content"]
        least = len(found["String"]) if "String" in found else 1  # a regular expression may match one character
        return max(1.0, len(content) / max(least, 1) if least else len(content) + 1.0)
    return 1.0


def _repeats(rule: Any) -> float:
    """How often the text itself stands in what a template makes of it."""
    if rule is None:
        return 1.0
    if "processors" in rule:
        product = 1.0
        for each in rule["processors"]:
            product *= _repeats(each)
        return product
    return float(max(1, sum("Sequence" in piece for piece in rule.get("single", ()))))

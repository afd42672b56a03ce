"""The calibration text as tokens, cut by the checkpoint's own tokenizer."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from analyses.errors import InputError, first_line
from analyses.forward.calibration import STREAM_TOKENS, Calibration
from analyses.forward.probe import NoTokenizer
from analyses.forward.tokenizing import limited, require_sound
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.elsewhere import require_itself
from analyses.weights.files import read_object
from analyses.weights.hub import TOKENIZER_FILES

NEEDED_BY_PIECES = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # package → its module

LONGEST = ("max_position_embeddings", "n_positions", "seq_length")  # config keys, the first one given counts
OFFSET_MODELS = ("roberta", "xlm-roberta", "camembert")  # they count positions from the padding id's successor on


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """The text as the model reads it."""

    ids: list[list[int]]  # of each sequence
    left_out: int  # tokens of texts that were begun and not read to their end
    bos: bool  # whether all sequences begin with a beginning mark
    unknown: float | None  # share of the tokenizer's unknown token; None where it has none


def sequences(checkpoint: Checkpoint, calibration: Calibration, trust_remote_code: bool) -> Sequences:
    """The text in sequences that the model has positions for; a twin, with its model's tokenizer, is given the same.

    Raises NoTokenizer if texts are to be read and the folder has none; InputError if it is damaged or makes nothing of
    a text.
    """
    asked = (checkpoint.folder, _longest(checkpoint), trust_remote_code)
    if not checkpoint.altered or asked not in calibration.read:
        calibration.read[asked] = _sequences(checkpoint, calibration, trust_remote_code)
    return calibration.read[asked]


def _sequences(checkpoint: Checkpoint, calibration: Calibration, trust_remote_code: bool) -> Sequences:
    tokenizer = None if calibration.ids else load_tokenizer(checkpoint, trust_remote_code)
    limit = _longest(checkpoint)
    if calibration.stream or calibration.ids:
        limit = min(limit, STREAM_TOKENS)
    kept: list[list[int]] = []
    left_out = 0
    for text in calibration.ids or calibration.texts:
        whole = list(text) if tokenizer is None else _tokenized(checkpoint, tokenizer, text)
        if not whole:
            raise InputError(f"{checkpoint.folder}: the tokenizer makes no token of a text; the tokenizer is damaged")
        read = len(whole[:limit])
        kept.append(whole[:limit])
        while calibration.stream and read + 1 < len(whole) and not _enough(kept, calibration.tokens):
            kept.append(whole[read : read + limit])
            read += len(kept[-1])
        left_out += len(whole) - read
        if calibration.tokens and _enough(kept, calibration.tokens):
            break
    marks = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None} if tokenizer else set()
    return Sequences(
        ids=kept,
        left_out=left_out,
        bos=all(ids[0] in marks for ids in kept),
        unknown=None if tokenizer is None else _unknown(tokenizer, kept),
    )


def _tokenized(checkpoint: Checkpoint, tokenizer: Any, text: str) -> list[int]:
    def call() -> list[int]:
        return tokenizer(text, verbose=False)["input_ids"]

    return limited(checkpoint.folder, "reads a text", call, characters=len(text))


def _enough(kept: list[list[int]], tokens: int) -> bool:
    """Whether so many tokens have one before them."""
    return sum(len(ids) - 1 for ids in kept) >= tokens


def _unknown(tokenizer: Any, kept: list[list[int]]) -> float | None:
    if tokenizer.unk_token_id is None:
        return None
    return sum(ids.count(tokenizer.unk_token_id) for ids in kept) / sum(map(len, kept))


def load_tokenizer(checkpoint: Checkpoint, trust_remote_code: bool) -> Any:
    """The checkpoint's own tokenizer; raises NoTokenizer, or InputError with the step that helps."""
    import transformers  # only here: whether there is a tokenizer at all is asked where no model is run

    require_tokenizer(checkpoint)
    for name in TOKENIZER_FILES:
        if (path := checkpoint.folder / name).is_file():
            require_itself(path)
            require_sound(path)

    def call() -> Any:
        return transformers.AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)

    try:
        return limited(checkpoint.folder, "is loaded", call)
    except InputError:
        raise
    except Exception as error:  # the library raises a dozen unrelated classes
        why = _why(checkpoint, error, trust_remote_code)
        raise InputError(f"{checkpoint.folder}: the tokenizer cannot be loaded ({why})") from error


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _has_code(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer is a class of the model's own."""
    path = checkpoint.folder / "tokenizer_config.json"
    return path.is_file() and "AutoTokenizer" in (read_object(path).get("auto_map") or {})


def _why(checkpoint: Checkpoint, error: Exception, trusted: bool) -> str:
    """The library's reason, or the step that helps where its own points elsewhere."""
    if "custom code" in str(error) or "trust_remote_code" in str(error) or (_has_code(checkpoint) and not trusted):
        return "it is code of the model's own, which runs only with --trust-remote-code"
    pieces = [name for name in ("tokenizer.model", "spiece.model") if (checkpoint.folder / name).exists()]
    if pieces and not (checkpoint.folder / "tokenizer.json").exists():
        lacking = [package for package, module in NEEDED_BY_PIECES.items() if not _installed(module)]
        if lacking:
            return f"{pieces[0]} is read by SentencePiece; pip install {' '.join(lacking)}"
    return first_line(error)


def require_tokenizer(checkpoint: Checkpoint) -> None:
    """Raise NoTokenizer if the folder has none: the library would make an empty one of it, without a word."""
    if not any((checkpoint.folder / name).exists() for name in TOKENIZER_FILES):
        raise NoTokenizer("the checkpoint holds no tokenizer, so no text can be read; token ids can (.ids.jsonl)")


def _longest(checkpoint: Checkpoint) -> int:
    """Tokens that the model has positions for."""
    config = checkpoint.config
    longest = next((config[key] for key in LONGEST if config.get(key)), STREAM_TOKENS)
    if config.get("model_type") in OFFSET_MODELS:
        longest -= (config.get("pad_token_id") or 0) + 1
    return longest

"""The calibration text as tokens, cut by the checkpoint's own tokenizer."""

from analyses.errors import InputError, first_line
from analyses.forward.calibration import STREAM_TOKENS, Calibration
from analyses.forward.probe import NoTokenizer
from analyses.weights.checkpoint import Checkpoint
from analyses.weights.hub import TOKENIZER_FILES

LONGEST = ("max_position_embeddings", "n_positions", "seq_length")  # config keys, the first one given counts
OFFSET_MODELS = ("roberta", "xlm-roberta", "camembert")  # they count positions from the padding id's successor on


def sequences(
    checkpoint: Checkpoint, calibration: Calibration, trust_remote_code: bool
) -> tuple[list[list[int]], int, bool]:
    """(token ids of each sequence, tokens left out, whether all sequences begin with a beginning mark).

    Raises NoTokenizer if the folder has none; InputError if it is damaged or makes nothing of a text.
    """
    import transformers  # only here: whether there is a tokenizer at all is asked where no model is run

    require_tokenizer(checkpoint)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the library raises a dozen unrelated classes
        raise InputError(f"{checkpoint.folder}: the tokenizer cannot be loaded ({first_line(error)})") from error
    limit = _longest(checkpoint)
    if calibration.stream:
        limit = min(limit, STREAM_TOKENS)
    whole = [tokenizer(text, verbose=False)["input_ids"] for text in calibration.texts]
    if not all(whole):
        raise InputError(f"{checkpoint.folder}: the tokenizer makes no token of a text; the tokenizer is damaged")
    kept = [ids[:limit] for ids in whole]
    left_out = sum(map(len, whole)) - sum(map(len, kept))
    marks = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    return kept, left_out, all(ids[0] in marks for ids in kept)


def require_tokenizer(checkpoint: Checkpoint) -> None:
    """Raise NoTokenizer if the folder has none: the library would make an empty one of it, without a word."""
    if not any((checkpoint.folder / name).exists() for name in TOKENIZER_FILES):
        raise NoTokenizer("the checkpoint holds no tokenizer, so no text can be read")


def _longest(checkpoint: Checkpoint) -> int:
    """Tokens that the model has positions for."""
    config = checkpoint.config
    longest = next((config[key] for key in LONGEST if config.get(key)), STREAM_TOKENS)
    if config.get("model_type") in OFFSET_MODELS:
        longest -= (config.get("pad_token_id") or 0) + 1
    return longest

"""A checkpoint loaded as the library's own model, without a weight that the checkpoint lacks.

The base model's class is built from the config and filled from our own reader, one tensor at a time
while the library converts names and fuses experts: what runs is what the weight analyses read, in
whatever format it is stored and however a twin altered it, and beside the model no second copy of
the weights is held. The head is never loaded: no probe reads logits.
"""

import importlib.util
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from analyses.errors import InputError, first_line
from analyses.weights.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 1 << 28  # bytes of a twin's model that stays in memory, to be filled again
REMOTE = ("AutoModel", "AutoModelForCausalLM")  # classes that a checkpoint's own code may bring, in our preference
BIAS_TWICE = ("falcon", "RefinedWeb", "RefinedWebModel")  # the mask holds the bias, and eager adds it to the logits too
LIBRARY_ERRORS = (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError)


def load(
    checkpoint: Checkpoint, *, dtype: str, device: str, attention: str, trust_remote_code: bool
) -> transformers.PreTrainedModel:
    """The base model of a checkpoint, in evaluation mode.

    Parameters
    ----------
    dtype : one of DTYPES. device : "cuda" is spread over all devices where accelerate is installed.
    attention : "eager" or "sdpa"; what runs in the end is the first of `runnable`.

    Raises
    ------
    InputError if the library cannot build the model, or if weights are missing: the library would
    fill them with random numbers and go on.

    Notes
    -----
    A twin may come in the model of the twin before, with its own weights: one of the two at a time can be run.
    """
    asked = (checkpoint.folder, dtype, device, attention, trust_remote_code)
    if checkpoint.altered and (again := _filled(checkpoint, asked)) is not None:
        return again
    spread = device == "cuda" and importlib.util.find_spec("accelerate") is not None
    try:
        config, kind, before = _class(checkpoint, trust_remote_code)
        # In memory a decoder may stand one level deeper than its names on disk say.
        on_disk = checkpoint.places["q_proj"].name.partition(".{}")[0]
        if not checkpoint.architecture.causal_class and not checkpoint.architecture.base_class:
            before += checkpoint.architecture.layers.removesuffix(on_disk)
        with _quiet():
            model, loading = kind.from_pretrained(
                None,
                config=config,
                state_dict=_stored(checkpoint, before),
                dtype=DTYPES[dtype],
                attn_implementation=runnable(attention, checkpoint, kind)[0],
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, by name and sizes
                **({"add_pooling_layer": False} if _takes(kind, "add_pooling_layer") else {}),
                # The library's faster sum over experts knows no float64.
                **({"experts_implementation": "eager"} if checkpoint.shape.experts and dtype == "float64" else {}),
                **({"device_map": "auto"} if spread else {}),
            )
    except InputError:
        raise
    except LIBRARY_ERRORS as error:
        raise InputError(f"{checkpoint.folder}: the library cannot load this model ({_why(error)})") from error
    if other := sorted(loading["mismatched_keys"]):
        name, stored, expected = other[0]
        raise InputError(
            f"{checkpoint.folder}: tensor {checkpoint.prefix}{name.removeprefix(before)} has shape {list(stored)}, and "
            f"the model that the config describes takes {list(expected)}; config and weights disagree"
        )
    needed = before + (f"{stack}." if (stack := checkpoint.architecture.base_class) else "")
    if missing := sorted(k.removeprefix(before) for k in loading["missing_keys"] if k.startswith(needed)):
        raise InputError(
            f"{checkpoint.folder}: {len(missing)} weights are missing, first {checkpoint.prefix}{missing[0]}"
        )
    model = (model if spread else model.to(device)).base_model.eval()
    stack = checkpoint.architecture.causal_class or checkpoint.architecture.base_class
    base = model.get_submodule(stack) if stack else model
    if checkpoint.altered and not spread and _bytes(base) <= SMALL:
        _LAST[:] = [(asked, base)]
    return base


_LAST: list[tuple[tuple[object, ...], transformers.PreTrainedModel]] = []  # the last small twin's, with what it is


def _filled(checkpoint: Checkpoint, asked: tuple[object, ...]) -> transformers.PreTrainedModel | None:
    """The last twin's model with this one's weights, which costs a third of building it; None where that is not all.

    Only where the model's tensors and the stored ones are the same by name: then the library converts and fuses none.
    """
    if not _LAST or _LAST[0][0] != asked:
        return None
    base = _LAST[0][1]
    held = base.state_dict()
    inside = [name for name in checkpoint.files if name.startswith(checkpoint.prefix)]
    stored = {name.removeprefix(checkpoint.prefix): name for name in inside}
    if set(held) != set(stored):
        return None
    with torch.no_grad():
        for name, parameter in held.items():
            value = checkpoint.tensor(stored[name])
            if value.shape != parameter.shape:
                return None
            parameter.copy_(value)
    return base


def _bytes(base: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in base.parameters())


def _why(error: Exception) -> str:
    """The library's reason, without pointing at a report that is not shown."""
    if "above report" in str(error):
        return "its weights cannot be brought into the shapes of its class; config and weights disagree"
    return first_line(error)


def _takes(kind: type, keyword: str) -> bool:
    """Whether a class can be built with this keyword."""
    return keyword in inspect.signature(kind.__init__).parameters


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, no table of unused names: the command line says where a run stands and what is missing."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def runnable(attention: str, checkpoint: Checkpoint, kind: type[transformers.PreTrainedModel]) -> tuple[str, str]:
    """(attention function that computes what the model was trained with, why not the one asked for or "")."""
    config = checkpoint.config
    if attention == "sdpa" and config.get("attn_logit_softcapping"):
        return "eager", "Attention ran as eager: this model caps its attention logits, which sdpa cannot do."
    if attention == "sdpa" and not kind._supports_sdpa:
        return "eager", f"Attention ran as eager: {kind.__name__} has no other in the library."
    if attention == "eager" and config.get("model_type") in BIAS_TWICE and config.get("alibi"):
        why = "the library's eager function adds this model's bias of positions twice, which it was not trained with"
        return "sdpa", f"Attention ran as sdpa: {why}."
    return attention, ""


def _class(
    checkpoint: Checkpoint, trust_remote_code: bool
) -> tuple[transformers.PretrainedConfig, type[transformers.PreTrainedModel], str]:
    """The config, the class of the (text part's) base model, and what stands before the base model's names in it."""
    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)
    auto_map = getattr(config, "auto_map", None) or {}
    if not trust_remote_code or not any(name in auto_map for name in REMOTE):
        if checkpoint.architecture.causal_class:
            kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            return config, kind, f"{kind.base_model_prefix}."
        if checkpoint.architecture.base_class:
            return config, transformers.MODEL_MAPPING[type(config)], ""
        config = config.get_text_config()
        if checkpoint.architecture.groups:  # each run of a layer as a layer of its own, of the same weights
            setattr(config, checkpoint.architecture.groups, checkpoint.shape.layers)
        return config, _base_class(config), ""
    name = next(name for name in REMOTE if name in auto_map)
    kind = get_class_from_dynamic_module(auto_map[name], checkpoint.folder)
    return config, kind, "" if name == REMOTE[0] else kind.base_model_prefix + "."


def _base_class(config: transformers.PretrainedConfig) -> type[transformers.PreTrainedModel]:
    """The base class of a config; of a tower that the library lists under its whole model alone, the one beside it."""
    beside = type(config).__name__.removesuffix("Config") + "Model"
    if type(config) not in transformers.MODEL_MAPPING and hasattr(transformers, beside):
        return getattr(transformers, beside)
    return transformers.MODEL_MAPPING[type(config)]


def _stored(checkpoint: Checkpoint, before: str) -> dict[str, "_Tensor"]:
    """The base model's tensors by the name that the library expects, each read when it is asked for."""
    lock = threading.Lock()
    return {
        before + called: _Tensor(checkpoint, name, lock)
        for name in checkpoint.files
        if name.startswith(checkpoint.prefix)
        for called in _runs(checkpoint, name.removeprefix(checkpoint.prefix))
    }


def _runs(checkpoint: Checkpoint, bare: str) -> list[str]:
    """A tensor's names behind the prefix, one for each layer that is run with it."""
    stem = checkpoint.places["q_proj"].name.partition("{}")[0]
    if not checkpoint.architecture.groups or not bare.startswith(stem):
        return [bare]
    number, _, rest = bare.removeprefix(stem).partition(".")
    runs = (layer for layer in range(checkpoint.shape.layers) if str(checkpoint.number(layer)) == number)
    return [f"{stem}{layer}.{rest}" for layer in runs]


class _Tensor:
    """Stands for a tensor until the library, on any of its threads, wants it: `tensor[...]`."""

    def __init__(self, checkpoint: Checkpoint, name: str, lock: threading.Lock):
        self.read = lambda: checkpoint.tensor(name)
        self.lock = lock

    def __getitem__(self, every: object) -> torch.Tensor:
        with self.lock:
            return self.read()

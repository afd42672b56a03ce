"""One instrumented forward pass that feeds several probes, layer by layer.

The library's own model runs on the calibration text; hooks hand each probe what passes through a
layer, and drop it before the next layer is done, so that the memory is the model's plus about one
layer's activations whatever the depth. The hidden state is taken at each layer's input and at the
final norm's input: the library's own list of hidden states ends *after* the final norm.

Attention is tapped through the library's attention interface: our function passes the queries,
keys, mask and scaling that the model really uses to the probes and then calls the model's own
eager or sdpa function. The mask is made by the library's eager mask function, hence a real array
also for sdpa, windows and padding included.

Nothing here is random, and sums are not split over threads in an order that changes from run to
run: two runs on one machine give the same bytes. TF32 is switched off for the pass.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from analyses.calibration import STREAM_TOKENS, Calibration
from analyses.checkpoint import Checkpoint
from analyses.errors import InputError
from analyses.hub import TOKENIZER_FILES
from analyses.probe import AttentionInputs, ForwardFacts, LayerStates, NoTokenizer, Probe

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTION = ("eager", "sdpa")
TAP = "fathom_tap"  # the name of our function in the library's attention interface
PAD = 0  # any id that is in the vocabulary: padded positions are masked and never read


def run(
    checkpoint: Checkpoint,
    calibration: Calibration,
    probes: Sequence[Probe],
    *,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "eager",
    trust_remote_code: bool = False,
) -> ForwardFacts:
    """Run the model once on the text and feed the probes.

    Parameters
    ----------
    dtype : one of DTYPES, of weights and activations.
    device : "cpu", "cuda", …; plain "cuda" is spread over all devices where accelerate is installed.
    attention : which of the model's attention functions runs, "eager" or "sdpa".

    Raises
    ------
    NoTokenizer if the folder has no tokenizer; InputError if the model cannot be loaded or has
    weights that the folder lacks, or if the tokenizer does not fit the model.
    """
    if dtype not in DTYPES or attention not in ATTENTION:
        raise InputError(f"dtype {dtype}, attention {attention}: expected one of {', '.join(DTYPES)}; {', '.join(ATTENTION)}")
    sequences, left_out, bos = _tokens(checkpoint, calibration, trust_remote_code)
    model = _load(checkpoint, dtype=dtype, device=device, attention=attention, trust_remote_code=trust_remote_code)
    if (most := max(map(max, sequences))) >= model.get_input_embeddings().num_embeddings:
        raise InputError(f"{checkpoint.folder}: the tokenizer makes id {most}, which the model has no embedding for")
    ids = torch.full((len(sequences), max(map(len, sequences))), PAD)  # (sequence, token)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        real[row, : len(sequence)] = True
    tour = _Tour(probes, real)
    tour.feed(lambda probe: probe.begin(real))
    start = model.get_input_embeddings().weight.device
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_full_float32())
        stack.enter_context(_tapped(model, tour, attention))
        for handle in _hooks(model.base_model, checkpoint, tour):
            stack.callback(handle.remove)
        model.base_model(input_ids=ids.to(start), attention_mask=real.long().to(start), use_cache=False)
    return ForwardFacts(
        calibration=calibration.name,
        sha256=calibration.sha256,
        sequences=len(sequences),
        tokens=int(real.sum()),
        tokens_left_out=left_out,
        truncated=left_out > 0,
        bos=bos,
        dtype=dtype,
        attention=attention,
        devices=tuple(sorted({str(p.device) for p in model.parameters()})),
    )


class _Tour:
    """Where the pass stands: the layer it is in, and what that layer has shown so far."""

    def __init__(self, probes: Sequence[Probe], real: torch.Tensor):
        self.probes = probes
        self.real = real
        self.current: int | None = None
        self.seen: dict[str, torch.Tensor] = {}

    def feed(self, call: Callable[[Probe], None]) -> None:
        for probe in self.probes:
            if probe.failure is None:
                try:
                    call(probe)
                except Exception as error:  # kept, and raised again when this probe's analysis is asked
                    probe.failure = error

    def rows(self, states: Any) -> torch.Tensor:
        """Real tokens of a (sequence, token, hidden) output as (token, hidden), a copy."""
        states = states[0] if isinstance(states, tuple) else states
        return states[self.real.to(states.device)].to(torch.promote_types(states.dtype, torch.float32))

    def enter(self, layer: int, hidden: torch.Tensor) -> None:
        hidden = self.rows(hidden)
        self.leave(hidden)
        self.current = layer
        self.seen = {"hidden": hidden}

    def leave(self, next_input: torch.Tensor) -> None:
        if self.current is None:
            return
        states = LayerStates(**self.seen, next_input=next_input.to(self.seen["output"].device))
        self.seen = {}
        self.feed(lambda probe: probe.layer(self.current, states))
        self.current = None

    def finish(self, before: torch.Tensor, after: torch.Tensor) -> None:
        before, after = self.rows(before), self.rows(after)
        self.feed(lambda probe: probe.final(before, after))
        self.leave(before)


def _hooks(base: torch.nn.Module, checkpoint: Checkpoint, tour: _Tour) -> Iterator[torch.utils.hooks.RemovableHandle]:
    names = checkpoint.architecture

    def keep(name: str) -> Callable:
        def hook(module, args, output) -> None:
            tour.seen[name] = tour.rows(output)

        return hook

    def entrance(layer: int) -> Callable:
        def hook(module, args, kwargs) -> None:
            tour.enter(layer, args[0] if args else kwargs["hidden_states"])

        return hook

    for index, layer in enumerate(base.get_submodule(names.layers)):
        yield layer.register_forward_pre_hook(entrance(index), with_kwargs=True)
        yield layer.get_submodule(names.attention).register_forward_hook(keep("attention"))
        yield layer.get_submodule(names.feed_forward).register_forward_hook(keep("feed_forward"))
        yield layer.register_forward_hook(keep("output"))
    yield base.get_submodule(names.final_norm).register_forward_hook(lambda _, args, output: tour.finish(args[0], output))


@contextmanager
def _tapped(model: transformers.PreTrainedModel, tour: _Tour, attention: str) -> Iterator[None]:
    """Put our function between the model and its attention function, for this pass only."""

    def tap(module, query, key, value, attention_mask, **keywords):
        softcap = keywords.get("softcap")
        if softcap is not None and attention == "sdpa":
            raise InputError("this model caps its attention logits, which sdpa cannot do; use --attention eager")
        output, weights = _own_attention(module, attention)(module, query, key, value, attention_mask, **keywords)
        scaling = keywords.get("scaling")
        inputs = AttentionInputs(
            query=query,
            key=key,
            mask=attention_mask,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            softcap=softcap,
            weights=weights,
        )
        tour.feed(lambda probe: probe.attention(tour.current, inputs))
        return output, weights

    transformers.AttentionInterface.register(TAP, tap)
    AttentionMaskInterface.register(TAP, eager_mask)
    try:
        model.set_attn_implementation(TAP)
        yield
    finally:
        transformers.AttentionInterface._global_mapping.pop(TAP)
        AttentionMaskInterface._global_mapping.pop(TAP)


def _own_attention(module: torch.nn.Module, attention: str) -> Callable:
    if attention == "sdpa":
        return transformers.AttentionInterface()["sdpa"]
    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if own is None:
        raise InputError(f"{type(module).__name__} has no eager attention function; use --attention sdpa")
    return own


@contextmanager
def _full_float32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _tokens(
    checkpoint: Checkpoint, calibration: Calibration, trust_remote_code: bool
) -> tuple[list[list[int]], int, bool]:
    """(token ids of each sequence, tokens left out, whether all sequences begin with the BOS mark)."""
    # The library makes an empty tokenizer, without a word, of a folder that has none.
    if not any((checkpoint.folder / name).exists() for name in TOKENIZER_FILES):
        raise NoTokenizer("the checkpoint holds no tokenizer, so no text can be read")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the library raises a dozen unrelated classes
        raise InputError(f"{checkpoint.folder}: the tokenizer cannot be loaded ({_first_line(error)})") from error
    config = checkpoint.config
    limit = config.get("max_position_embeddings") or config.get("n_positions") or STREAM_TOKENS
    if calibration.stream:
        limit = min(limit, STREAM_TOKENS)
    whole = [tokenizer(text, verbose=False)["input_ids"] for text in calibration.texts]
    if not all(whole):
        raise InputError(f"{checkpoint.folder}: the tokenizer makes no token of a text; the tokenizer is damaged")
    kept = [ids[:limit] for ids in whole]
    left_out = sum(map(len, whole)) - sum(map(len, kept))
    bos = tokenizer.bos_token_id is not None and all(ids[0] == tokenizer.bos_token_id for ids in kept)
    return kept, left_out, bos


def _load(
    checkpoint: Checkpoint, *, dtype: str, device: str, attention: str, trust_remote_code: bool
) -> transformers.PreTrainedModel:
    transformers.utils.logging.disable_progress_bar()  # the command line says where a run stands
    spread = device == "cuda" and importlib.util.find_spec("accelerate") is not None
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=DTYPES[dtype],
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **({"device_map": "auto"} if spread else {}),
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"{checkpoint.folder}: the library cannot load this model ({_first_line(error)})") from error
    # The library fills what is missing with random numbers and goes on.
    if missing := sorted(k for k in loading["missing_keys"] if k.startswith(model.base_model_prefix + ".")):
        raise InputError(f"{checkpoint.folder}: {len(missing)} weights are missing, first {missing[0]}")
    if checkpoint.altered:
        _alter(model, checkpoint)
    return (model if spread else model.to(device)).eval()


@torch.no_grad()
def _alter(model: transformers.PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Overwrite the parameters with what the checkpoint gives; a tied head follows its embedding."""
    layers = range(checkpoint.shape.layers)
    pending = {name for f in checkpoint.families for layer in layers for name in checkpoint.names(f, layer)}
    for name, parameter in model.named_parameters():
        on_disk = name if name in checkpoint.files else name.removeprefix(model.base_model_prefix + ".")
        if on_disk in checkpoint.files:
            parameter.copy_(checkpoint.tensor(on_disk))
            pending.discard(on_disk)
    if pending:
        raise InputError(f"{checkpoint.name}: the library keeps {min(pending)} under another name; it cannot be altered")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

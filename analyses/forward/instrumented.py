"""One instrumented forward pass that feeds several probes, layer by layer.

The library's own base model (`loading`) runs on the calibration text (`tokens`); `hooks` hand each
probe what passes through a layer, and drop it before the next layer is done, so that the memory is
the model's plus about one layer's activations whatever the depth. The hidden state is taken at
each layer's input and at the final norm's input: the library's own list of hidden states ends *after*
the final norm. `taps` shows the probes what the model's attention functions receive.

Nothing here is random, and sums are not split over threads in an order that changes from run to
run: two runs on one machine give the same bytes. TF32 is switched off for the pass.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from analyses.errors import InputError
from analyses.forward.calibration import Calibration
from analyses.forward.hooks import Collector, hooks, multiplier
from analyses.forward.language import text_loss
from analyses.forward.loading import DTYPES, load, runnable
from analyses.forward.probe import AttentionInputs, ForwardFacts, Probe
from analyses.forward.taps import tapped
from analyses.forward.tokens import sequences
from analyses.forward.witness import TOKENS, Seen, witness
from analyses.numerics.spectra import full_float32
from analyses.weights.checkpoint import Checkpoint

ATTENTION = ("eager", "sdpa")
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
        known = f"{', '.join(DTYPES)}; {', '.join(ATTENTION)}"
        raise InputError(f"dtype {dtype}, attention {attention}: expected one of {known}")
    read = sequences(checkpoint, calibration, trust_remote_code)
    texts = read.ids
    base = load(checkpoint, dtype=dtype, device=device, attention=attention, trust_remote_code=trust_remote_code)
    embedding = base.get_input_embeddings()
    if (most := max(map(max, texts))) >= embedding.num_embeddings:
        who = f"{calibration.name} holds" if calibration.ids else "the tokenizer makes"
        raise InputError(f"{checkpoint.folder}: {who} id {most}, which the model has no embedding for")
    ids = torch.full((len(texts), max(map(len, texts))), PAD)  # (sequence, token)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        real[row, : len(text)] = True
    used, remark = runnable(attention, checkpoint, type(base))
    states = walk(base, checkpoint, ids, real, probes, attention=used)
    language = {} if read.unknown is None else {"unknown_share": read.unknown}
    language |= text_loss(checkpoint, states, ids, real, embedding.weight.detach())
    return ForwardFacts(
        calibration=calibration.name,
        sha256=calibration.sha256,
        sequences=len(texts),
        tokens=int(real.sum()),
        tokens_left_out=read.left_out,
        truncated=read.left_out > 0,
        bos=read.bos,
        dtype=dtype,
        attention=used,
        remarks=(remark,) if remark else (),
        language=language,
        devices=tuple(sorted({str(p.device) for p in base.parameters()})),
    )


def walk(
    base: torch.nn.Module,
    checkpoint: Checkpoint,
    ids: torch.Tensor,
    real: torch.Tensor,
    probes: Sequence[Probe],
    *,
    attention: str,
) -> torch.Tensor:
    """Run a loaded base model on tokens and feed the probes; its states behind the final norm.

    Parameters
    ----------
    base : what `load` made of the checkpoint.
    ids, real : (sequence, token), and whether each is a token of the text; padding is on the right.
    attention : which of the model's attention functions runs, one that it can run (`runnable`).
    """
    depth, layers = checkpoint.shape.layers, base.get_submodule(checkpoint.architecture.layers)

    def watch(layer: int, inputs: AttentionInputs, stream: torch.Tensor, read: torch.Tensor) -> Seen:
        return witness(checkpoint, layer, layers[layer], inputs, real, stream[:TOKENS], read[:TOKENS])

    collector = Collector(
        probes,
        real,
        factor=multiplier(checkpoint),
        branches=[checkpoint.branches(layer) for layer in range(depth)],
        alike=[checkpoint.alike(layer, layer + 1) for layer in range(depth - 1)],
        watch=watch if not checkpoint.altered and any(probe.wants_witness for probe in probes) else None,
    )
    collector.feed(lambda probe: probe.begin(real))
    start = base.get_input_embeddings().weight.device
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(full_float32())
        stack.enter_context(tapped(base, checkpoint, collector.attend, attention))
        for handle in hooks(base, checkpoint, collector):
            stack.callback(handle.remove)
        output = base(input_ids=ids.to(start), attention_mask=real.long().to(start), use_cache=False)
    return output.last_hidden_state

"""Time and memory that the probes of a forward pass add to the pass itself.

The library's own class runs on random weights and random tokens, in as many sequences and of the
lengths that the shipped text has for the reference model's tokenizer, or in one of 1,024 tokens. The
plain pass is the same model's with the same attention function and nothing looking on.
"""

import torch

from analyses.attention_stats.attention_probe import AttentionProbe
from analyses.delta_svd.delta_probe import DeltaProbe
from analyses.forward.calibration import load_calibration
from analyses.forward.instrumented import walk
from analyses.forward.loading import load
from analyses.forward.probe import Probe
from analyses.forward.tokens import sequences
from analyses.residual_stream import StreamProbe
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.bench import ceilings
from checks.bench.checkpoints import VOCABULARY
from checks.bench.stage import Stage, peak, peak_from_here
from checks.reference import REFERENCE

ONE = 1024  # tokens
DEPTH = 28  # layers of the whole model: so many of its states are compared across


class Pass:
    """A loaded model, and a text for it."""

    def __init__(self, checkpoint: Checkpoint, attention: str, text: str):
        self.checkpoint, self.attention = checkpoint, attention
        self.base = load(checkpoint, dtype="float32", device="cpu", attention=attention, trust_remote_code=False)
        lengths = torch.tensor([ONE] if text == "one" else _shipped())
        self.real = torch.arange(int(lengths.max())) < lengths[:, None]  # (sequence, token)
        self.ids = torch.randint(VOCABULARY, self.real.shape, generator=torch.Generator().manual_seed(0))
        for probes in ([], _probes()):  # once on a few tokens: what is set up on first use is no part of a pass
            self.run(probes, tokens=4)

    def run(self, probes: list[Probe], tokens: int | None = None) -> None:
        ids, real = self.ids[:, :tokens], self.real[:, :tokens]
        if not probes:
            with torch.no_grad():
                self.base(input_ids=ids, attention_mask=real.long(), use_cache=False)
            return
        walk(self.base, self.checkpoint, ids, real, probes, attention=self.attention)
        for probe in probes:
            if probe.failure is not None:
                raise probe.failure


def attention(checkpoint: Checkpoint, function: str, text: str) -> Stage:
    of = Pass(checkpoint, function, text)
    return Stage(
        work=lambda: of.run([AttentionProbe()]),
        bare=lambda: of.run([]),
        floor="the plain pass",
        turns=5,
        baseline=peak_from_here(),
    )


def writes(checkpoint: Checkpoint, function: str, text: str) -> Stage:
    of = Pass(checkpoint, function, text)
    rows = int(of.real.sum()) - len(of.real)  # the first token of each sequence is left out
    delta = torch.randn(rows, checkpoint.shape.hidden, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def bare() -> None:
        of.run([])
        for i in range(4 * checkpoint.shape.layers + 4):  # the last layer's write is also taken after the final norm
            symmetric = ceilings.gram(delta)
            torch.linalg.eigh(torch.from_numpy(symmetric)) if i % 4 < 2 else ceilings.eigenvalues(symmetric)

    floor = "the plain pass, and each write's two decompositions with vectors and two without"
    return Stage(work=lambda: of.run(_probes()[1:]), bare=bare, floor=floor, baseline=peak_from_here())


def stream(checkpoint: Checkpoint, function: str, text: str) -> Stage:
    """What the probe of the residual stream adds to a pass with the others; its peak is counted from theirs.

    Rows are also permuted in three layers of a model, here in none of the few that are passed through.
    """
    of = Pass(checkpoint, function, text)
    peak_from_here()
    of.run(_probes())
    return Stage(
        work=lambda: of.run([*_probes(), StreamProbe(layer_norm=False, depth=DEPTH)]),
        bare=lambda: of.run(_probes()),
        floor="the pass with the other probes",
        baseline=peak(),
    )


def memory(checkpoint: Checkpoint, function: str, text: str) -> Stage:
    """The peak with all probes, and what it may be: that of a plain pass, one layer's activations, and its weights."""
    of = Pass(checkpoint, function, text)
    loaded = peak_from_here()
    of.run([])
    facts = {
        "MB of the plain pass": peak() - loaded,
        "of one layer's weights": sum(p.nbytes for p in of.base.layers[0].parameters()) / 1024**2,
    }
    return Stage(work=lambda: of.run(_probes()), facts=facts, turns=1, baseline=loaded)


def _probes() -> list[Probe]:
    return [AttentionProbe(), DeltaProbe(layer_norm=False)]


def _shipped() -> list[int]:
    """Tokens of each of the shipped texts, as the reference model's tokenizer cuts them."""
    texts = sequences(open_checkpoint(str(REFERENCE)), load_calibration(), False).ids
    return [len(text) for text in texts]

"""What a layer's branches write on the states of the layer before, on every architecture.

The truth is the layer applied by hand from its tensors on disk, in float64: its attention to the stream that the
layer before read, its feed-forward to the stream that stood between that layer's own branches.
"""

from pathlib import Path

import pytest
import torch
import transformers

from analyses.forward.calibration import Calibration
from analyses.forward.instrumented import run
from analyses.forward.probe import Probe, Window
from analyses.weights.checkpoint import open_checkpoint
from tests import by_hand
from tests.by_hand import run_layer
from tests.tiny import TINY, tiny_checkpoint

ONE = ("A single prompt, so that no row of it is padded.",)
SEVERAL = ("A short prompt, padded.", "Another prompt, a little longer than the first and than any window.", "x")
LAYERS = 3
ROUNDING = 1e-5  # the classes compute norms and softmax in float32 whatever the dtype, as in test_architectures
IN_FLOAT32 = 1e-4  # the library's fused experts know no float64: float32 throughout


class Recorder(Probe):
    """Keeps the states of every layer."""

    def __init__(self, *, next_branches: bool = True) -> None:
        self.next_branches = next_branches
        self.states, self.attended = [], []

    def attention(self, layer, inputs):
        self.attended.append(layer)

    def layer(self, layer, states):
        self.states.append(states)


def passed(folder: Path, *texts: str, probe: Probe | None = None, **options) -> Recorder:
    recorder = probe or Recorder()
    calibration = Calibration(name="test", texts=texts, sha256="0" * 64, stream=False)
    run(open_checkpoint(str(folder)), calibration, [recorder], **options)
    assert recorder.failure is None, recorder.failure
    return recorder


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> dict[str, Path]:
    root, folders = tmp_path_factory.mktemp("zoo"), {}
    for i, name in enumerate(TINY):
        try:
            folders[name] = tiny_checkpoint(root / str(i), name, layers=LAYERS)
        except ValueError as error:
            if "Unrecognized model" not in str(error) and "model_type" not in str(error):
                raise
    return folders


@pytest.fixture(params=TINY)
def name(request, zoo) -> str:
    if request.param not in zoo:
        pytest.skip(f"transformers {transformers.__version__} has no {request.param}")
    return request.param


def relative(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return float((ours - truth).abs().max() / truth.abs().max())


def test_the_next_layers_branches_read_what_this_layers_branches_read(zoo, name: str, monkeypatch):
    if name == "falcon, sequential":  # by hand as the library's eager attention, which adds the bias twice; sdpa runs
        bias = by_hand._alibi
        monkeypatch.setattr(by_hand, "_alibi", lambda heads, tokens: bias(heads, tokens) / 2)
    checkpoint = open_checkpoint(str(zoo[name]))
    dtype, bound = ("float32", IN_FLOAT32) if checkpoint.shape.experts else ("float64", ROUNDING)
    record = checkpoint.architecture
    factor = checkpoint.config[record.residual_multiplier] if record.residual_multiplier else 1.0
    found = passed(zoo[name], *ONE, dtype=dtype).states
    for layer in range(LAYERS - 1):
        hidden = found[layer].hidden.double()
        own = run_layer(checkpoint, layer, hidden)
        after = run_layer(checkpoint, layer + 1, hidden, middle=own.middle)
        assert not found[layer].next_refused
        assert relative(found[layer].next_attention, factor * after.attention_branch) <= bound, layer
        assert relative(found[layer].next_feed_forward, factor * after.feed_forward_branch) <= bound, layer
        # and it is not what they write on their own states
        assert relative(found[layer].next_attention, found[layer + 1].attention) > 1e-3
        assert relative(found[layer].next_feed_forward, found[layer + 1].feed_forward) > 1e-3
    assert found[-1].next_attention is None and found[-1].next_feed_forward is None


def test_asking_for_the_next_branches_leaves_the_pass_itself_alone(zoo, name: str):
    """States, branches and the attention that probes see are the same bytes, and each layer is told once."""
    asked, plain = (passed(zoo[name], *SEVERAL, probe=Recorder(next_branches=flag)) for flag in (True, False))
    assert asked.attended == plain.attended == list(range(LAYERS))
    for one, other in zip(asked.states, plain.states, strict=True):
        for key in ("hidden", "attention", "feed_forward", "output", "next_input"):
            assert torch.equal(getattr(one, key), getattr(other, key)), key
        assert other.next_attention is None and other.next_feed_forward is None


@pytest.mark.parametrize("name", ["llama", "falcon, new decoder", "bert", "mixtral"])
def test_padding_changes_nothing_in_what_the_next_branches_write(zoo, name: str):
    alone, beside = passed(zoo[name], SEVERAL[0]).states, passed(zoo[name], *SEVERAL).states
    n = len(alone[0].hidden)
    for one, several in zip(alone[:-1], beside[:-1], strict=True):
        for key in ("next_attention", "next_feed_forward"):
            own, padded = getattr(one, key), getattr(several, key)[:n]
            assert relative(padded, own) <= 1e-4, key  # float32 pass, other shapes of the products


def test_a_window_asks_for_its_probe(zoo):
    seen = Recorder()
    passed(zoo["llama"], *ONE, probe=Window(seen, range(1, 2), depth=LAYERS))
    assert len(seen.states) == 1 and seen.states[0].next_attention is not None


def test_where_the_models_code_refuses_the_second_call_the_pass_goes_on(zoo, monkeypatch):
    kind = transformers.models.llama.modeling_llama.LlamaDecoderLayer
    seen, own = set(), kind.forward

    def refuse_once(self, *args, **keywords):  # the extra call of layer 1 comes before its own
        if self.self_attn.layer_idx == 1 and not seen:
            seen.add(1)
            raise RuntimeError("not on these states")
        return own(self, *args, **keywords)

    monkeypatch.setattr(kind, "forward", refuse_once)
    states = passed(zoo["llama"], *ONE).states
    assert len(states) == LAYERS and states[0].next_attention is None
    assert "not on these states" in states[0].next_refused

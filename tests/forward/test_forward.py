"""One forward pass: what the probes are handed is what the model computes, and nothing is kept."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from analyses.errors import InputError
from analyses.forward.calibration import STREAM_TOKENS, Calibration, load_calibration
from analyses.forward.instrumented import run
from analyses.forward.probe import NoTokenizer, Probe
from analyses.forward.taps import TAP
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import MODEL_TYPES, byte_tokenizer, tiny_checkpoint

PROMPTS = ("A short prompt.", "Another prompt, a little longer than the first.", "x")


def prompts(*texts: str) -> Calibration:
    return Calibration(name="test", texts=texts or PROMPTS, sha256="0" * 64, stream=False)


class Recorder(Probe):
    """Keeps copies of everything; for tests only."""

    def __init__(self) -> None:
        self.states, self.inputs, self.ends = [], [], None

    def begin(self, real):
        self.real = real.clone()

    def attention(self, layer, inputs):
        self.inputs.append(inputs)

    def layer(self, layer, states):
        assert layer == len(self.states)
        self.states.append(states)

    def final(self, before, after):
        self.ends = before, after


class Failing(Probe):
    def layer(self, layer, states):
        raise RuntimeError("this probe is broken")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_checkpoint(root / name, name) for name in MODEL_TYPES}


class Watching(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.products += operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return operation(*args, **(kwargs or {}))


class Multiplying(Probe):
    def layer(self, layer, states):
        states.hidden @ states.hidden.T


def test_a_mode_that_watches_the_model_does_not_see_what_its_probes_compute(folders):
    """They compute a hundred times as many operations, each of which such a mode makes slow."""
    counts = []
    for probes in ([], [Multiplying()]):
        with Watching() as mode:
            run(open_checkpoint(str(folders["llama"])), prompts(), probes)
        counts.append(mode.products)
    assert counts[0] == counts[1] > 0


def library_model(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_layers_output_is_the_next_layers_input_and_its_branches_add_up(folders, model_type: str, attention: str):
    recorder = Recorder()
    run(open_checkpoint(str(folders[model_type])), prompts(), [recorder], attention=attention)
    assert len(recorder.states) == 3
    for states, following in zip(recorder.states, [*recorder.states[1:], None], strict=True):
        assert torch.equal(states.output, states.next_input)
        if following is not None:
            assert torch.equal(states.next_input, following.hidden)
        # Two float32 additions, half a unit in the last place of the stream each.
        bound = 2**-23 * float(states.hidden.abs().max() + states.attention.abs().max() + states.output.abs().max())
        torch.testing.assert_close(
            states.hidden + states.attention + states.feed_forward, states.output, rtol=0, atol=bound
        )
    assert torch.equal(recorder.states[-1].next_input, recorder.ends[0])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hidden_states_are_the_librarys_but_its_last_one_is_after_the_final_norm(folders, model_type: str):
    recorder = Recorder()
    run(open_checkpoint(str(folders[model_type])), prompts(PROMPTS[1]), [recorder])
    ids = torch.tensor([byte_tokenizer()(PROMPTS[1])["input_ids"]])
    with torch.no_grad():
        library = library_model(folders[model_type])(ids, output_hidden_states=True).hidden_states
    for states, expected in zip(recorder.states, library, strict=False):
        assert torch.equal(states.hidden, expected[0])
    before, after = recorder.ends
    assert torch.equal(after, library[-1][0])
    assert (before - library[-1][0]).abs().max() > 0.1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tapping_attention_changes_no_bit_of_the_pass(folders, attention: str):
    recorder = Recorder()
    run(open_checkpoint(str(folders["qwen3"])), prompts(PROMPTS[1]), [recorder], attention=attention)
    model = library_model(folders["qwen3"])
    model.set_attn_implementation(attention)
    ids = torch.tensor([byte_tokenizer()(PROMPTS[1])["input_ids"]])
    with torch.no_grad():
        expected = model.base_model(ids).last_hidden_state[0]
    assert torch.equal(recorder.ends[1], expected)


def test_queries_keys_mask_and_scaling_give_the_models_own_probabilities(folders):
    recorder = Recorder()
    run(open_checkpoint(str(folders["qwen2"])), prompts(PROMPTS[1]), [recorder])
    ids = torch.tensor([byte_tokenizer()(PROMPTS[1])["input_ids"]])
    with torch.no_grad():
        expected = library_model(folders["qwen2"])(ids, output_attentions=True).attentions
    for inputs, weights in zip(recorder.inputs, expected, strict=True):
        key = inputs.key.repeat_interleave(2, 1)
        ours = (inputs.query @ key.mT * inputs.scaling + inputs.mask).softmax(-1)
        torch.testing.assert_close(ours, weights, rtol=0, atol=1e-6)  # float32 rounding of a softmax
        assert torch.equal(inputs.weights, weights)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_padding_is_invisible_to_real_tokens(folders, model_type: str, attention: str):
    together, alone = Recorder(), Recorder()
    checkpoint = open_checkpoint(str(folders[model_type]))
    run(checkpoint, prompts(), [together], attention=attention)
    run(checkpoint, prompts(PROMPTS[0]), [alone], attention=attention)
    n = len(PROMPTS[0])
    for batch, single in zip(together.states, alone.states, strict=True):
        scale = float(single.output.abs().max())
        # float32 products of another shape may be summed in another order.
        torch.testing.assert_close(batch.output[:n], single.output, rtol=0, atol=1e-5 * scale)


def test_a_probe_that_raises_loses_nothing_of_the_others(folders):
    failing, recorder = Failing(), Recorder()
    run(open_checkpoint(str(folders["llama"])), prompts(), [failing, recorder])
    assert isinstance(failing.failure, RuntimeError)
    assert recorder.failure is None and len(recorder.states) == 3


def test_nothing_of_a_layer_outlives_the_next_one(folders):
    class Watcher(Probe):
        def __init__(self):
            self.alive, self.counted = [], []

        def attention(self, layer, inputs):
            self.alive += [weakref.ref(inputs.weights)]

        def layer(self, layer, states):
            gc.collect()
            self.counted.append(sum(ref() is not None for ref in self.alive))
            self.alive = [weakref.ref(t) for t in (states.hidden, states.attention, states.feed_forward, states.output)]

    watcher = Watcher()
    run(open_checkpoint(str(folders["llama"])), prompts(), [watcher])
    assert watcher.failure is None
    gc.collect()
    assert watcher.counted == [0, 0, 0] and not any(ref() is not None for ref in watcher.alive)
    watcher = Watcher()
    run(open_checkpoint(str(folders["llama"])), prompts(), [watcher, Recorder()])
    assert watcher.counted == [1, 5, 5]  # a probe that keeps its layers would be seen


def test_the_librarys_registries_are_left_as_they_were(folders):
    before = list(transformers.AttentionInterface().valid_keys())
    run(open_checkpoint(str(folders["llama"])), prompts(), [])
    with pytest.raises(InputError, match="embedding"):
        run(_with_small_embedding(folders["llama"]), prompts("ÿ"), [])
    assert list(transformers.AttentionInterface().valid_keys()) == before
    assert TAP not in before


def _with_small_embedding(folder: Path):
    small = tiny_checkpoint(folder.parent / "small", "llama", vocab_size=100, eos_token_id=99)
    return open_checkpoint(str(small))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_every_dtype_runs_and_says_so(folders, dtype: str):
    recorder = Recorder()
    facts = run(open_checkpoint(str(folders["qwen3"])), prompts(), [recorder], dtype=dtype)
    assert facts.dtype == dtype
    assert recorder.inputs[0].query.dtype == getattr(torch, dtype)
    assert recorder.states[0].hidden.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert all(states.output.isfinite().all() for states in recorder.states)


def test_products_are_full_float32_whatever_is_set_and_the_setting_comes_back(folders):
    class Watcher(Probe):
        def layer(self, layer, states):
            seen.append(torch.get_float32_matmul_precision())

    before, seen = torch.get_float32_matmul_precision(), []
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 where a device has it
    try:
        run(open_checkpoint(str(folders["llama"])), prompts(), [Watcher()])
        assert seen == ["highest"] * 3 and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_two_runs_give_the_same_bytes(folders):
    first, second = Recorder(), Recorder()
    for recorder in (first, second):
        run(open_checkpoint(str(folders["mistral"])), prompts(), [recorder])
    assert all(torch.equal(a.output, b.output) for a, b in zip(first.states, second.states, strict=True))


def test_facts_count_real_tokens_and_tell_the_beginning_mark(folders, tmp_path: Path):
    facts = run(open_checkpoint(str(folders["llama"])), prompts(), [])
    assert (facts.sequences, facts.tokens, facts.truncated, facts.bos) == (3, sum(map(len, PROMPTS)), False, False)
    assert facts.devices == ("cpu",)
    assert all("language" in note for note in facts.notes())  # a model of random weights knows none
    folder = tiny_checkpoint(tmp_path / "marked", "llama", tokenizer=False)
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = "<|end|>"
    tokenizer.backend_tokenizer.post_processor = _leading_mark()
    tokenizer.save_pretrained(folder)
    facts = run(open_checkpoint(str(folder)), prompts(), [])
    assert facts.bos and facts.tokens == sum(map(len, PROMPTS)) + 3


def _leading_mark():
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 256)])


def test_a_tokenizer_without_padding_is_enough(folders):
    assert byte_tokenizer().pad_token is None
    assert run(open_checkpoint(str(folders["qwen3"])), prompts(), []).sequences == 3


def test_a_stream_is_cut_and_the_cut_is_told(folders, tmp_path: Path):
    (tmp_path / "long.txt").write_text("abcd " * 500)
    checkpoint = open_checkpoint(str(folders["llama"]))
    facts = run(checkpoint, load_calibration(tmp_path / "long.txt"), [])
    assert (facts.tokens, facts.tokens_left_out, facts.truncated) == (STREAM_TOKENS, 2500 - STREAM_TOKENS, True)
    assert "452 tokens" in facts.notes()[0]
    short = open_checkpoint(str(tiny_checkpoint(tmp_path / "short", "llama", max_position_embeddings=64)))
    assert run(short, load_calibration(tmp_path / "long.txt"), []).tokens == 64
    assert run(short, load_calibration(), []).truncated  # a prompt may be longer than so short a model can read


def test_the_built_in_text_is_read_whole(folders):
    facts = run(open_checkpoint(str(folders["llama"])), load_calibration(), [])
    assert not facts.truncated
    assert facts.tokens == sum(len(text.encode()) for text in load_calibration().texts)


def test_a_checkpoint_without_a_tokenizer_is_told_apart_from_bad_input(tmp_path: Path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path / "bare", "llama", tokenizer=False)))
    with pytest.raises(NoTokenizer, match="no tokenizer"):
        run(checkpoint, prompts(), [])


def test_a_damaged_tokenizer_is_rejected(tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "damaged", "llama")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer cannot be loaded") as caught:
        run(open_checkpoint(str(folder)), prompts(), [])
    assert not isinstance(caught.value, NoTokenizer) and "\n" not in str(caught.value)


def test_a_missing_weight_is_rejected_where_the_library_would_draw_random_numbers(tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "missing", "qwen2")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, first model\.norm\.weight"):
        run(open_checkpoint(str(folder)), prompts(), [])


def test_an_unknown_dtype_or_attention_is_rejected(folders):
    checkpoint = open_checkpoint(str(folders["llama"]))
    with pytest.raises(InputError, match="int8"):
        run(checkpoint, prompts(), [], dtype="int8")
    with pytest.raises(InputError, match="flash"):
        run(checkpoint, prompts(), [], attention="flash")


def test_a_text_that_makes_no_token_is_rejected(folders):
    with pytest.raises(InputError, match="no token"):
        run(open_checkpoint(str(folders["llama"])), prompts("a", ""), [])

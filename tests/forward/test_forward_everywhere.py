"""The forward pass and all analyses on every architecture, against the library's own model classes."""

from pathlib import Path

import pytest
import torch
import transformers

from analyses import registry
from analyses.attention_stats.attention_probe import head_means
from analyses.forward import loading
from analyses.forward.calibration import Calibration
from analyses.forward.inputs import Settings
from analyses.forward.instrumented import run
from analyses.forward.loading import load
from analyses.forward.probe import Probe
from analyses.numerics.intervals import left_out
from analyses.records import unexplained_nulls
from analyses.run.suite import records_of
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import INTEGRITY
from checks.claims.gate import evaluate
from checks.twins.twins import SHUFFLED
from tests.few_draws import few_draws
from tests.tiny import TINY, byte_tokenizer, tiny_checkpoint

TEXTS = ("A short prompt, padded.", "Another prompt, a little longer than the first and than any window.", "x")
TEXT = Calibration(name="test", texts=TEXTS, sha256="0" * 64, stream=False)
LAYERS = 5  # as few as schedule_fit makes a fit of
OWN_EAGER_IS_WRONG = "falcon, sequential"  # with a bias of positions, see `loading.runnable`


class Recorder(Probe):
    """Keeps everything a pass shows, and reduces attention as the real probe does."""

    def __init__(self) -> None:
        self.states, self.inputs, self.means, self.ends = [], [], [], None

    def begin(self, real):
        self.real = real

    def attention(self, layer, inputs):
        self.inputs.append(inputs)
        self.means.append(head_means(inputs, self.real))

    def layer(self, layer, states):
        self.states.append(states)

    def final(self, before, after):
        self.ends = before, after


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> dict[str, Path]:
    """A tiny checkpoint of every form of every architecture that the installed library has."""
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


def passed(folder: Path, **options) -> Recorder:
    recorder = Recorder()
    recorder.facts = run(open_checkpoint(str(folder)), TEXT, [recorder], **options)
    assert recorder.failure is None, recorder.failure
    return recorder


@torch.no_grad()
def library(folder: Path, attention: str = "eager"):
    """(real tokens, the library's own output) for TEXTS in one padded batch."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    rows = [torch.tensor(byte_tokenizer()(text)["input_ids"]) for text in TEXTS]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    shown = attention == "eager"
    return real.bool(), model(
        input_ids=ids, attention_mask=real, output_hidden_states=True, output_attentions=shown, use_cache=False
    )


def test_layer_states_are_the_librarys_hidden_states_and_writes_add_up(zoo, name: str):
    folder, record = zoo[name], open_checkpoint(str(zoo[name])).architecture
    recorder = passed(folder)
    real, own = library(folder, recorder.facts.attention)
    assert len(recorder.states) == LAYERS
    for layer, (states, expected) in enumerate(zip(recorder.states, own.hidden_states, strict=False)):
        assert torch.equal(states.hidden, expected[real]), layer
        assert torch.equal(states.output, states.next_input), layer
        if not record.post_norm:
            magnitude = sum(float(x.abs().max()) for x in (states.hidden, states.attention, states.output))
            torch.testing.assert_close(
                states.hidden + states.attention + states.feed_forward, states.output,
                rtol=0, atol=2**-22 * magnitude,  # three float32 additions, half a unit in the last place each
            )  # fmt: skip
    before, after = recorder.ends
    assert torch.equal(before, recorder.states[-1].next_input)
    if after.shape[-1] == own.last_hidden_state.shape[-1]:  # one form projects behind its last layer
        assert torch.equal(after, own.last_hidden_state[real])


def test_attention_statistics_are_those_of_the_classes_own_probabilities(zoo, name: str, monkeypatch):
    """Entropy from p itself; the spread of logits from ln p, which differs from the logits by a constant per query."""
    if name == OWN_EAGER_IS_WRONG:
        attentions = _behind_sdpa(monkeypatch)
    recorder = passed(zoo[name])
    if name != OWN_EAGER_IS_WRONG:
        attentions = library(zoo[name])[1].attentions
    tokens = recorder.real.sum(1).tolist()
    for layer, (means, weights) in enumerate(zip(recorder.means, attentions[:LAYERS], strict=True)):
        rows = [weights[i, :, :n, :n].double() for i, n in enumerate(tokens)]  # (head, query, key)
        entropy = torch.cat([torch.special.entr(p).sum(-1) for p in rows], 1).mean(1)
        spread = torch.cat([_spread(p) for p in rows], 1).nanmean(1)
        sink = torch.cat([p[:, 1:, 0] for p in rows], 1).mean(1)
        # Probabilities are float32: 1e-7 of each is rounding, and the exponent of a logit magnifies the logit's own.
        for ours, theirs in ((means.entropy, entropy), (means.logit_std, spread), (means.sink_share, sink)):
            torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6, msg=lambda m, at=layer: f"layer {at}: {m}")
        assert means.entropy_excess <= 1e-12 and means.row_sum_error <= 1e-6


def _spread(p: torch.Tensor) -> torch.Tensor:
    """Standard deviation of ln p over visible keys, NaN for a query that sees one; (head, query)."""
    seen = p > 0
    assert not ((p > 0) & (p < 1e-35)).any(), "a probability near underflow would not give its logit back"
    n = seen.sum(-1)
    log_p = p.log().where(seen, 0)
    centred = (log_p - log_p.sum(-1, keepdim=True) / n[..., None]).where(seen, 0)
    return (centred.square().sum(-1) / n).sqrt().where(n >= 2, torch.nan)


def _behind_sdpa(monkeypatch) -> list[torch.Tensor]:
    """Probabilities of every call of sdpa from now on, from what it is given."""
    seen, own = [], torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **keywords):
        seen.append((query @ key.mT / query.shape[-1] ** 0.5 + attn_mask).softmax(-1))
        return own(query, key, value, attn_mask=attn_mask, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    return seen


def test_all_analyses_run_and_every_identity_holds(zoo, name: str):
    checkpoint = open_checkpoint(str(zoo[name]))
    with few_draws(), left_out():
        found = records_of(checkpoint, TEXT, Settings(device="cpu"), registry.NAMES)
    assert set(found) == set(registry.NAMES)
    for analysis, record in found.items():
        assert unexplained_nulls(record) == [], analysis
    skipped = {}
    for gate in INTEGRITY:
        outcome = evaluate(gate, found)
        if outcome.status == "skip":
            skipped[gate.id] = outcome.reason
        else:
            assert outcome.status == "pass", (gate.id, [finding.observed for finding in outcome.findings])
    if checkpoint.architecture.post_norm:
        assert "normalised behind each branch" in skipped.pop("delta_svd.branch_sum")
        assert any("Post-norm" in note for note in found["delta_svd"]["notes"])
    for name in ("probabilities", "output"):  # Falcon's module shows what sdpa makes of them in neither form
        if "falcon" in checkpoint.architecture.name.lower():
            skipped.pop(f"attention_stats.{name}", None)
    assert not skipped


def test_the_base_model_without_its_head_is_read_and_run_alike(zoo, tmp_path: Path):
    for name in ("llama", "gpt2", "opt", "bert"):
        folder = tmp_path / name
        transformers.AutoModel.from_pretrained(zoo[name]).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        for a, b in zip(passed(zoo[name]).states, passed(folder).states, strict=True):
            assert torch.equal(a.output, b.output), name


def test_where_sdpa_cannot_do_what_the_model_does_eager_runs_and_it_is_told(zoo):
    for name, why in (("gemma2", "caps"), ("gptj", "no other"), ("bloom", "no other")):
        facts = passed(zoo[name], attention="sdpa").facts
        assert facts.attention == "eager" and why in facts.notes()[0], name
    assert passed(zoo["gemma"], attention="sdpa").facts.attention == "sdpa"


def test_eager_attention_that_counts_the_bias_of_positions_twice_gives_way_to_sdpa(zoo):
    """A defect of the library: once its two functions agree, the detour in `loading.runnable` can go."""
    folder = zoo[OWN_EAGER_IS_WRONG]
    (real, eager), (_, sdpa) = (library(folder, attention) for attention in ("eager", "sdpa"))
    assert (eager.last_hidden_state - sdpa.last_hidden_state)[real].abs().max() > 1e-3
    recorder = passed(folder)
    assert recorder.facts.attention == "sdpa" and "twice" in recorder.facts.notes()[0]
    torch.testing.assert_close(recorder.ends[1], sdpa.last_hidden_state[real], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "gpt2", "mixtral"])
def test_a_twin_in_the_model_of_another_has_the_weights_that_building_it_gives(zoo, name: str):
    checkpoint = open_checkpoint(str(zoo[name]))
    options = dict(dtype="float32", device="cpu", attention="eager", trust_remote_code=False)
    one, other = (SHUFFLED.apply(checkpoint, seed) for seed in (0, 1))
    loading._LAST.clear()
    built = {key: value.clone() for key, value in load(other, **options).state_dict().items()}
    loading._LAST.clear()
    first = load(one, **options)
    again = load(other, **options)
    assert (again is first) == (name != "mixtral")  # whose experts the library fuses
    for key, value in again.state_dict().items():
        assert torch.equal(value, built[key]), key
    assert load(checkpoint, **options) is not first  # the model itself is always built

"""Heads that give the first token much of their attention, as published and without the query that has no choice."""

import numpy as np
import pytest
import torch
import transformers

from analyses.attention_stats import sinks
from analyses.attention_stats.attention_probe import early_queries, head_means
from analyses.attention_stats.means import EARLY
from tests.attention_stats.test_attention_stats import causal, everything_real, measured, with_logits
from tests.tiny import byte_tokenizer, tiny_checkpoint

HARMONIC = sum(1 / n for n in range(1, EARLY + 1))


class Layer:
    """What the metrics look at in a layer's record."""

    def __init__(self, *shares: float):
        self.sink_share_early_per_head = shares


def test_uniform_attention_gives_key_0_seven_hundredths_over_64_tokens():
    tokens = EARLY + 6
    means = head_means(with_logits(torch.zeros(2, tokens, tokens), causal(tokens)), everything_real(tokens))
    assert means.sink_share_early.tolist() == pytest.approx([HARMONIC / EARLY] * 2, abs=1e-14)
    assert HARMONIC / EARLY == pytest.approx(0.0741, abs=5e-5)  # as SPEC and the paper's baseline have it
    found = sinks.metrics([Layer(*means.sink_share_early.tolist())] * 4, prompts=1, seed=0)
    assert found["sink_heads"].value == found["sink_heads_without_first"].value == 0


def test_a_planted_sink_head_is_one_and_its_neighbour_is_not():
    """Logits of 6 on key 0: the last of 64 queries still gives it e⁶/(e⁶ + 63)."""
    logits = torch.zeros(2, EARLY, EARLY)
    logits[0, :, 0] = 6.0
    means = head_means(with_logits(logits, causal(EARLY)), everything_real(EARLY))
    expected = np.mean([np.exp(6) / (np.exp(6) + n) for n in range(EARLY)])
    assert float(means.sink_share_early[0]) == pytest.approx(expected, rel=1e-6)  # float32 logits
    found = sinks.metrics([Layer(*means.sink_share_early.tolist())] * 5, prompts=3, seed=0)
    assert found["sink_heads"].value == 0.5 and found["sink_heads"].n == {"layers": 5, "heads": 10, "prompts": 3}


def test_only_prompts_of_64_tokens_count_and_only_their_first_64_queries():
    real = torch.arange(80) < torch.tensor([[80], [63], [64]])
    early = early_queries(real)
    assert len(early) == 80 + 63 + 64 and int(early.sum()) == 2 * EARLY
    assert early[:64].all() and not early[64 : 80 + 63].any() and early[80 + 63 :].all()


def test_a_text_of_short_prompts_has_no_such_number_and_says_so():
    means = head_means(with_logits(torch.zeros(1, 9, 9), causal(9)), everything_real(9))
    assert means.sink_share_early.isnan().all()
    found = sinks.metrics([Layer(None)] * 3, prompts=0, seed=0)
    assert found["sink_heads"].value is None and "64 tokens" in found["sink_heads"].reason


def test_the_first_query_is_taken_off_by_what_it_must_give():
    found = sinks.metrics([Layer((1 + 0.3 * 62.9) / 64, 0.31)] * 3, prompts=1, seed=0)
    assert found["sink_heads"].value == 1.0  # 0.310 and 0.31, of which 1/64 is the first query's
    assert found["sink_heads_without_first"].value == 0.0


FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox", "gemma2")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_share_of_sink_heads_is_that_of_the_models_own_attentions(name, tmp_path):
    text = ("The quay was empty when the ferry came in, an hour late and without its lights. " * 2)[:100]
    folder = tiny_checkpoint(tmp_path / name, name, layers=3)
    record = measured(folder, text, text[:40])  # a byte is a token; the second is too short to count
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
        attentions = torch.stack(model(ids, output_attentions=True).attentions)[:, 0].double()  # (layer, head, …)
    expected = attentions[:, :, :EARLY, 0].mean(-1)
    found = torch.tensor([layer.sink_share_early_per_head for layer in record.dynamic], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # float32 probabilities
    assert record.metrics["sink_heads"].value == float((expected > 0.3).double().mean())
    assert record.metrics["sink_heads"].n["prompts"] == 1

"""Groups of prompts: how they are cut, and how often intervals that leave each out once cover."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analyses.numerics.intervals import jackknife_error
from analyses.numerics.prompt_groups import GROUPS, groups


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=80).filter(any))
def test_groups_are_contiguous_and_together_all_tokens(lengths: list[int]):
    found = groups(lengths)
    edges = [0, *(part.stop for part in found.slices)]
    assert [part.start for part in found.slices] == edges[:-1] and edges[-1] == sum(lengths)
    assert all(count > 0 for count in found.counts)
    assert len(found.slices) == min(GROUPS, sum(lengths))
    if found.whole_prompts:
        assert set(edges) <= set(np.cumsum([0, *lengths]).tolist())
    assert found.whole_prompts == (sum(length > 0 for length in lengths) >= GROUPS)


def test_groups_of_the_built_in_text_are_nearly_equal():
    from analyses.forward.calibration import load_calibration

    counts = groups([len(text) for text in load_calibration().texts]).counts
    assert len(counts) == GROUPS and max(counts) / min(counts) < 1.6  # four or five of 46 similar prompts each


def test_prompts_that_differ_as_wholes_are_covered_as_promised_and_tokens_alone_would_not_be():
    """46 prompts of 55 tokens that share a prompt's own mean: 90 % intervals from ten groups, 400 texts."""
    rng = np.random.default_rng(1)
    covered = {"groups": 0, "tokens": 0}
    for _ in range(400):
        text = (rng.normal(size=(46, 1)) + rng.normal(size=(46, 55))).ravel()
        parts = groups([55] * 46).slices
        total, n = text.sum(), len(text)
        left_out = np.array([(total - text[p].sum()) / (n - p.stop + p.start) for p in parts])
        half = 1.833 * jackknife_error(left_out)
        covered["groups"] += abs(text.mean()) <= half
        covered["tokens"] += abs(text.mean()) <= 1.645 * text.std() / math.sqrt(n)
    assert 0.85 <= covered["groups"] / 400 <= 0.95  # Student's with 9 degrees of freedom: 0.90, ± 0.015
    assert covered["tokens"] / 400 < 0.4

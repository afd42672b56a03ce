"""Groups of prompts and the delete-group jackknife: closed forms, and how often its intervals cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.numerics.jackknife import GROUPS, groups, joined, standard_error


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


def test_of_a_mean_it_is_the_textbooks_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    left_out = (values.sum() - values) / 49
    assert standard_error(left_out) == pytest.approx(values.std(ddof=1) / math.sqrt(50), rel=1e-12)


def test_what_cannot_be_said_is_none():
    assert standard_error(np.array([1.0])) is None
    assert standard_error(np.array([1.0, np.nan, 2.0])) is None
    assert joined(1.0, None, 0.1) is None and joined(1.0, (0.0, 2.0), None) == (0.0, 2.0)


def test_two_errors_add_in_quadrature():
    low, high = joined(0.0, (-3.0, 6.0), 4 / 1.6448536269514722)
    assert (low, high) == (pytest.approx(-5.0, rel=1e-12), pytest.approx(math.hypot(6, 4), rel=1e-12))
    assert joined(0.0, (-3.0, 6.0), 1.0, least=-2.5)[0] == -2.5


def test_prompts_that_differ_as_wholes_are_covered_as_promised_and_tokens_alone_would_not_be():
    """46 prompts of 55 tokens that share a prompt's own mean: 90 % intervals from ten groups, 400 texts."""
    rng = np.random.default_rng(1)
    covered = {"groups": 0, "tokens": 0}
    for _ in range(400):
        text = (rng.normal(size=(46, 1)) + rng.normal(size=(46, 55))).ravel()
        parts = groups([55] * 46).slices
        total, n = text.sum(), len(text)
        left_out = np.array([(total - text[p].sum()) / (n - p.stop + p.start) for p in parts])
        half = 1.645 * standard_error(left_out)
        covered["groups"] += abs(text.mean()) <= half
        covered["tokens"] += abs(text.mean()) <= 1.645 * text.std() / math.sqrt(n)
    # Student's with 9 degrees of freedom would ask for 1.83 instead of 1.645: 0.866 is expected, ± 0.017.
    assert 0.81 <= covered["groups"] / 400 <= 0.92
    assert covered["tokens"] / 400 < 0.4

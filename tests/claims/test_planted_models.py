"""Every row about the model on planted models: its word is the planted truth, in any coordinates."""

from functools import cache

import pytest

from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.maps.catalogue import SCRAMBLE
from tests.claims.planted import BASES, MODELS, measured, text_of, words
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    @cache
    def made(name: str) -> Checkpoint:
        return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp(name), "llama", **BASES[name])))

    return made


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_truth_is_told_and_no_change_of_coordinates_hides_it(base, name):
    planted = MODELS[name]
    checkpoint, text = planted.on(base(planted.base)), text_of(planted.base)
    assert words(measured(checkpoint, text, planted.words), planted.words) == planted.words
    scrambled = SCRAMBLE.apply(checkpoint, seed=1)
    assert words(measured(scrambled, text, planted.words), planted.words) == planted.words

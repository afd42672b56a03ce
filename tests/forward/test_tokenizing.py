"""Tokenizers that run away, break off, or make a text many times as long; texts that are far too large."""

import json
import time
from pathlib import Path

import pytest

from analyses.errors import InputError
from analyses.forward import tokenizing, tokens
from analyses.forward.calibration import Calibration, load_calibration
from analyses.forward.tokens import sequences
from analyses.run.plan import plan
from analyses.weights.checkpoint import open_checkpoint
from checks.twins.twins import SHUFFLED
from tests.tiny import tiny_checkpoint

RUNAWAY = "(a+a+)+b"  # tries every way to cut a row of a's, twice as many with each a more


class Panic(BaseException):
    """As a library in another language raises it: none of Exception."""


def text(words: str) -> Calibration:
    return Calibration(name="text", texts=(words,), sha256="0" * 64, stream=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tokenizing"), "llama")


@pytest.fixture
def edited(model, tmp_path):
    """The model with some entries of its tokenizer.json changed."""

    def edit(**changes) -> Path:
        for path in model.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        tree = json.loads((model / "tokenizer.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps(tree | changes))
        return tmp_path

    return edit


def refused(folder: Path, words: str = "a text") -> str:
    with pytest.raises(InputError) as caught:
        sequences(open_checkpoint(str(folder)), text(words), False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def splitting(pattern: str) -> dict:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": split}


def test_a_pattern_that_runs_away_is_one_line_after_the_time_that_it_has(edited, monkeypatch):
    folder = edited(**splitting(RUNAWAY))
    tokens.load_tokenizer(open_checkpoint(str(folder)), False)  # the library is imported, which takes its time
    monkeypatch.setattr(tokenizing, "SECONDS", 0.2)
    assert "reads a text for more than 0 s; a pattern of it may run away" in refused(folder, ("a" * 18 + " ") * 100)


def test_a_pattern_that_breaks_off_is_one_line_and_nothing_beside_it(edited, capfd):
    assert "breaks off while it reads a text (PanicException: " in refused(edited(**splitting(RUNAWAY)), "a" * 40)
    assert "panicked" not in capfd.readouterr().err


def test_a_call_that_takes_too_long_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "SECONDS", 0.05)
    with pytest.raises(InputError, match="the tokenizer reads a text for more than 0 s; .*token ids"):
        tokenizing.limited(tmp_path, "reads a text", lambda: time.sleep(0.5))
    monkeypatch.setattr(tokenizing, "PER_MEGABYTE", 30.0)
    assert tokenizing.limited(tmp_path, "reads a text", lambda: time.sleep(0.2), characters=1_000_000) is None


@pytest.mark.parametrize("verb", ["measured", "planned"])
def test_a_panic_is_one_line(model, monkeypatch, verb):
    import transformers

    def panics(*_, **__):
        raise Panic("called `Option::unwrap()`\non a `None` value")

    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "__call__", panics)
    if verb == "planned":
        assert any("Panic: called" in why for why in plan(str(model)).skipped.values())
    else:
        assert "breaks off while it reads a text (Panic: called `Option::unwrap()`)" in refused(model)


def test_other_failures_keep_their_own_words(tmp_path):
    with pytest.raises(KeyError, match="its own"):
        tokenizing.limited(tmp_path, "is loaded", lambda: {}["its own"])


DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
LONG = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 100}


@pytest.mark.parametrize("rules", [
    {"normalizer": {"type": "Sequence", "normalizers": [DOUBLED] * 30}},
    {"normalizer": LONG},
    {"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 100,
                        "pair": [], "special_tokens": {}}},
])  # fmt: skip
def test_rules_that_make_a_text_many_times_as_long_are_refused_unread(edited, rules):
    began = time.monotonic()
    assert "times as long" in refused(edited(**rules), "a" * 100)
    assert time.monotonic() - began < 10


def test_rules_of_tokenizers_in_use_are_read(edited):
    usual = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
             {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}, {"type": "NFKC"}]  # fmt: skip
    folder = edited(normalizer={"type": "Sequence", "normalizers": usual})
    assert sequences(open_checkpoint(str(folder)), text("a text"), False).ids


def test_a_tokenizer_of_more_bytes_than_any_has_is_refused_unread(edited, monkeypatch):
    monkeypatch.setattr(tokenizing, "LARGEST", 1_000)
    assert "no tokenizer has more" in refused(edited())


@pytest.mark.parametrize("files", [1, 3])
def test_a_text_far_larger_than_any_claim_needs_is_one_line(tmp_path, files):
    for number in range(files):
        (tmp_path / f"{number}.txt").write_bytes(b"words of a text " * (21_000_000 // 16 // files + 1))
    given = tmp_path if files > 1 else tmp_path / "0.txt"
    with pytest.raises(InputError, match=r"21 MB of text.* expected at most 20 MB: give a part of it"):
        load_calibration(given)


def test_a_model_reads_a_text_anew_and_its_twins_are_given_what_it_read(model, monkeypatch):
    loaded, original = [], tokens.load_tokenizer
    monkeypatch.setattr(tokens, "load_tokenizer", lambda *given: loaded.append(1) or original(*given))
    checkpoint, words = open_checkpoint(str(model)), text("some words")
    alone = sequences(SHUFFLED.apply(checkpoint, 0), text("some words"), False)  # a twin by itself reads, too
    read = sequences(checkpoint, words, False)
    assert len(loaded) == 2 and alone == read == sequences(checkpoint, words, False)
    assert len(loaded) == 3
    for seed in range(2):
        assert sequences(SHUFFLED.apply(checkpoint, seed), words, False) == read
    assert len(loaded) == 3
    assert sequences(SHUFFLED.apply(checkpoint, 0), text("others"), False) != read

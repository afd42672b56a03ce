"""A text is read until there is enough of it, and what is not in a model's language decides nothing."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from analyses import records, registry
from analyses.errors import InputError
from analyses.forward import language as language_of
from analyses.forward.calibration import (
    DOCUMENTS,
    PER_DIMENSION,
    SHORT,
    Calibration,
    load_calibration,
    tokens_for,
)
from analyses.forward.instrumented import run
from analyses.forward.probe import NoTokenizer
from analyses.forward.tokens import sequences
from analyses.weights.checkpoint import open_checkpoint
from checks import cli
from checks.claims import CLAIMS
from checks.claims.gate import evaluate
from tests.claims.test_gate import inside, records_with
from tests.tiny import TINY, byte_tokenizer, tiny_checkpoint

TEXT = Calibration(name="test", texts=("Down to the sea in ships.", "All hands on deck, she cried."), sha256="0" * 64,
                   stream=False)  # fmt: skip


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("language") / "tiny", layers=4)


# --- the documents -----------------------------------------------------------------------------------


def test_the_documents_are_long_enough_for_the_widest_claim_and_none_is_longer_than_a_model_reads():
    """Pieces of the pattern that byte-pair tokenizers split a text by: each is at least one token."""
    pieces = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?[^\s\w]+|\s+(?!\S)|\s+")
    documents = load_calibration(tokens=1).texts
    lengths = [len(pieces.findall(text)) for text in documents]
    assert sum(lengths) >= 16_000
    # A vocabulary of 30,000 pieces or more has at most twice as many tokens as such pieces on English and code.
    assert max(lengths) <= 512 and min(lengths) >= 200
    assert len(set(documents)) == len(documents) >= 48
    kinds = [each["kind"] for each in json.loads(DOCUMENTS.read_text())["documents"]]
    assert len(set(kinds)) >= 8 and len(set(kinds[:8])) >= 6  # also the first few are a mixture


def test_no_document_shares_a_sentence_with_a_prompt_or_with_another_document():
    texts = [*load_calibration().texts, *load_calibration(tokens=1).texts]
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line.strip()) > 40]
    assert len(lines) == len(set(lines))


def test_the_least_number_of_tokens_is_the_claims_own():
    asked = {gate.minimum["tokens_per_dimension"] for gate in CLAIMS if "tokens_per_dimension" in gate.minimum}
    assert asked and max(asked) <= PER_DIMENSION


# --- how much is read --------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "tokens"), [(128, 0), (600, 0), (640, 1280), (1024, 2048), (8192, 16384)])
def test_narrow_models_read_the_prompts_and_wide_ones_as_many_documents_as_their_claims_need(hidden, tokens):
    assert tokens_for(hidden, own=False) == tokens
    assert tokens_for(hidden, own=True) == max(SHORT, PER_DIMENSION * hidden)


def test_whole_documents_are_read_until_there_are_enough_tokens(tiny):
    checkpoint = open_checkpoint(str(tiny))
    documents = load_calibration(tokens=3000)
    read = sequences(checkpoint, documents, False)
    counted = [len(ids) - 1 for ids in read.ids]
    assert sum(counted) >= 3000 > sum(counted[:-1])
    assert [len(ids) for ids in read.ids] == [min(2048, len(t.encode())) for t in documents.texts[: len(read.ids)]]


def test_a_text_of_ones_own_is_cut_into_sequences_until_there_are_enough(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 1000)  # one token a byte
    (tmp_path / "b.txt").write_text("xyz " * 1000)
    checkpoint = open_checkpoint(str(tiny))

    def lengths(*paths: Path, tokens: int) -> tuple[list[int], int]:
        read = sequences(checkpoint, load_calibration(paths, tokens=tokens), False)
        return [len(ids) for ids in read.ids], read.left_out

    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    assert lengths(a, tokens=0) == ([2048], 1952)
    assert lengths(a, tokens=2047) == ([2048], 1952)
    assert lengths(a, tokens=2048) == ([2048, 1952], 0)  # what was 1.999 tokens a dimension of 1,024
    assert lengths(a, b, tokens=5000) == ([2048, 1952, 2048], 1952)
    assert lengths(a, b, tokens=0) == ([2048, 2048], 3904)
    assert lengths(tmp_path, tokens=0) == lengths(a, b, tokens=0)
    one, both = load_calibration(a), load_calibration([a, b])
    assert both.name == "a.txt and 1 more" and both.sha256 != one.sha256
    assert load_calibration([b, a]).sha256 != both.sha256
    assert load_calibration(a, tokens=5).digest != one.digest == one.sha256


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.ids.jsonl", "[1, 2]\n[3]\n", r"line 2: expected a list of two or more token ids"),
        ("x.ids.jsonl", "[1, -2]\n", "line 1: expected"),
        ("x.ids.jsonl", "[1, true]\n", "line 1: expected"),
        ("x.ids.jsonl", "words\n", "line 1: expected"),
        ("x.ids.jsonl", "\n", "holds no token ids"),
    ],
)
def test_a_file_of_ids_that_is_none_is_one_line(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=complaint):
        load_calibration(tmp_path / name)


def test_texts_and_ids_are_not_mixed_and_a_folder_without_texts_is_none(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.ids.jsonl").write_text("[1, 2]\n")
    with pytest.raises(InputError, match="are mixed"):
        load_calibration(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a folder without texts"):
        load_calibration(tmp_path / "empty")


def test_without_a_tokenizer_ids_are_read_as_its_text_would_be(tiny, tmp_path):
    mute = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    for path in mute.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(NoTokenizer, match="token ids can"):
        sequences(open_checkpoint(str(mute)), TEXT, False)
    file = tmp_path / "t.ids.jsonl"
    file.write_text("".join(json.dumps(byte_tokenizer()(text)["input_ids"]) + "\n" for text in TEXT.texts))
    ids = load_calibration(file)
    whole = sequences(open_checkpoint(str(tiny)), TEXT, False)
    assert sequences(open_checkpoint(str(mute)), ids, False).ids == whole.ids
    only = ("--only", "attention_stats", "--device", "cpu", "--quiet", "--out", tmp_path / "out")
    assert fathom("measure", mute, "--calibration", file, *only) == 0
    assert records.read_record(tmp_path / "out" / "tiny" / "attention_stats.json")["dynamic"]
    file.write_text("[1, 999]\n")
    assert fathom("measure", mute, "--calibration", file, *only) == 2


def test_the_command_line_reads_as_many_tokens_as_it_is_told(tiny, tmp_path, capsys):
    only = ("--only", "attention_stats", "--device", "cpu", "--quiet", "--out", tmp_path)
    assert fathom("measure", tiny, "--tokens", "2500", *only) == 0
    manifest = records.read_json(tmp_path / "tiny" / "manifest.json")
    assert manifest["forward"]["calibration"] == manifest["calibration"]["name"] == "fathom-documents 1"
    assert manifest["forward"]["tokens"] - manifest["forward"]["sequences"] >= 2500
    assert manifest["settings"]["tokens"] == 2500 and "--tokens 2500" in manifest["command"]
    assert fathom("measure", tiny, "--tokens", "auto", *only) == 0
    assert records.read_json(tmp_path / "tiny" / "manifest.json")["calibration"]["name"] == "fathom-calibration 1"
    with pytest.raises(SystemExit):
        fathom("measure", tiny, "--tokens", "many")
    assert "expected auto, or a number" in capsys.readouterr().err


# --- the model's language ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TINY if name not in ("bert", "roberta")])
def test_the_loss_is_that_of_the_class(name, tmp_path):
    """The library's own logits of every text, in float32: sums of 257 exponentials err some 1e-6."""
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, name)))
    settings = {"dtype": torch.float32, "attn_implementation": "eager"}  # which caps logits in every version
    if checkpoint.config.get("alibi"):
        settings["attn_implementation"] = "sdpa"  # where eager adds the bias of positions twice
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, **settings).eval()
    lost, count = 0.0, 0
    for text in TEXT.texts:
        ids = byte_tokenizer()(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].double()
        lost += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(ids[0]) - 1
    language = run(checkpoint, TEXT, []).language
    assert language["loss"] == pytest.approx(lost / count, rel=1e-4)
    assert language["chance"] == pytest.approx(math.log(257))


def test_a_small_model_is_asked_for_every_token_and_a_large_head_for_some(tmp_path, monkeypatch):
    """Some are evenly spread, so that their mean is that of all within a few of its standard errors."""
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path)))
    text = dataclasses.replace(TEXT, texts=tuple(f"{number} bottles of beer on the wall. " * 9 for number in range(9)))
    counts = []
    logaddexp = torch.logaddexp
    monkeypatch.setattr(torch, "logaddexp", lambda a, b: counts.append(len(b)) or logaddexp(a, b))
    whole = run(checkpoint, text, []).language["loss"]
    monkeypatch.setattr(language_of, "PRODUCTS", 1)
    some = run(checkpoint, text, []).language["loss"]
    assert counts == [sum(len(one.encode()) - 1 for one in text.texts), language_of.TOKENS]
    assert some == pytest.approx(whole, rel=0.05)  # −ln p of a random model is near ln V everywhere


def test_an_encoder_has_no_loss_and_a_byte_tokenizer_no_unknown_token(tmp_path):
    assert run(open_checkpoint(str(tiny_checkpoint(tmp_path, "bert"))), TEXT, []).language == {}


def test_unknown_tokens_are_counted(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    backend = Tokenizer(models.WordLevel(vocab={"[UNK]": 0, "the": 1, "sea": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(folder)
    read = sequences(open_checkpoint(str(folder)), TEXT, False)
    assert read.unknown == pytest.approx(1 - 2 / 15)  # "the" and "sea" of 7 and 8 words and marks
    command = ("run", folder, "--out", tmp_path / "out", "--quiet", "--device", "cpu", "--only", "delta_svd")
    assert fathom(*command) == 0
    judged = records.read_json(tmp_path / "out" / "tiny" / "gates.json")
    told = {claim["id"]: (claim["status"], claim["verdict_reason"]) for claim in judged["claims"]}
    assert not any(status in ("pass", "fail") for id, (status, _) in told.items() if id.startswith(("DS", "AN")))
    assert {o["status"] for o in judged["integrity"] if o["analysis"] == "delta_svd"} == {"pass"}


FOREIGN = {"loss": 5.0, "chance": 8.0}


@pytest.mark.parametrize("gate", [gate for gate in CLAIMS if gate.row == "model"], ids=lambda gate: gate.id)
def test_a_foreign_text_decides_no_claim_that_reads_it_and_leaves_those_on_weights(gate):
    """SF1 stands in a record that others of read the text, and is about weights alone."""
    found = records_with(gate, lambda condition: inside(condition, 1e-14))
    assert evaluate(gate, found).status == "pass"
    for language, status in (({"loss": 3.9, "chance": 8.0}, "pass"), (FOREIGN, "inconclusive")):
        text = {"attention_stats": {"calibration": {"language": language}, "metrics": {}, "identities": {}}}
        outcome = evaluate(gate, text | {k: text.get(k, {}) | v for k, v in found.items()})
        weights = gate.id == "SF1" or not any(registry.reads_text(name) for name in gate.reads)
        assert outcome.status == ("pass" if weights else status)
        if outcome.status == "inconclusive":
            assert outcome.reason.endswith("its loss is 5 nats a token, where knowing nothing gives 8")


# --- messages of the library that point elsewhere ------------------------------------------------------


def test_a_size_that_the_class_does_not_have_is_named_with_both_sizes(tmp_path):
    """The embedding is no part of a layer, so only the class looks at its shape."""
    folder = tiny_checkpoint(tmp_path / "tiny")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 300}))
    with pytest.raises(InputError, match=r"embed_tokens.weight has shape \[257, 32\], and .* takes \[300, 32\]"):
        run(open_checkpoint(str(folder)), TEXT, [])


@pytest.mark.parametrize("packages", [("sentencepiece", "protobuf"), ("protobuf",)])
def test_a_tokenizer_of_sentencepiece_names_the_packages_that_are_missing(tmp_path, monkeypatch, packages):
    from analyses.forward import tokens

    folder = tiny_checkpoint(tmp_path / "tiny", "llama", tokenizer=False)
    (folder / "tokenizer.model").write_bytes(b"\x0a\x00")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    missing = {tokens.NEEDED_BY_PIECES[name] for name in packages}
    monkeypatch.setattr(tokens.importlib.util, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(InputError, match=f"read by SentencePiece; pip install {' '.join(packages)}"):
        tokens.load_tokenizer(open_checkpoint(str(folder)), False)


def test_a_tokenizer_of_the_models_own_code_names_the_option_and_a_pointer_its_step(tmp_path):
    from analyses.forward import tokens

    folder = tiny_checkpoint(tmp_path / "tiny", tokenizer=False)
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "tokenization_own.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(InputError, match="runs only with --trust-remote-code"):
        tokens.load_tokenizer(open_checkpoint(str(folder)), False)
    (folder / "vocab.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match=r"vocab.json: is a pointer of git-lfs, not the file: run `git lfs pull`"):
        tokens.load_tokenizer(open_checkpoint(str(folder)), False)


def test_a_package_whose_parent_is_missing_counts_as_missing(monkeypatch):
    """google.protobuf where nothing of `google` is there: asking for it raises instead of answering."""
    from analyses.forward import tokens

    assert tokens._installed("json.decoder") and not tokens._installed("no_such_package_here.below")

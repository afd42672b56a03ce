"""The reference model is read on Python, the language it was trained on, unless told otherwise."""

import transformers

from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from checks.reference import REFERENCE, TEXT, read_in_its_language, text_of
from checks.verify.remeasure import settings_of


def test_the_reference_model_alone_is_read_on_its_own_text_and_on_another_where_one_is_given(tmp_path):
    assert read_in_its_language(Settings(tokens=None), str(REFERENCE)).calibration == TEXT
    assert read_in_its_language(Settings(tokens=None), str(tmp_path)).calibration is None
    given = Settings(calibration=(tmp_path,), tokens=None)
    assert read_in_its_language(given, str(REFERENCE)) == given
    assert read_in_its_language(Settings(tokens=0), str(REFERENCE)).calibration is None


def test_the_text_is_found_again_by_its_digest_and_no_other_is():
    text = load_calibration(TEXT)
    assert text_of(text.sha256, 0) == TEXT and text_of(load_calibration().sha256, 0) is None
    settings = {"device": "cpu", "dtype": "float32", "attention": "eager", "seed": 0}
    manifest = {"settings": settings, "calibration": {"sha256": text.sha256}}
    assert settings_of(manifest, ["delta_svd"], None).calibration == TEXT


def test_the_text_is_24_whole_functions_in_ascii_of_90_to_130_tokens():
    text = load_calibration(TEXT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(REFERENCE)
    lengths = [len(tokenizer(one).input_ids) for one in text.texts]
    assert len(lengths) == 24 and min(lengths) >= 90 and max(lengths) <= 130
    assert all(one.isascii() and compile(one, "function", "exec") for one in text.texts)
    assert text.name == "python-text, 24 files"

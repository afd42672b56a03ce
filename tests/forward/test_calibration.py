"""The calibration text: long enough, versioned by its hash, and a file read as one stream."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from analyses.errors import InputError
from analyses.forward.calibration import BUILT_IN, load_calibration


def test_the_built_in_text_is_a_few_dozen_distinct_short_prompts():
    calibration = load_calibration()
    assert 36 <= len(calibration.texts) <= 48
    assert not calibration.stream
    assert max(Counter(calibration.texts).values()) == 1
    assert all(text.strip() and len(text) <= 200 for text in calibration.texts)


def test_the_built_in_text_is_700_tokens_long_at_five_characters_a_token():
    # Byte-pair vocabularies of 30,000 to 250,000 pieces need 3 to 4.8 characters a token on such text.
    assert sum(map(len, load_calibration().texts)) / 5 >= 700


def test_the_hash_is_that_of_the_file():
    assert load_calibration().sha256 == hashlib.sha256(BUILT_IN.read_bytes()).hexdigest()


def test_a_file_is_one_stream(tmp_path: Path):
    (tmp_path / "text.txt").write_text("Été.\n\nTwo paragraphs.", encoding="utf-8")
    calibration = load_calibration(tmp_path / "text.txt")
    assert calibration.texts == ("Été.\n\nTwo paragraphs.",)
    assert calibration.stream and calibration.name == "text.txt"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b" \n\t", "is empty"), (b"", "is empty"), (b"abc\xff\xfe", r"not UTF-8 \(byte 3\)"), (None, "cannot be read")],
)
def test_a_file_without_text_is_rejected_in_one_line(tmp_path: Path, content: bytes | None, complaint: str):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        load_calibration(path)
    assert "\n" not in str(caught.value)

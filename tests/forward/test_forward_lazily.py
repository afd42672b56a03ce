"""Weight analyses read config.json and the weights themselves: no model library is imported for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from analyses import registry
from tests.tiny import tiny_checkpoint

MEASURE = """
import sys
from checks.cli import main

code = main(["measure", sys.argv[1], "--out", sys.argv[2], "--only", sys.argv[3]])
assert "transformers" not in sys.modules, "transformers was imported"
raise SystemExit(code)
"""


@pytest.mark.parametrize(
    ("only", "tokenizer"),
    [(("null_residual", "head_grams"), True), (registry.NAMES, False)],
    ids=["weights", "no tokenizer"],
)
def test_weight_analyses_never_import_transformers(tmp_path: Path, only: tuple[str, ...], tokenizer: bool):
    folder = tiny_checkpoint(tmp_path / "model", "qwen3", tokenizer=tokenizer)
    command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "out"), ",".join(only)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    records = {name: json.loads((tmp_path / "out" / "model" / f"{name}.json").read_text()) for name in only}
    assert len(records["head_grams"]["singvals"]) == 3
    if not tokenizer:  # what needs no text is there, what does says why not
        assert records["attention_stats"]["static"]
        assert "no tokenizer" in records["attention_stats"]["absent"]["dynamic"]
        assert records["schedule_fit"]["families"]["input_ln"]["track"]
        assert "no tokenizer" in records["schedule_fit"]["metrics"]["measured_temperature_spearman"]["reason"]
        assert "no tokenizer" in records["delta_svd"]["skipped"]

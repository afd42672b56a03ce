"""Weight analyses read config.json and the weights themselves: no model library is imported for them."""

import json
import subprocess
import sys
from pathlib import Path

from tests.tiny import tiny_checkpoint

WEIGHTS_ONLY = "null_residual,head_grams,schedule_fit"
MEASURE = """
import sys
from checks.cli import main

code = main(["measure", sys.argv[1], "--out", sys.argv[2], "--only", sys.argv[3]])
assert "transformers" not in sys.modules, "transformers was imported"
raise SystemExit(code)
"""


def test_weight_analyses_and_the_weight_part_of_schedule_fit_never_import_transformers(tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "model", "qwen3")
    command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "out"), WEIGHTS_ONLY]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    fit = json.loads((tmp_path / "out" / "model" / "schedule_fit.json").read_text())
    assert fit["families"]["input_ln"]["track"] and not fit["temperature"]["measured"]["track"]
    assert "attention_stats was not measured" in fit["metrics"]["measured_temperature_spearman"]["reason"]

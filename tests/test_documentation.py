"""What the documentation tells a reader to do is done here, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "a-new-analysis.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EDIT = re.compile(r"^In `([\w/.]+)`, after `([^`]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_copied_project_is_described_as_it_is():
    assert len(FILE.findall(GUIDE)) == 5 and len(EDIT.findall(GUIDE)) == GUIDE.count("\nIn `") == 1


def apply(project: Path) -> None:
    for name, text in FILE.findall(GUIDE):
        (project / name).write_text(text, encoding="utf-8")
    for name, anchor, text in EDIT.findall(GUIDE):
        path = project / name
        source = path.read_text(encoding="utf-8")
        assert source.count(anchor) >= 1, f"{name} has no {anchor!r}"
        # On a line of its own after a line that ends so; within the line where the anchor ends with a space.
        added = anchor + text.strip() + " " if anchor.endswith(" ") else anchor + "\n" + text.rstrip("\n")
        path.write_text(source.replace(anchor, added, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "recorded")
    for part in ("analyses", "checks", "templates"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    (folder / "tests").mkdir()
    for name in ("__init__.py", "tiny.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    apply(folder)
    return folder


def run(project: Path, *words: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_the_worked_example_measures_judges_and_shows(project, tmp_path):
    model = tiny_checkpoint(tmp_path / "tiny", layers=4)
    out = tmp_path / "out"
    done = run(project, "-m", "checks.cli", "run", model, "--out", out, "--only", "write_size", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    judged = json.loads((out / "tiny" / "gates.json").read_text())
    claims = {claim["id"]: claim["status"] for claim in judged["claims"]}
    assert claims["WZ1"] in ("pass", "fail", "inconclusive")
    assert {o["id"]: o["status"] for o in judged["integrity"]}["write_size.shares_sum"] == "pass"
    page = (out / "tiny" / "report.html").read_text()
    assert "How large is what a layer writes" in page and "Over 4 layers the writing matrix" in page
    assert done.stdout.count("WZ1") == 1


def test_the_worked_examples_own_test_passes(project):
    done = run(project, "-m", "pytest", "-q", "tests/test_write_size.py", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout


def test_the_list_of_what_a_claim_may_read_is_the_one_that_is_checked():
    from checks.own.metrics_page import page

    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == page(), "python -m checks.own.metrics_page"

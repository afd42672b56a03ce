"""What the documentation tells a reader to do is done here, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

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


# --- the pages as a site: what its builder refuses is seen without it ---------------------------------------------

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def navigation(nav: list) -> list[str]:
    """Files of the site's navigation, in its order."""
    found = []
    for entry in nav:
        ((_, below),) = entry.items()
        found += [below] if isinstance(below, str) else navigation(below)
    return found


def test_every_page_has_one_place_in_the_navigation_and_every_place_its_page():
    nav = navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(nav) == PAGES and nav[0] == "index.md"


def links(text: str) -> list[str]:
    """Targets of links and pictures of a page, those of its code left out."""
    inline = [child for token in MarkdownIt("commonmark").enable("table").parse(text) for child in token.children or ()]
    return [str(c.attrs.get("href") or c.attrs["src"]) for c in inline if c.type in ("link_open", "image")]


def anchors(text: str) -> set[str]:
    """Names of a page's headings as the site gives them."""
    tokens = MarkdownIt("commonmark").parse(text)
    titles = [b.content for a, b in zip(tokens, tokens[1:], strict=False) if a.type == "heading_open"]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", [*(DOCS / n for n in [*PAGES, "llms.txt"]), ROOT / "README.md"], ids=lambda p: p.name)
def test_every_relative_link_of_a_page_leads_to_what_is_there(page):
    for target in links(page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        assert page.parent == ROOT or path.parent == DOCS, f"{page.name}: {target} lies outside the site"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{page.name}: {target}"


def test_the_reader_for_machines_knows_every_page():
    known = set(links((DOCS / "llms.txt").read_text(encoding="utf-8")))
    assert known == set(PAGES)


def test_every_claim_is_in_the_page_of_formulae():
    from checks.claims import CLAIMS

    text = (DOCS / "formulae.md").read_text(encoding="utf-8")
    bare = {re.match(r"[A-Z]+\d+", gate.id)[0] for gate in CLAIMS}
    assert [id for id in sorted(bare) if not re.search(rf"\b{id}\b", text)] == []

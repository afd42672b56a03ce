"""The files beside a page that other programs read: JUnit XML and a summary in Markdown, both views of the gates."""

from collections.abc import Mapping
from typing import Any

from checks.report import words
from checks.report.cases import cases
from checks.report.junit import junit
from checks.report.markdown import summary


def side_files(judged: Mapping[str, Any]) -> dict[str, bytes]:
    """Name → content, from what `gates.json` holds."""
    asked, verdicts = cases(judged), [claim["verdict"] for claim in judged["claims"]]
    answer = f"{words.answer(verdicts)} {words.integrity(judged['integrity'])}"
    return {
        "junit.xml": junit(judged["model"], asked),
        "summary.md": summary("Fathom:", judged["model"], asked, answer).encode(errors="replace"),
    }

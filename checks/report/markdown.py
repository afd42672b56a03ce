"""Summary of a run in GitHub's Markdown, for the step summary of a CI run or a comment.

A model's name and an error's text are written so that no part of them is read as Markdown or HTML.
"""

import re
from collections import Counter
from collections.abc import Sequence

from checks.report.cases import Case

ICON = {"error": "🛑", "fail": "❌", "skip": "⚪", "pass": "✅"}  # worst first; each with a word beside it
WORD = {"error": "error", "fail": "failed", "skip": "skipped", "pass": "passed"}


def summary(title: str, name: str, cases: Sequence[Case], lead: str = "") -> str:
    """Markdown of one run.

    Parameters
    ----------
    title, name : the heading: a phrase of ours, then what was looked at (a model's name, as code).
    lead : one sentence that answers, before the counts.

    Failures and errors stand open; what passed or was skipped is folded away. An order of `cases` is kept.
    """
    counts = Counter(case.status for case in cases)
    tally = ", ".join(f"{ICON[status]} {counts[status]} {WORD[status]}" for status in ICON if counts[status])
    parts = [f"## {escape(title)} {code(name)}", *([escape(lead)] if lead else []), tally or "Nothing was evaluated."]
    if loud := [case for case in cases if case.status in ("error", "fail")]:
        parts.append(_table(loud))
    if quiet := [case for case in cases if case.status not in ("error", "fail")]:
        parts += [f"<details><summary>{len(quiet)} others</summary>", _table(quiet), "</details>"]
    return "\n\n".join(parts) + "\n"


def _table(cases: Sequence[Case]) -> str:
    rows = ["| | question | what was found |", "| --- | --- | --- |"]
    for case in cases:
        word = escape(case.word or WORD[case.status])
        rows.append(f"| {ICON[case.status]} {word} | {escape(case.name)} | {escape(case.message)} |")
    return "\n".join(rows)


def escape(text: str) -> str:
    r"""Text on one line in which nothing is markup, also inside a table.

    >>> escape("median |cos| <b> *x*")
    'median \\|cos\\| &lt;b&gt; \\*x\\*'
    """
    text = _line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*_{}\[\]#|~!$^]", r"\\\g<0>", text)
    # GitHub links bare addresses and mentions people; neither is wanted of a model's name.
    return re.sub(r"://|\bwww\.|@", r"\g<0><!-- -->", text)


def code(text: str) -> str:
    """Text as a code span, fenced by more backticks than it holds; not for tables.

    >>> code("a`b")
    '``a`b``'
    """
    text = _line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _line(text: str) -> str:
    """On one line, and without the half characters that a file's name may hold and UTF-8 cannot write."""
    return " ".join(text.encode(errors="replace").decode().split())

"""All claims of one model on one axis, for the output cell of a notebook."""

from collections.abc import Mapping
from html import escape
from typing import Any

from checks.report import axis, words
from checks.report.rendering import render

HEIGHT = "32em"


def claims_axis(judged: Mapping[str, Any]) -> str:
    """A page within a frame, so that neither its style nor that of the notebook reaches the other.

    Parameters
    ----------
    judged : the content of `gates.json`.
    """
    page = {
        "model": judged["model"],
        "answer": words.answer([claim["verdict"] for claim in judged["claims"]]),
        "lines": [{"lines": axis.lines(judged["claims"], judged["stored"])}],
        "ticks": axis.ticks(),
    }
    frame = f'style="width: 100%; height: {HEIGHT}; border: 0" sandbox'
    return f'<iframe {frame} srcdoc="{escape(render("notebook.html", page))}"></iframe>'

"""Rendering of templates: one Jinja environment for all pages.

Every name passes through Jinja's autoescape, a missing key is an error (StrictUndefined), and the
page's policy lets no request leave it and no script run but the one that ships with it: the files
that this kind of page needs, without comments and spaces.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from checks.figures import export
from checks.figures.numbers import number


def render(template: str, page: Mapping[str, Any]) -> str:
    """A template filled with a summary; raises jinja2.UndefinedError where the summary lacks what it cites."""
    code = script(template)
    # Our own files, never anything from a record.
    return environment().get_template(template).render(page=page, script=Markup(code), policy=_policy(code))


SCRIPTS = {
    "report.html": ("common.js", "figures.js"),
    "notebook.html": (),
    "index.html": ("common.js", "tables.js"),
    "steps.html": ("common.js", "tables.js"),
    "compare.html": ("common.js", "tables.js"),
}
_LITERAL = re.compile(r'("(?:\\.|[^"\\])*"|`[^`]*`)')
_SIGN = re.compile(r"\s*([=+*/<>?:;,(){}\[\]&|!-])\s*")


@functools.cache
def script(template: str) -> str:
    """The script of a page in few bytes: no comments, and no spaces that mean nothing."""
    source = "\n".join(environment().get_template(name).render() for name in SCRIPTS[template])
    lines = (line for line in source.splitlines() if not line.lstrip().startswith("//"))
    parts = _LITERAL.split(" ".join(" ".join(lines).split()))
    return "".join(part if k % 2 else _short(part) for k, part in enumerate(parts)).strip()


def _short(code: str) -> str:
    """Code between literals without spaces, the last semicolon of a block, and brackets about a lone argument."""
    return _ALONE.sub(r"\1=>", _SIGN.sub(r"\1", code)).replace(";}", "}")


_ALONE = re.compile(r"(?<!\w)\((\w+)\)=>")
_SPACE = re.compile(r"\s*([{};,>]|: )\s*")


def compact(sheet: str) -> Markup:
    """A style sheet of ours in few bytes: no comments, and no spaces that mean nothing.

    >>> compact('a :hover, b > i { content: "a: b"; }  /* no */')
    Markup('a :hover,b>i{content:"a: b"}')
    """
    parts = _LITERAL.split(re.sub(r"/\*.*?\*/", "", sheet, flags=re.S))
    kept = (part if k % 2 else _SPACE.sub(lambda m: m[1].strip(), part) for k, part in enumerate(parts))
    return Markup("".join(kept).replace(";}", "}").strip())


def slug(text: str) -> str:
    """A word as part of a class name or an anchor.

    >>> slug("does not hold")
    'does-not-hold'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _policy(script: str) -> str:
    """A content security policy under which no request leaves the page and no script runs but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@functools.cache
def environment() -> jinja2.Environment:
    checks = Path(__file__).parents[1]
    # Installed, the templates are a package below checks; in the source tree they lie beside it.
    folders = [checks / "templates", checks.parent / "templates"]
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder for folder in folders if folder.is_dir()]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"slug": slug, "compact": compact}
    made.filters |= {"number": number, "colour": export.colour, "stroke": export.stroke, "fill": export.fill}
    return made

"""Writes docs/families.md: the table of records, and what becomes of every causal type of the installed library.

`make families`; minutes. A type whose tiny model cannot be built is listed with what the library says.
"""

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from analyses import registry
from analyses.errors import first_line
from analyses.weights import architecture_table
from checks.families.outcomes import Outcome, outcome
from checks.families.tiny import OTHERS, causal_types, save, save_other

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
RECORDS_BEGIN, TYPES_BEGIN = "## What the records say", "## What becomes of every type"
OTHERS_BEGIN = "## What becomes of models that are no causal ones"
HEAD = """# Model families

Made by `make families`. The first table is what the records in `analyses/weights/families_….py` say; the second is measured:
a tiny random model of every causal type of the transformers library is built and measured.
"""
WORDS = {
    "measured": "the analyses ran and every identity holds, also those that compare with the model's own class",
    "in part": "an analysis has no answer, with its reason",
    "broken": "an identity does not hold",
    "refused": "refused in one line",
    "not built": "no tiny model of it could be built, for the reason given by the library",
}


def page(found: dict[str, Outcome], others: dict[str, Outcome], only: Sequence[str]) -> str:
    """docs/families.md, from what became of each causal type, and of each of OTHERS, under these analyses."""
    count = Counter(one.word for one in found.values())
    built = len(found) - count["not built"]
    counts = [f"- {count[word]} {word}: {what}" for word, what in WORDS.items() if count[word]]
    version = f"transformers {transformers.__version__}: {len(found)} causal types, {built} of them built; "
    version += f"{', '.join(only)}."
    parts = [
        HEAD,
        RECORDS_BEGIN,
        "",
        architecture_table.markdown(),
        "",
        TYPES_BEGIN,
        "",
        version,
        "",
        *counts,
        "",
        *_rows(found),
        "",
        OTHERS_BEGIN,
        "",
        "Encoders, each of the two stacks of an encoder-decoder (`--stack`), towers for text and for images.",
        "",
        *_rows(others),
    ]
    return "\n".join(parts) + "\n"


def _rows(found: dict[str, Outcome]) -> list[str]:
    rows = ["| type | outcome | read as | reason |", "| --- | --- | --- | --- |"]
    for name, one in sorted(found.items(), key=lambda item: (list(WORDS).index(item[1].word), item[0])):
        rows.append(f"| `{name}` | {one.word} | {one.family} | {_cell(one.reason)} |")
    return rows


def _cell(text: str) -> str:
    return first_line(text).replace("|", "\\|") if text else ""


def _became(name: str, folder: Path, only: Sequence[str]) -> Outcome:
    stack = OTHERS[name][1] or None if name in OTHERS else None
    try:
        save_other(name, folder) if name in OTHERS else save(name, folder)
    except Exception as error:  # of the library's classes, at sizes that do not fit them
        return Outcome(word="not built", family="", reason=f"{type(error).__name__}: {first_line(error)}"[:160])
    return outcome(folder, only=only, stack=stack)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="only these, and only print")
    parser.add_argument("--only", type=lambda text: text.split(","), default=registry.NAMES, help="analyses")
    arguments = parser.parse_args()
    asked = arguments.types
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as room:
        for name in asked or [*causal_types(), *OTHERS]:
            found[name] = _became(name, Path(room, name), arguments.only)
            print(f"{name}: {found[name].word} {found[name].family} {found[name].reason}"[:200], flush=True)
    if not asked:
        causal = {name: one for name, one in found.items() if name not in OTHERS}
        others = {name: one for name, one in found.items() if name in OTHERS}
        PAGE.write_text(page(causal, others, arguments.only), encoding="utf-8")


if __name__ == "__main__":
    main()

"""JUnit XML, the format in which CI systems read test results; a claim that fails is a failed test there."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import groupby

from checks.report.cases import Case

ELEMENT = {"fail": "failure", "error": "error", "skip": "skipped"}

# XML 1.0 has no way to write these, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(title: str, cases: Sequence[Case]) -> bytes:
    """A `testsuites` document: one `testsuite` for each suite, in the order of `cases`, the same bytes each time.

    Cases of one suite must stand together. There are no times in it, because a gate takes none.
    """
    root = ET.Element("testsuites", name=_legal(title), **_counts(cases))
    for name, members in groupby(cases, key=lambda case: case.suite):
        group = list(members)
        suite = ET.SubElement(root, "testsuite", name=_legal(name), **_counts(group))
        for case in group:
            # Viewers group by the part of the class name before its last dot, so the title comes first, without dots.
            classname = f"{title.replace('.', '_')}.{case.suite}"
            element = ET.SubElement(suite, "testcase", classname=_legal(classname), name=_legal(case.name))
            said = _legal(": ".join(part for part in (case.word, case.message) if part))
            if case.status == "pass":
                if said:
                    ET.SubElement(element, "system-out").text = said
            else:
                kind = case.word or case.status
                ET.SubElement(element, ELEMENT[case.status], type=_legal(kind), message=said).text = said
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    count = {status: sum(case.status == status for case in cases) for status in ELEMENT}
    return {
        "tests": str(len(cases)),
        "failures": str(count["fail"]),
        "errors": str(count["error"]),
        "skipped": str(count["skip"]),
    }


def _legal(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)

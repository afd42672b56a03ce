"""Verification in words: lines for the terminal, cases for JUnit and Markdown."""

from collections.abc import Mapping

from checks.report.cases import Case, Status
from checks.verify.differences import Leaf
from checks.verify.verify import Answer, Verification

OUTCOME: Mapping[str, Status] = {
    "identical": "pass",
    "within tolerance": "pass",
    "drifted": "fail",
    "missing": "fail",
    "not comparable": "skip",
}
WIDTH = max(map(len, OUTCOME))


def lines(verification: Verification) -> list[str]:
    """What the terminal shows: the answer, the analyses, the verdicts that changed, what else must be known."""
    text = [f"{verification.model}: {verification.status}"]
    for answer in verification.analyses:
        text.append(f"  {answer.status:<{WIDTH}}  {answer.analysis}: {message(answer)}")
    text += [f"  verdict changed   {v['id']}: {v['recorded']}, now {v['found']}" for v in verification.verdicts]
    text += [f"  altered           {fault}" for fault in verification.faults]
    text += [f"  ({note})" for note in verification.notes]
    text += [f"  verified          {line}" for line in verification.verified]
    return text + [f"  not verified      {line}" for line in verification.unverified]


def message(answer: Answer) -> str:
    """One analysis in a sentence or two: how many numbers, the worst of them, and what may have moved it."""
    parts = [", ".join(f"{count} {word}" for word, count in answer.counts.items() if count)]
    if answer.worst is not None and answer.worst.status != "identical":
        parts += [f"worst is {_leaf(answer.worst)}", cause(answer)]
    return "; ".join(part for part in (*parts, *answer.notes) if part)


def cause(answer: Answer) -> str:
    """The likely cause, from what differs between the two runs besides their numbers."""
    if answer.environment:
        return f"likely cause: {', '.join(answer.environment)}"
    if answer.status == "within tolerance":
        return "likely cause: rounding by something that is not recorded, such as another build of a library"
    return "likely cause: none recorded; model, settings, code and machine are the same, so the record is not theirs"


def _leaf(leaf: Leaf) -> str:
    if leaf.moved is None:
        return f"{leaf.path}: {leaf.found}, recorded {leaf.recorded}"
    text = f"{leaf.path}: {leaf.found:.6g}, recorded {leaf.recorded:.6g}, moved {leaf.moved:.2g}"
    return f"{text} where {leaf.tolerance:.2g} is allowed ({leaf.source})"


def cases(verification: Verification) -> list[Case]:
    """One case an analysis, one a changed verdict."""
    analyses = [
        Case(
            suite="numbers",
            name=answer.analysis,
            status=OUTCOME[answer.status],
            message=message(answer),
            word=answer.status,
        )
        for answer in verification.analyses
    ]
    changed = [
        Case(
            suite="verdicts",
            name=f"{verdict['id']}: {verdict['claim']}",
            status="fail",
            message=f"{verdict['recorded']}, now {verdict['found']}",
            word="verdict changed",
        )
        for verdict in verification.verdicts
    ]
    altered = [
        Case(suite="what it says", name=fault, status="fail", message="", word="altered")
        for fault in verification.faults
    ]
    return analyses + changed + altered

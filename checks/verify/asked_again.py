"""The claims of a received result asked again: the built-in ones of its version, and those of its author's own."""

from collections.abc import Mapping
from typing import Any

from analyses.errors import InputError
from checks.claims.judge import judge
from checks.claims.sets import LATEST, VERSIONS
from checks.own.gates import gates, with_own
from checks.own.registered import sound, stated


def asked_again(
    judged: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]], controls: Mapping[str, Any]
) -> dict[str, Any]:
    """What the claims that `judged` names answer on these records.

    Raises InputError for a version of the built-in claims that there is not, and for claims of one's own that are none.
    """
    if (version := judged.get("claim_set", LATEST)) not in VERSIONS:
        raise InputError(f"gates.json: claim_set: there is no version {version} of the claims here")
    if not (own := judged.get("own")):
        return judge(found, controls, claim_set=version)
    claims = sound(own, "gates.json: own").claims
    asked = gates(claims, stated(own))
    return judge(with_own(found, claims), controls, own=asked, stated=own, claim_set=version)

"""From records to verdicts and exit codes."""

import pytest

from analyses import records, registry
from analyses.errors import InputError
from checks.claims import CLAIMS, INTEGRITY
from checks.claims.judge import exit_code, judge, read_records
from checks.claims.verdicts import VERDICTS
from tests.claims.test_gate import inside, records_with


def all_records(distance: float) -> dict:
    """Records in which every gate's every metric lies this far inside its limit."""
    found = {name: {"model": "m", "dtype": "float32", "metrics": {}, "identities": {}} for name in registry.NAMES}
    for gate in INTEGRITY + CLAIMS:
        # p-values are far inside, or so many at their limit would be undecided together.
        planted = records_with(gate, lambda c: 1e-4 if c.test and distance > 0 else inside(c, distance))
        for analysis, part in planted.items():
            for section in ("metrics", "identities"):
                for name, metric in part[section].items():
                    known = found[analysis][section].setdefault(name, metric)
                    n = known.get("n", {})  # of claims on one number the largest minimum
                    known["n"] = n | {kind: max(count, n.get(kind, 0)) for kind, count in metric.get("n", {}).items()}
    return found


def test_all_inside_holds_and_exits_with_0():
    judged = judge(all_records(1e-14))
    model = [gate for gate in CLAIMS if gate.row == "model"]
    assert judged["counts"]["claims"] == {"holds": len(model)}
    assert {row["verdict"] for row in judged["stored"]} == {"coordinate-dependent"}
    assert {row["meets"] for row in judged["stored"]} == {"yes"}
    assert judged["counts"]["integrity"] == {"pass": len(INTEGRITY)}
    assert exit_code(judged, strict=True) == 0


def test_a_failed_claim_counts_only_if_strict():
    found = all_records(1e-14)
    gate = CLAIMS[0]
    for name, record in records_with(gate, lambda c: inside(c, -1)).items():
        found[name]["metrics"] |= record["metrics"]
    judged = judge(found)
    assert judged["claims"][0]["verdict"] == "does not hold"
    assert (exit_code(judged, strict=False), exit_code(judged, strict=True)) == (0, 1)


def test_a_broken_identity_exits_with_1_and_an_undecidable_one_too():
    found = all_records(1e-14)
    gate = INTEGRITY[0]
    _, section, name = gate.conditions[0].path.split(".")
    metric = found[gate.analysis][section][name]
    for value in (inside(gate.conditions[0], -1.0), None):
        found[gate.analysis][section][name] = metric | {"value": value, "reason": "not finite", "interval": None}
        assert exit_code(judge(found), strict=False) == 1


def test_a_crashed_analysis_exits_with_2_and_says_so_at_its_claims():
    found = all_records(1e-14) | {"delta_svd": {"model": "m", "error": "out of memory"}}
    judged = judge(found)
    crashed = [claim for claim in judged["claims"] if claim["id"].startswith(("DS", "AN", "NR1"))]
    crashed = [claim for claim in crashed if claim["id"] != "NR1m"]
    assert {claim["verdict"] for claim in crashed} == {"error"}
    assert "out of memory" in crashed[0]["verdict_reason"]
    assert exit_code(judged, strict=False) == 2


def test_nothing_evaluated_exits_with_3():
    skipped = {name: {"model": "m", "skipped": "no tokenizer"} for name in registry.NAMES}
    assert exit_code(judge(skipped), strict=False) == 3


def test_every_verdict_word_is_explained():
    for distance in (1e-14, -1e-3):
        assert {claim["verdict"] for claim in judge(all_records(distance))["claims"]} <= set(VERDICTS)


def test_a_folder_without_records_or_of_another_schema_is_refused(tmp_path):
    with pytest.raises(InputError, match="no records"):
        read_records(tmp_path)
    records.write_json(tmp_path / "delta_svd.json", {"schema_version": 0})
    with pytest.raises(InputError, match="schema version 0"):
        read_records(tmp_path)

"""Versions of the built-in claims: an old result judged as it was."""

import shutil

import pytest

from analyses.errors import InputError
from analyses.records import read_json
from checks.claims import CLAIMS
from checks.claims.gate import STORED
from checks.claims.sets import FIRST, LATEST, gates_of
from checks.cli import main
from checks.verify.compare import compare, read_side


def test_the_latest_set_is_what_is_asked():
    assert gates_of(LATEST) is CLAIMS


def test_the_first_set_asks_the_published_numbers_with_their_published_limits():
    known = {gate.id: gate for gate in CLAIMS}
    for gate in gates_of(1):
        stored = known.get(gate.id + STORED)
        if stored:
            limits = {c.path: (c.comparator, c.threshold) for c in stored.conditions}
            assert {c.path: (c.comparator, c.threshold) for c in gate.conditions} == limits
        assert not any(c.test for c in gate.conditions)
    assert [gate.id for gate in gates_of(1)] == list(FIRST)
    (ds3,) = (gate for gate in gates_of(1) if gate.id == "DS3")
    assert [c.path for c in ds3.conditions] == ["delta_svd.metrics.median_adjacent_abs_cos_centred"]


@pytest.fixture(scope="module")
def by_both(measured_result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "model"
    shutil.copytree(measured_result, folder)
    assert main(["report", str(folder), "--claim-set", "1", "--quiet"]) in (0, 1)
    return measured_result, folder


def test_records_are_judged_by_the_first_set_and_the_page_shows_it(by_both):
    judged = read_json(by_both[1] / "gates.json")
    assert judged["claim_set"] == 1 and judged["stored"] == []
    assert [claim["id"] for claim in judged["claims"]] == list(FIRST)
    assert all(claim["raw"]["verdict"] == claim["verdict"] for claim in judged["claims"])
    latest = {row["id"]: row for row in read_json(by_both[0] / "gates.json")["stored"]}
    for claim in judged["claims"]:
        if claim["id"] + STORED in latest:
            assert claim["findings"][0]["observed"] == latest[claim["id"] + STORED]["findings"][0]["observed"]
    assert FIRST[0] in (by_both[1] / "report.html").read_text()


def test_results_of_two_sets_are_not_compared_and_what_to_do_is_said(by_both):
    with pytest.raises(InputError, match="claim set 2.* by 1; judge both by one"):
        compare(*map(read_side, by_both))

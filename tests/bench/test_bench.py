"""The bench: its table has its rows, its ratios are what they say, and it refuses what does not fit."""

import json
import sys

import pytest

from analyses import head_grams, null_residual
from analyses.errors import InputError
from analyses.weights.checkpoint import open_checkpoint
from checks.bench import checkpoints, published, runner, stages, table, whole_runs
from checks.bench.checkpoints import SIZES, require_space, write

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(TINY, tmp_path_factory.mktemp("bench") / "model")


def stage(**changes) -> dict:
    plain = {"stage": "x", "seconds": 3.0, "ratios": [], "peak_mb": 10.0, "floor": "reading"}
    return plain | {"operations": {}, "facts": {}} | changes


def test_a_ratio_to_bare_calls_is_the_median_over_turns():
    assert table.ratios(stage(ratios=[1.5, 9.0, 1.0]), {}) == {"reading": 1.5}


def test_a_ratio_to_a_rate_is_seconds_over_the_seconds_of_the_operations_at_that_rate():
    found = table.ratios(stage(seconds=3.0, operations={"float64_products": 8e9}), {"float64_products": 4e9})
    assert found == {"reading at the rate of float64 products": 1.5}


def test_a_stage_with_two_floors_has_two_rows_and_one_with_facts_alone_says_them():
    rates = {"float64_products": 1e9, "float32_products": 2e9}
    both = stage(operations={"float64_products": 1e9, "float32_products": 1e9})
    found = table.rows([both, stage(facts={"error": 0.0123})], rates)
    assert [row[2] for row in found] == ["3.00", "6.00", ""]
    assert found[2][3] == "error 0.0123"


def test_every_stage_of_the_table_can_run_and_none_is_left_out(folder):
    assert set(runner.STAGES) == set(stages.STAGES) >= set(runner.GROWING)
    for name in runner.STAGES:
        found = stages.run(name, folder)
        assert found["seconds"] >= 0 and found["peak_mb"] >= 0, name
        assert found["ratios"] or found["operations"] or found["facts"] or "," in name or name == "head_grams", name
        json.dumps(found, allow_nan=False)


def test_the_bench_writes_its_table_with_a_row_for_each_stage_and_each_growth(monkeypatch, tmp_path):
    run = {"run": "x", "processor": 1.0, "script_processor": 2.0, "aim_time": 1, "peak_mb": 1.0, "script_peak_mb": 4.0}
    monkeypatch.setattr(runner, "whole_runs", lambda *of, **how: [run | {"aim_memory": 0.25}])
    monkeypatch.setattr("checks.bench.startup.REPEATS", 1)
    monkeypatch.setattr("checks.bench.ceilings.best.__defaults__", (1,))
    monkeypatch.setattr(runner, "_stage", lambda name, folder, say, *options: stage(stage=name))
    said = []
    text = runner.bench("tiny", tmp_path, say=said.append)
    assert (tmp_path / "bench.md").read_text(encoding="utf-8") == text
    result = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    *own, shown, page = (s["stage"] for s in result["stages"])
    assert own == list(runner.STAGES) and "--help" in shown and "report" in page
    assert all(rate > 0 for rate in result["rates"].values()) and len(result["rates"]) == 5
    assert {(row["layers"], row["hidden"]) for row in result["growth"]} == {(2, 64), (3, 32), (3, 64), (3, 128)}
    assert all(f"| {name} " in text for name in runner.STAGES)
    assert "0.00 GB" in said[0]


def test_a_stage_that_fails_in_its_own_process_says_why(tmp_path):
    with pytest.raises(InputError, match="delta_svd: one layer failed: .*config.json"):
        runner._stage("delta_svd: one layer", tmp_path, print)


def test_a_random_checkpoint_is_one_that_can_be_measured(folder):
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.shape.layers, checkpoint.shape.hidden, checkpoint.shape.kv_heads) == (3, 64, 2)
    entries = sum(checkpoint.weight(f, 0).numel() for f in checkpoint.families if f.endswith("proj"))
    assert TINY.entries == 3 * entries
    assert str(checkpoint.tensor(next(iter(checkpoint.files))).dtype) == "torch.bfloat16"


def test_another_width_keeps_the_heads_and_the_share_of_the_feed_forward():
    assert TINY.scaled(128) == checkpoints.replace(TINY, hidden=128, feed_forward=192)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"1\.6 GB of memory are needed and 0\.1 GB available"):
        require_space(SIZES["4b"], tmp_path, available=10**8)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    with pytest.raises(InputError, match="do not fit into 1.0 GB of free disk"):
        require_space(SIZES["4b"], tmp_path, available=10**12)


# --- whole runs beside the published scripts ---------------------------------------------------------


def test_the_published_scripts_have_the_statistics_that_are_kept_as_published(folder):
    """Each is the library's own class in float32 against weights as stored, which bfloat16 makes the same numbers."""
    checkpoint = open_checkpoint(str(folder))
    script, ours = published.null_residual(folder), null_residual.measure(checkpoint, seed=0, device="cpu")
    for row, pair in zip(script["pairs"], ours.pair_results, strict=True):
        for family, found in row.items():
            for name, value in found.items():
                assert getattr(pair.families[family], name) == pytest.approx(value, abs=1e-12), (family, name)
    for family, track in script["scales"].items():
        assert ours.scales[family] == pytest.approx(track, rel=1e-6)  # kept in float32 there
    script, (ours, _) = published.head_grams(folder), head_grams.measure(checkpoint, seed=0, device="cpu")
    assert script["gram"] == pytest.approx(ours.gram, rel=1e-9, abs=1e-9)
    assert script["fro_sq"] == pytest.approx(ours.fro_sq_published.ravel(), rel=1e-9)


def test_the_memory_of_a_command_is_its_own_and_not_what_the_process_that_started_it_had():
    held = bytearray(b"x") * (400 << 20)
    assert whole_runs._spent((sys.executable, "-c", "pass"))["peak_mb"] < len(held) / 2**20 / 4


def test_whole_runs_are_held_against_their_scripts_with_start_up(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_runs, "AIMS", whole_runs.AIMS[1:2])
    (row,) = whole_runs.whole_runs(folder, tmp_path, say=lambda line: None)
    assert row["processor"] > 0.5 < row["script_processor"]  # both import torch
    ((name, *numbers),) = whole_runs.cells([row])
    assert "--no-matching" in name
    assert float(numbers[2]) == pytest.approx(row["processor"] / row["script_processor"], abs=0.01)
    with pytest.raises(InputError, match="nowhere"):
        whole_runs.whole_runs(tmp_path / "nowhere", tmp_path, say=lambda line: None)

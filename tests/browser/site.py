"""A folder of pages as a user has it, made in a few seconds: every section drawn from real records, every verdict
with its controls, and beside it the models that a page must survive."""

from pathlib import Path

from analyses import records
from checks.claims.judge import checksums, read_records
from checks.claims.verdicts import VERDICTS, WITHIN_ROUNDING, WORTHLESS
from checks.cli import main
from checks.report.index import render_index
from checks.report.page import render_model
from checks.report.rendering import render
from checks.sweep.steps import summarise
from checks.sweep.steps_drawn import Step
from tests.few_draws import few_draws
from tests.page import attention_record, finding, gates, manifest, outcome, stored, write_folder
from tests.tiny import tiny_checkpoint

HOSTILE = '<script>alert("1")</script>&<b>bold</b>' + "/very-long" * 26
ANSWERS = ("informative", *WORTHLESS, "not defined")
MODELS = ("measured", "plain", "hostile", "crashed", "skipped", "deep", "wide", "shallow", "broken")


def build(out: Path) -> Path:
    """Write every model's page and the index over them below `out`; returns it."""
    models = out.parent / "models"
    for name, layers in {"measured": 8, "plain": 4}.items():  # with 32 heads and 7 pairs something holds
        tiny_checkpoint(models / name, layers=layers)
    with few_draws():
        of = [str(models / name) for name in ("measured", "plain")]
        assert main(["run", *of, *QUIET, "--out", str(out)]) in (0, 1)
    judged = records.read_json(out / "measured" / "gates.json")
    evidence = {claim["id"]: controls(claim, k) for k, claim in enumerate(judged["claims"])}
    rests_on = checksums(read_records(out / "measured"))
    reached = {finding["path"]: orbit(finding["observed"]) for row in judged["stored"] for finding in row["findings"]}
    shown = {"schema_version": records.SCHEMA_VERSION, "claims": evidence, "invariance": MOVED, "records": rests_on}
    shown |= {"orbits": {path: found for path, found in reached.items() if found}}
    records.write_json(out / "measured" / "controls.json", shown)
    assert main(["report", str(out / "measured"), "--quiet"]) in (0, 1)
    judged = records.read_json(out / "measured" / "gates.json")
    assert judged["claims"][0]["controls"] and any(any(r["orbits"]) for r in judged["stored"]), "controls were not read"
    every = [outcome(f"NR{k}", verdict, verdict_reason="because") for k, verdict in enumerate(VERDICTS)]
    made = {
        "hostile": dict(judged=gates([outcome("A", claim=HOSTILE)], model=HOSTILE), record=dict(notes=[HOSTILE])),
        "crashed": dict(judged=gates([outcome("A", "error", reason="boom")], model="crashed"), record=None),
        "skipped": dict(judged=gates([SKIPPED], [SKIPPED], model="skipped"), record=None),
        "deep": dict(
            judged=gates(every, model="deep", stored=[stored("NR0.stored")]), record=dict(layers=126, heads=8)
        ),
        "wide": dict(judged=gates(every, model="wide"), record=dict(layers=36, heads=32)),
        "shallow": dict(judged=gates(every, model="shallow"), record=dict(layers=2)),
        "broken": dict(judged=gates(every, [outcome("x", "does not hold")], model="broken"), record={}),
    }
    for name, page in made.items():
        folder, model = out / name, page["judged"]["model"]
        found = {} if page["record"] is None else {"attention_stats": attention_record(model=model, **page["record"])}
        if name == "crashed":
            found["head_grams"] = {"analysis": "head_grams", "model": model, "error": "ValueError: " + "boom " * 60}
        write_folder(folder, page["judged"], manifest(model), **found)
        (folder / "report.html").write_text(render_model(folder), encoding="utf-8")
    folders = [out / name for name in MODELS]
    (out / "index.html").write_text(render_index(folders, out), encoding="utf-8")
    (out / "steps.html").write_text(render("steps.html", summarise({"a training": steps(out)})), encoding="utf-8")
    written = ("--out", str(out / "compare.html"))
    assert main(["compare", *(str(out / side) for side in ("plain", "measured")), *written, "--quiet"]) == 0
    return out


def steps(out: Path) -> list[Step]:
    """Two models as if they were two checkpoints of one training."""
    run = []
    for step, name in ((0, "plain"), (1000, "measured")):
        claims = {claim["id"]: claim for claim in records.read_json(out / name / "gates.json")["claims"]}
        run.append(Step(step=step, name=f"step{step}", href=f"{name}/report.html", content=None, claims=claims))
    return run


QUIET = ("--quiet", "--device", "cpu", "--exact-index")
SKIPPED = outcome("A", "not applicable", findings=[finding(None, None, status="skip", reason="no forward pass")])


def controls(claim: dict, k: int) -> dict:
    """What controls might have shown of the k-th claim; over all claims every answer there is."""
    seen = [finding["observed"] for finding in claim["findings"]]
    runs = [
        {"name": f"twin {i}", "seed": i, "status": "fail", "observed": [x if x is None else x * i / 9 for x in seen]}
        for i in range(19)
    ]
    answer = ANSWERS[k % len(ANSWERS)]
    noisy = k % 5 == 2
    return {
        "control": {"answer": answer, "detail": "0 of 19 twins pass", "runs": runs, "bands": []},
        "noise": {
            "answer": WITHIN_ROUNDING if noisy else "stable",
            "detail": "moves by 0.001 at most",
            "runs": [],
            "bands": [None if x is None else abs(x) / 20 for x in seen],
        },
    }


MOVED = {"a scramble": [{"path": "null_residual.metrics.x", "difference": 2e-8, "tolerance": 1e-6}]}


def orbit(value: float | None) -> dict | None:
    """A range that exact maps might have reached."""
    if value is None:
        return None
    low, high = sorted((value / 2, value * 2))
    return {"value": value, "low": low, "high": high, "witness": "a scramble", "at_witness": value * 2}

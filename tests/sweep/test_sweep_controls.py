"""A sweep with controls: every checkpoint's words rest on them, and the page tells when a claim holds."""

from types import SimpleNamespace

import pytest

from analyses import records
from analyses.forward.inputs import Settings
from checks.sweep import done, plan
from checks.sweep.steps import held_over
from checks.sweep.steps_drawn import Step
from checks.verbs import sweep
from tests.tiny import tiny_checkpoint


def step(number: int, verdict: str) -> Step:
    return Step(step=number, name=str(number), href="", content=None, claims={"RS1": {"verdict": verdict}})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("undecided", "does not hold", "undecided"), "never holds"),
        (("undecided", "holds", "undecided"), "holds at step 2"),
        (("holds", "holds", "undecided"), "holds from step 1 to 2"),
        (("holds", "undecided", "holds"), "holds from step 1 to 3, at 2 of 3"),
    ],
)
def test_the_page_names_the_first_and_the_last_step_at_which_a_claim_holds(words, told):
    assert held_over([step(n, word) for n, word in enumerate(words, 1)], "RS1") == told


def test_the_controls_of_a_sweep_are_those_of_every_checkpoint_that_is_measured_whole(tmp_path, monkeypatch, capsys):
    folder = tiny_checkpoint(tmp_path / "model", "qwen3", layers=2, tokenizer=False)
    source = SimpleNamespace(exact=str(folder), name="named", commit=None)
    common = dict(source=source, threads=1, folder=lambda out: out / "m")
    whole, part = (SimpleNamespace(**common, kept=kept) for kept in (True, False))
    monkeypatch.setattr(done, "missing", lambda out, element: () if element.kept else ("weight_spectra",))
    settings = Settings(device="cpu", only=("weight_spectra",))
    monkeypatch.setattr(plan, "settings_of", lambda element: settings)
    asked = []

    def control(measured, wanted, arguments):
        asked.append((measured.checkpoint.name, measured.settings.only, wanted))
        return "no room" if len(asked) > 1 else None

    monkeypatch.setattr("checks.verbs.measure.control", control)
    made = SimpleNamespace(checkpoints=[whole, part, whole], out=tmp_path / "out")
    sweep._controls(made, SimpleNamespace(controls="class", quiet=True))
    assert asked == [("named", ("weight_spectra",), "class")] * 2
    assert "named: controls failed: no room" in capsys.readouterr().err
    assert records.read_json(tmp_path / "out" / "m" / "weight_spectra.json")["model"] == "named"

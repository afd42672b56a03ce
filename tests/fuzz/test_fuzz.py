"""A short run of the odd inputs; `make fuzz` asks for twenty thousand."""

import signal

from checks.report.page import render_model
from tests.fuzz.run import _alarm, fuzz
from tests.fuzz.targets import models, results
from tests.page import attention_record, gates, manifest, outcome, write_folder
from tests.tiny import tiny_checkpoint

COUNT = 40  # of each kind


def test_odd_inputs_are_read_or_refused_in_one_line(tmp_path):
    model = tiny_checkpoint(tmp_path / "tiny", layers=2)
    folder = write_folder(tmp_path / "m", gates([outcome("A")]), manifest(), attention_stats=attention_record())
    (folder / "report.html").write_text(render_model(folder), encoding="utf-8")
    signal.signal(signal.SIGALRM, _alarm)
    targets = models(model, tmp_path) | results(folder)
    outcomes, faults = fuzz(targets, COUNT, seed=0, scratch=tmp_path)
    assert not faults, "\n".join(faults)
    assert outcomes["refused"] > outcomes["read"] / 3 > 0

"""The notebook of the documentation, executed from its first cell to its last."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the notebook's own libraries
def test_the_notebook_goes_from_a_checkpoint_to_a_frame_a_plot_a_family_and_a_verdict(tmp_path, loopback, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # also where the project is not installed
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("matplotlib")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()) < 40
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [str(output) for cell in code for output in cell.outputs]
    assert any("holds ·" in text or "does not hold ·" in text or "undecided ·" in text for text in shown)
    assert any("Stated before the model was measured" in text for text in shown)
    assert any("image/png" in text for text in shown) and any("upper" in text for text in shown)
    assert all(not cell.get("outputs") for cell in nbformat.read(NOTEBOOK, as_version=4).cells), "it ships without outputs"

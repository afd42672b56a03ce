"""The check on a device, with the processor in the device's place: all but the device is tested here."""

import json
import subprocess

import pytest
import torch

from analyses import registry
from analyses.errors import InputError
from analyses.weights import upload
from checks.bench import device, gpu_check, on_device, runner
from tests.tiny import tiny_checkpoint

SMALL = {"side": 64, "read_bytes": 1 << 16, "batch": (2, 16)}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    model = tiny_checkpoint(root / "model", layers=4)
    agrees = gpu_check.check("cpu", root, sizes=("tiny",), reference=model, ceilings=SMALL)
    return agrees, json.loads((root / "gpu-check.json").read_text()), (root / "gpu-check.md").read_text()


def test_the_processor_agrees_with_itself_to_the_last_bit_in_every_analysis(checked):
    agrees, result, _ = checked
    assert agrees and result["agrees"]
    assert {row["analysis"] for row in result["agreement"] if row["model"] == "reference"} == set(registry.NAMES)
    assert {row["analysis"] for row in result["agreement"] if "tiny" in row["model"]} == set(gpu_check.WEIGHTS)
    assert all(row["largest"] == 0 and row["agrees"] for row in result["agreement"])
    assert sum(row["numbers"] for row in result["agreement"]) > 100


def test_every_stage_is_timed_beside_the_ceilings_and_stands_in_the_table(checked):
    _, result, page = checked
    assert all(row["seconds"] > 0 for row in result["stages"]) and len(result["stages"]) == 10
    assert all(f"| {row['stage']} " in page for row in result["stages"])
    assert set(result["rates"]) == {
        "float32_products", "bfloat16_products", "float64_products", "float64_eigenvalues", "device_memory",
        "host_to_device",
    }  # fmt: skip
    assert all(rate > 0 for rate in result["rates"].values())
    assert "| reference" in page and "agrees" in page


def test_a_number_that_differs_by_more_than_its_tolerance_or_is_missing_is_told():
    one = {"metrics": {"a": {"value": 1.0, "members": {"q": {"value": 2.0}}}, "b": {"value": None}}}
    other = {"metrics": {"a": {"value": 1.0, "members": {"q": {"value": 2.01}}}, "b": {"value": None}}}
    assert gpu_check.compare(one, one, 0.0) == {"numbers": 2, "largest": 0.0, "where": "a", "agrees": True}
    found = gpu_check.compare(one, other, 0.001)
    assert (found["where"], found["agrees"]) == ("a.q", False) and found["largest"] == pytest.approx(0.01)
    gone = {"metrics": {"a": {"value": None, "members": {"q": {"value": 2.0}}}, "b": {"value": None}}}
    assert not gpu_check.compare(one, gone, 1e9)["agrees"]


def test_a_torch_too_old_for_a_gpu_is_refused_there_and_nowhere_else():
    with pytest.raises(InputError, match=r"torch 2\.11\.1\+cu130: on cuda 2\.12 or later is needed; pip install"):
        device.require_torch("cuda", "2.11.1+cu130")
    device.require_torch("cpu", "2.5.0")
    device.require_torch("cuda", "2.12.0")
    device.require_torch("cuda", "3.0")


def test_a_device_without_memory_names_the_tensor_and_the_option_that_helps(monkeypatch):
    def full(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 139 GiB")

    stored = torch.ones(2)
    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(InputError, match=r"tensor layers\.0\.up: the device has no memory left.*20\.00 GiB.*--layers"):
        upload.upload("layers.0.up", stored, "cpu")


def test_a_bench_of_a_device_has_its_stages_and_its_ceilings(monkeypatch, tmp_path):
    """`mps` stands for a device here, and the processor does its work."""
    rates = {"float32_products": 1e9}
    row = {"stage": "head_grams", "seconds": 2.0, "operations": 1e9, "peak_bytes": 3e9}
    monkeypatch.setattr(runner, "resolve_device", lambda name: "cpu")
    monkeypatch.setattr(device, "ceilings", lambda on: rates)
    monkeypatch.setattr(on_device, "measure", lambda checkpoint, on, say: [row])
    text = runner.bench("tiny", tmp_path, device="mps", say=lambda line: None)
    assert "| head_grams" in text and "50%" in text and "3.00" in text
    assert json.loads((tmp_path / "bench.json").read_text())["rates"] == rates


def test_the_make_target_runs_the_script_on_the_device_that_is_asked_for():
    ran = subprocess.run(["make", "-n", "gpu-check", "DEVICE=cpu", "OUT=x"], capture_output=True, text=True, check=True)
    assert 'checks.bench.gpu_check --device cpu --out "x"' in ran.stdout
    assert gpu_check.main(["--device", "cpu", "--sizes", "huge"]) == 2

"""Machine, libraries and their switches, as far as they can move a last digit of a number.

Nothing here names a person, a host or a place on the disk.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checks import __version__
from checks.machine.threads import COUNTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "numpy", "scipy", "jinja2", "safetensors", "tokenizers", "huggingface_hub")


def versions() -> dict[str, str]:
    """Version of Fathom, of Python, and of every package that a number passes through."""
    found = {"fathom": __version__, "python": platform.python_version()}
    return found | {package: importlib.metadata.version(package) for package in PACKAGES}


def source() -> dict[str, Any]:
    """Fathom's own commit, whether the tree was as committed, and the lock file's hash; or why there is none."""
    lock = ROOT / "requirements.lock"
    found: dict[str, Any] = {"lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "none shipped"}
    if not (ROOT / ".git").exists():
        return found | {"commit": "not a checkout of Fathom's repository"}
    try:
        commit, changed = (_git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError) as error:
        return found | {"commit": f"git does not say ({type(error).__name__})"}
    return found | {"commit": commit, "tree": "changed since" if changed else "clean"}


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, accelerator, linear algebra and threads."""
    facts: dict[str, Any] = {
        "system": platform.system(),
        "processor": ", ".join(filter(None, (platform.machine(), processor()))),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "blas": f"torch: {_torch_blas()}; numpy: {_numpy_blas()}",
        "threads": torch.get_num_threads(),
    }
    facts |= {name.lower(): os.environ[name] for name in COUNTS if name in os.environ}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
        facts["driver"] = _driver()
    return facts


def determinism() -> dict[str, Any]:
    """The switches of torch that let two runs differ."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "default"),
    }


def processor() -> str | None:
    """The processor's name, where the system says it."""
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(errors="replace") if listed.exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else None


def _torch_blas() -> str:
    shown = torch.__config__.show()
    named = re.search(r"BLAS_INFO=(\w+)", shown)
    version = re.search(r"Math Kernel Library Version (\S+)", shown)
    return " ".join(found[1] for found in (named, version) if found) or "unnamed"


def _numpy_blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unnamed')} {blas.get('version', '')}".strip()


def _driver() -> str:
    listed = Path("/proc/driver/nvidia/version")
    named = re.search(r"Kernel Module\D*([\d.]+)", listed.read_text()) if listed.exists() else None
    return named[1] if named else "not named by the system"

"""A device's ceilings: rates that no analysis exceeds there.

    float32, bfloat16 → float32, float64   products of square matrices, operations a second
    device memory                          bytes a second that a sum reads
    host to device                         bytes a second from pinned memory
    eigenvalues                            batched symmetric, float64, 4/3·side³ operations each

Everything here also runs with `cpu` as the device, where there is no copy to be overlapped: that is how it is tested.
"""

import time
from collections.abc import Callable

import torch

from analyses.errors import InputError
from analyses.numerics.spectra import full_float32
from analyses.weights.upload import out_of_memory

TORCH = (2, 12)  # batched eigh of earlier ones falls off a cliff at side 33 on CUDA: 1.65 → 137 ms
SIDE = 8192  # of the square products on a device
BATCH = (64, 256)  # symmetric matrices and their side: the heads of some layers
REPEATS = 5


def require_torch(device: str, version: str = torch.__version__) -> None:
    """Raise InputError for a torch that is too old to measure on a GPU with."""
    found = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if device != "cpu" and found < TORCH:
        wanted = ".".join(map(str, TORCH))
        raise InputError(f"torch {version}: on {device} {wanted} or later is needed; pip install 'torch>={wanted}'")


def synchronise(device: str) -> None:
    """Wait for what was asked of a device."""
    if device != "cpu":
        torch.accelerator.synchronize()


def seconds(work: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Least seconds of several runs, after one that warms up."""
    work()
    found = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found)


def ceilings(
    device: str, *, side: int | None = None, read_bytes: int = 1 << 30, batch: tuple[int, int] = BATCH
) -> dict[str, float]:
    """Name → rate, in operations or bytes a second, as `ceilings.measure` names those of the processor."""
    side = side or (SIDE if device != "cpu" else SIDE // 4)  # the largest would take a processor minutes
    with out_of_memory("the square products of the ceilings", "--size"), full_float32():
        rates = {}
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float64", torch.float64)):
            a = torch.randn(side, side, device=device).to(dtype)
            product = bfloat16_product if dtype == torch.bfloat16 else torch.matmul
            rates[f"{name}_products"] = 2 * side**3 / seconds(lambda a=a, f=product: f(a, a), device)
            del a
        count, edge = batch
        symmetric = torch.randn(count, edge, edge, device=device, dtype=torch.float64)
        symmetric = symmetric + symmetric.mT
        eigenvalues = seconds(lambda: torch.linalg.eigvalsh(symmetric), device, 3)
        rates["float64_eigenvalues"] = count * 4 / 3 * edge**3 / eigenvalues
        held = torch.ones(read_bytes // 4, device=device)
        rates["device_memory"] = read_bytes / seconds(held.sum, device)
        del held
        host = torch.ones(read_bytes // 8, pin_memory=device != "cpu")
        there = torch.empty_like(host, device=device)
        rates["host_to_device"] = host.nbytes / seconds(lambda: there.copy_(host, non_blocking=True), device)
    return rates


def bfloat16_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Products of bfloat16 matrices, added up and given in float32 where the device's library can."""
    if a.device.type == "cpu":
        return (a @ b).float()
    return torch.mm(a, b, out_dtype=torch.float32)

"""Recognition of quantised weights, whose entries are codes, so that no statistic of them means anything."""

import re
from collections.abc import Mapping, Set
from typing import Any

from analyses.weights.schema import Header

MARKS = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "weight.absmax": "bitsandbytes",
    "weight.quant_map": "bitsandbytes",
    "SCB": "bitsandbytes",
    "weight_scale_inv": "fp8",
    "weight_scale": "fp8",
    "weight_packed": "compressed tensors",
    "scales": "a block-scaled format",
}
"""Last parts of a tensor's name that only quantised checkpoints have → what writes them."""

MXFP4 = ("_blocks", "_scales")
"""Ends of the names of the two tensors of whole numbers in which gpt-oss ships one matrix of its experts."""

WHOLE = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_MARK = re.compile(rf"(?:^|\.)({'|'.join(map(re.escape, MARKS))})$")


def declared(config: Mapping[str, Any]) -> str | None:
    """What in the config says that the weights are quantised, in a few words; None where nothing does."""
    for key in ("quantization_config", "compression_config"):
        if isinstance(settings := config.get(key), Mapping) and settings:
            return f"{settings.get('quant_method', 'unknown method')}, says {key}"
    return None


def quantised(headers: Mapping[str, Header], *, modules: Set[str] | None = None) -> str | None:
    """Which tensor shows that the weights are quantised; None where none does.

    A name that only quantised checkpoints have, a float of 8 bits or fewer, a matrix called `weight` of whole
    numbers, or blocks of codes of 4 bits. What stands beside the model's own weights may be of any kind.

    Parameters
    ----------
    modules : names of those whose weights are read; None for all.
    """
    for name, header in headers.items():
        mark = _MARK.search(name)
        if name.endswith(MXFP4) and header.dtype == "uint8" and modules is None:
            return f"MXFP4, as tensor {name} shows"
        if modules is not None and (name[: mark.start()] if mark else name.rpartition(".")[0]) not in modules:
            continue
        if mark:
            return f"{MARKS[mark[1]]}, as tensor {name} shows"
        if header.dtype.startswith(("F8", "F6", "F4", "float8", "float4")):
            return f"{header.dtype} in tensor {name}"
        if name.endswith("weight") and len(header.shape) >= 2 and header.dtype in WHOLE:
            return f"{header.dtype} in tensor {name}"
    return None

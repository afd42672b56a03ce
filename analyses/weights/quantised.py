"""Recognition of quantised weights, whose entries are codes, so that no statistic of them means anything."""

import re
from collections.abc import Mapping
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

WHOLE = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_MARK = re.compile(rf"(?:^|\.)({'|'.join(map(re.escape, MARKS))})$")


def quantised(config: Mapping[str, Any], headers: Mapping[str, Header]) -> str | None:
    """What says that the weights are quantised, in a few words; None where nothing does.

    The config is asked first, then the names of the tensors, then their types: a float of 8 bits or
    fewer, or a matrix called `weight` of whole numbers.
    """
    for key in ("quantization_config", "compression_config"):
        if isinstance(settings := config.get(key), Mapping) and settings:
            return f"{settings.get('quant_method', 'unknown method')}, says {key}"
    for name, header in headers.items():
        if mark := _MARK.search(name):
            return f"{MARKS[mark[1]]}, as tensor {name} shows"
        if header.dtype.startswith(("F8", "F6", "F4", "float8", "float4")):
            return f"{header.dtype} in tensor {name}"
        if name.endswith("weight") and len(header.shape) >= 2 and header.dtype in WHOLE:
            return f"{header.dtype} in tensor {name}"
    return None

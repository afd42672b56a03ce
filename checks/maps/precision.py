"""A forward pass in float64 throughout, where the library's norms, softmaxes and routers would narrow to float32.

An exact map leaves a function alone to the last digits of the arithmetic: in float64 a comparison sees a wrong map,
or a statistic that is no property of the function, far below the rounding of the usual pass.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NeverNarrowed(TorchDispatchMode):
    """Whatever asks for a float64 tensor in float32 gets it as it is."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if operation is torch.ops.aten._to_copy.default and args[0].dtype == torch.float64:
            if kwargs.get("dtype") == torch.float32:
                kwargs["dtype"] = torch.float64
        return operation(*args, **kwargs)

"""Generate inputs for visible checks. The inputs are the same on every machine. Entry points: `fixed_numbers` and `filled`."""

from __future__ import annotations

import math
import zlib
from typing import TypeVar

import torch
from torch import Tensor, nn

from autograder.in_notebook.helper_names import helper_names

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@helper_names()
def fixed_numbers(*shape: int) -> Tensor:
    """Return a tensor of distinct numbers between −1 and 1, which are the same on every machine."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1 + 2.3 * count).float().reshape(shape)


@helper_names()
def filled(module: ModuleT) -> ModuleT:
    """Fill each of a module's parameters with numbers that depend only on its shape and its shortest name."""
    names: dict[torch.nn.Parameter, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter] = min(names.get(parameter, name), name, key=len)
    with torch.no_grad():
        for parameter, name in names.items():
            start = zlib.crc32(name.encode()) % 1000
            count = start + torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(torch.sin(1 + 2.3 * count).reshape(parameter.shape))
    return module

"""Values as plain JSON and back: numbers, text, lists, tables of names, tensors. Nothing runs.

Recorded self-checks are kept like this, and the grader speaks like this with the process that
holds a student's code: whatever comes back can be wrong, but it cannot do anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["from_plain", "to_plain"]

_KINDS = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.int64)}
_KINDS["bool"] = torch.bool


def to_plain(value: Any) -> Any:
    """A value as what JSON can hold.

    Args:
        value: None, a bool, int, float or str; a list, tuple or dict (names to values) of such;
            a tensor or an array.

    Raises:
        TypeError: for anything else.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.array(value))
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        if kind not in _KINDS:
            value = value.double() if value.is_floating_point() else value.long()
            kind = str(value.dtype).removeprefix("torch.")
        # The shape says what an empty list cannot.
        return {"tensor": value.detach().cpu().tolist(), "kind": kind, "shape": list(value.shape)}
    if isinstance(value, list):
        return [to_plain(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [to_plain(part) for part in value]}
    if isinstance(value, dict) and all(type(name) is str for name in value):
        return {"dict": {name: to_plain(part) for name, part in value.items()}}
    raise TypeError(f"a {type(value).__name__}")


def from_plain(plain: Any) -> Any:
    """The value again; tensors come back on the CPU, arrays as tensors.

    Raises:
        ValueError: if `plain` was not made by `to_plain`.
    """
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    if isinstance(plain, list):
        return [from_plain(part) for part in plain]
    try:
        if "tensor" in plain:
            kind = _KINDS[plain["kind"]]
            return torch.tensor(plain["tensor"], dtype=kind).reshape(plain["shape"])
        if "tuple" in plain:
            return tuple(from_plain(part) for part in plain["tuple"])
        return {name: from_plain(part) for name, part in plain["dict"].items()}
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError("these are not values written by to_plain") from error

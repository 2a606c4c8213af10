"""Results as JSON text that every parser reads."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(value: Any) -> str:
    """`value` as indented JSON text that ends a line; NaN and infinities become null, NumPy's scalars numbers.

    >>> print(to_json({"mean": 0.5, "p": float("nan")}), end="")
    {
     "mean": 0.5,
     "p": null
    }
    """
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """`value` with None in place of every float that is not finite, and Python's numbers in place of NumPy's."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value

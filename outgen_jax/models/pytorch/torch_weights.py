"""Puts the arrays of a PyTorch state dictionary into a network's variables, where names and shapes fit."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


def to_jax_layout(name: str, array: np.ndarray) -> np.ndarray:
    """PyTorch's kernels are OIHW (linear: OI), those here HWIO (IO); all else stays."""
    del name
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def assign(
    variables: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    *,
    caller: str,
    source: str,
    network: str,
    to_jax_layout: Callable[[str, np.ndarray], np.ndarray] = to_jax_layout,
) -> None:
    """Sets every variable to the array of its name.

    Args:
      variables: the network's, by the name that PyTorch gives each.
      state: arrays by the same names. PyTorch's counts of batches, on which nothing here depends, may be among them.
      caller: what error messages begin with.
      source: what they call the dictionary.
      network: what they call the network.
      to_jax_layout: (name, array) -> the array as it is laid out here.

    Raises:
      ValueError: missing or unexpected names, or an array of another shape.
    """
    given = {name for name in state if not name.endswith(".num_batches_tracked")}
    if given != variables.keys():
        raise ValueError(
            f"{caller}: {source} is not of {network}; missing: {_listed(variables.keys() - given)}; "
            f"unexpected: {_listed(given - variables.keys())}"
        )
    for name, variable in variables.items():
        array = to_jax_layout(name, state[name])
        if array.shape != variable.shape:
            raise ValueError(
                f"{caller}: {name!r} of {source} has shape {state[name].shape}, which becomes "
                f"{array.shape}; expected {variable.shape}. Are these another network's?"
            )
        variable.set_value(jnp.asarray(array, variable.dtype))


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"

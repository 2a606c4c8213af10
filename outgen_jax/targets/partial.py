"""Partial targets: some classes are named, the others share the rest in any proportion.

The entries of free classes are NaN, in targets [..., K] that `targets.validate` has passed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike


def complete(target: ArrayLike, logits: ArrayLike) -> jax.Array:
    """The full target closest to an output: free classes share the remainder in its proportions.

    For the divergences used here (KL, total variation) and their gradients in the logits, an output
    is then as far from the completed target as, with all free classes taken as one, from the named.

    Args:
      target: [..., K], NaN where a class is free.
      logits: [..., K].
    """
    target, logits = jnp.asarray(target), jnp.asarray(logits, jnp.float32)
    free = jnp.isnan(target)
    remainder = jnp.maximum(1 - jnp.nansum(target, axis=-1, keepdims=True), 0)
    # Named classes lie below any free one, whose logit may be -inf: a probability of 0.
    lowest = jnp.finfo(logits.dtype).min
    shares = jax.nn.softmax(jnp.where(free, jnp.maximum(logits, lowest / 2), lowest), axis=-1)
    return jnp.where(free, remainder * shares, target)


def as_masked(targets: npt.ArrayLike) -> np.ma.MaskedArray:
    """Targets as a masked array of float64, 0 where masked: what lies there may be anything, such as NaN.

    >>> as_masked(np.ma.masked_invalid([0.5, np.nan])).data.tolist()
    [0.5, 0.0]
    """
    if not isinstance(targets, np.ma.MaskedArray):
        return np.ma.asarray(targets, dtype=np.float64)
    mask = np.ma.getmaskarray(targets)
    return np.ma.array(targets.filled(0).astype(np.float64), mask=mask)


def finite_or_free(targets: np.ndarray, *, caller: str, what: str) -> np.ndarray:
    """Targets [n, K], masked where free -> float64, NaN where free.

    Raises:
      ValueError: an entry that is not masked is not finite; in the name of `caller`, where `what` is wanted.
    """
    rows = as_masked(targets)
    with np.errstate(over="ignore"):
        wrong = np.argwhere(~np.isfinite(rows.data.astype(np.float32)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{caller}: targets must be {what}; row {row} has {rows.data[row, column]:g} in column {column}. Mask "
            "entries that are free: numpy.ma.masked_invalid(targets)"
        )
    return rows.filled(np.nan)

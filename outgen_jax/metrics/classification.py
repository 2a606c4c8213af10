"""Measures of class distributions; probabilities on the last axis."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def total_variation(p: ArrayLike, q: ArrayLike) -> jax.Array:
    """Total variation distance ½ Σ |p − q|, in [0, 1]: [..., K], [..., K] -> [...]."""
    return jnp.abs(jnp.asarray(p) - jnp.asarray(q)).sum(-1) / 2

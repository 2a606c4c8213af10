"""The Jacobian of an image's coordinates, and how to correct it without computing a new one.

An image is a vector [D]; J is [M, D], a row for every coordinate of the objective.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from outgen_jax.solvers.objective import Objective, Outputs

# Rows whose backward passes run at once; more go through in blocks of so many, to bound the memory.
BLOCK = 32


def jacobian(
    network: Callable[[jax.Array], Outputs], objective: Objective, image: jax.Array
) -> tuple[Outputs, jax.Array, jax.Array]:
    """Outputs of an image [D], their coordinates [M] and the Jacobian of these [M, D].

    Rows that are not finite are 0: a probability that has underflowed has no slope.
    """
    outputs, to_image = jax.vjp(network, image)
    r, to_outputs = jax.vjp(objective.coordinates, outputs)

    def row(cotangent: jax.Array) -> jax.Array:
        return to_image(*to_outputs(cotangent))[0]

    unit = jnp.eye(len(r), dtype=jnp.float32)
    few = len(r) <= BLOCK
    rows = jax.vmap(row)(unit) if few else jax.lax.map(row, unit, batch_size=BLOCK)
    return outputs, r, jnp.where(jnp.isfinite(rows), rows, 0)


def broyden(rows: jax.Array, step: jax.Array, surprise: jax.Array) -> jax.Array:
    r"""J + (y − JΔ) Δᵀ / ΔᵀΔ: the Jacobian closest to `rows` that would have predicted y (Broyden, 1965).

    Args:
      rows: J [M, D].
      step: Δ [D].
      surprise: y − JΔ [M].
    """
    squared = step @ step
    return rows + jnp.outer(surprise, step) / jnp.where(squared > 0, squared, 1)


def null_part(rows: jax.Array, ways: jax.Array, change: jax.Array) -> jax.Array:
    """(I − W (J W)⁻¹ J) Δ: the part of a `change` [D] that has no effect on the coordinates.

    The other part is removed along the `ways` Wᵀ [M, D]; along the rows themselves it is the smallest in L2. J W gets
    1e-6 of its mean eigenvalue on the diagonal, because rows may be equal.

    Args:
      rows: J [M, D].
      ways: Wᵀ [M, D].
      change: Δ [D].
    """
    gram = rows @ ways.T
    least = jnp.maximum(1e-6 * jnp.trace(gram) / len(rows), 1e-20)
    matrix = gram + least * jnp.eye(len(rows), dtype=jnp.float32)
    return change - jnp.linalg.solve(matrix, rows @ change) @ ways

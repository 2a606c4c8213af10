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

    Entries that are not finite are 0: a probability that has underflowed has no gradient.
    """
    outputs, to_image = jax.vjp(network, image)
    r, to_outputs = jax.vjp(objective.coordinates, outputs)

    def row(cotangent: jax.Array) -> jax.Array:
        return to_image(*to_outputs(cotangent))[0]

    unit = jnp.eye(len(r), dtype=jnp.float32)
    few = len(r) <= BLOCK
    jac = jax.vmap(row)(unit) if few else jax.lax.map(row, unit, batch_size=BLOCK)
    return outputs, r, jnp.where(jnp.isfinite(jac), jac, 0)


def broyden(jac: jax.Array, step: jax.Array, error: jax.Array) -> jax.Array:
    r"""J + (y − JΔ) Δᵀ / ΔᵀΔ: the Jacobian closest to J that would have predicted y (Broyden, 1965).

    J as it is where the network or the step is not finite.

    Args:
      jac: J [M, D].
      step: Δ [D].
      error: y − JΔ [M], of the prediction.
    """
    squared = step @ step
    update = jnp.outer(error, step) / jnp.where(squared > 0, squared, 1)
    return jac + jnp.where(jnp.isfinite(update).all(), update, 0)


def null_space_part(jac: jax.Array, directions: jax.Array, change: jax.Array) -> jax.Array:
    """(I − W (J W)⁻¹ J) Δ: the part of a change Δ [D] in the null space of J, which has no effect on the coordinates.

    The other part is removed along the directions W; along the rows of J it is the smallest in L2.

    Args:
      jac: J [M, D].
      directions: Wᵀ [M, D].
      change: Δ [D].
    """
    return change - solve_gram(jac @ directions.T, jac @ change) @ directions


def solve_gram(gram: jax.Array, right: jax.Array) -> jax.Array:
    """Solves G λ = b for J's Gram matrix G [M, M], with 1e-6 of its mean eigenvalue on the diagonal: [M] -> [M]."""
    least = jnp.maximum(1e-6 * jnp.trace(gram) / len(gram), 1e-20)
    return jnp.linalg.solve(gram + least * jnp.eye(len(gram), dtype=jnp.float32), right)
